"""The diffusers folder from the results of all stages (stage 5): fp16 weights, CLIP's full vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

import architecture
from captions import UNKNOWN, CompactCaptions
from clip_tokenizer_files import VOCABULARY_SIZE, write_tokenizers
from diffusion import load_averaged
from settings import Settings
from vocabulary import ALIASES

Encoder = TypeVar("Encoder", bound=torch.nn.Module)


def full_embeddings(compact: torch.Tensor, captions: CompactCaptions) -> torch.Tensor:
    """Compact table [captions.size, width] -> CLIP's [49408, width]; ids never trained get the "unknown word" row."""
    table = compact[UNKNOWN].expand(VOCABULARY_SIZE, -1).clone()
    table[captions.ids] = compact[1:]
    for word, trained_word in ALIASES.items():
        (word_id,), (trained_id,) = captions.clip_ids(word), captions.clip_ids(trained_word)
        table[word_id] = table[trained_id]
    return table


def with_full_vocabulary(encoder: torch.nn.Module, full: Encoder, captions: CompactCaptions) -> Encoder:
    """The weights of `encoder` in `full`, the same network with 49408 embedding rows."""
    state = encoder.state_dict()
    key = next(key for key in state if key.endswith("token_embedding.weight"))
    state[key] = full_embeddings(state[key], captions)
    full.load_state_dict(state)
    return full


def write_checkpoint(settings: Settings) -> None:
    """Stage 5: writes the checkpoint to `settings.out`."""
    work, out = settings.work, settings.out
    captions = CompactCaptions(work / "tokenizers")
    stored = load_averaged(work)
    models = architecture.diffusion_models(captions.size)
    models.load_state_dict(stored["ema"])
    tuned = work / "vae_tuned"
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(tuned if tuned.exists() else work / "vae_scaled"),
        unet=models["unet"],
        text_encoder=with_full_vocabulary(models["text_encoder"], architecture.text_encoder(VOCABULARY_SIZE), captions),
        text_encoder_2=with_full_vocabulary(
            models["text_encoder_2"], architecture.text_encoder_2(VOCABULARY_SIZE), captions
        ),
        tokenizer=captions.tokenizers[0],
        tokenizer_2=captions.tokenizers[1],
        scheduler=EulerDiscreteScheduler(**architecture.SCHEDULER),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).to(torch.float16)
    pipeline.save_pretrained(out, safe_serialization=True)
    _use_published_layout(settings.bpe, out)
    size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    print(f"{out}: step {stored['step']}, {size / 1e6:.2f} MB of weights")


def _use_published_layout(bpe: Path, out: Path) -> None:
    """Make the folder look like the published SDXL, whatever version of transformers wrote it."""
    for tokenizer in ("tokenizer", "tokenizer_2"):  # vocab.json and merges.txt only
        (out / tokenizer / "tokenizer.json").unlink(missing_ok=True)
    write_tokenizers(bpe, out)
    weights = out / "text_encoder" / "model.safetensors"
    prefix = "text_model."  # transformers 5 drops it
    tensors = {key if key.startswith(prefix) else prefix + key: value for key, value in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    for path in out.glob("*/config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if "dtype" in config:  # so that a plain from_pretrained() computes in fp32 everywhere
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
