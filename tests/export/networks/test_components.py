"""Wrappers compute what diffusers' pipelines compute, from weights that are all there."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.checkpoints.tokenizers import export_clip_tokenizer
from latentrt.export.gate.examples import example_sizes
from latentrt.export.graphs.onnx_from_torch import example_inputs
from latentrt.export.networks.components import SourceComponent, latent_stride, native_side, vae_scale
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.runtime.errors import CheckpointError, RequestError

from ...tiny_checkpoints import CHECKPOINTS


def edit_config(path: Path, **changes: object) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def by_name(checkpoint: Checkpoint, skip_layers: tuple[int, ...] | None = None) -> dict[str, SourceComponent]:
    return {found.name: found for found in components_from_checkpoint(checkpoint, "fp32", skip_layers)}


@pytest.mark.parametrize("name", ["tiny", *CHECKPOINTS])
def test_every_reference_gives_what_its_contract_says(
    name: str, tiny_checkpoint: Path, family_checkpoint: Callable[[str], Path]
) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint if name == "tiny" else family_checkpoint(name))
    sizes = example_sizes(latent_stride(checkpoint))
    for component in components_from_checkpoint(checkpoint, "fp32"):
        with torch.inference_mode():
            outputs = component.load()(*example_inputs(component, sizes))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for spec, output in zip(component.outputs, outputs, strict=True):
            fixed = {index: size for index, size in enumerate(spec.shape) if isinstance(size, int)}
            assert {index: output.shape[index] for index in fixed} == fixed
            assert output.dtype == torch.float32


def test_sizes_that_a_checkpoint_implies(tiny_checkpoint: Path, emoji_checkpoint: Path, checkpoint_copy: Path) -> None:
    tiny, emoji = read_checkpoint(tiny_checkpoint), read_checkpoint(emoji_checkpoint)
    assert (vae_scale(tiny), latent_stride(tiny), native_side(tiny)) == (4, 2, 96)
    assert (vae_scale(emoji), native_side(emoji)) == (8, 128)
    edit_config(checkpoint_copy / "unet" / "config.json", sample_size=None)
    assert native_side(read_checkpoint(checkpoint_copy)) == 1024


def test_latents_are_scaled_as_diffusers_does(checkpoint_copy: Path) -> None:
    mean, deviation = [0.1, -0.2, 0.3, 0.4], [1.5, 2.0, 0.5, 1.0]
    edit_config(checkpoint_copy / "vae" / "config.json", latents_mean=mean, latents_std=deviation)
    found = by_name(read_checkpoint(checkpoint_copy))
    decoder, encoder = found["vae_decoder"], found["vae_encoder"]
    vae = diffusers.AutoencoderKL.from_pretrained(checkpoint_copy / "vae").eval()
    factor = vae.config.scaling_factor
    shift, width = torch.tensor(mean).view(1, 4, 1, 1), torch.tensor(deviation).view(1, 4, 1, 1)
    (latents,) = example_inputs(decoder, example_sizes(2))
    (image,) = example_inputs(encoder, example_sizes(2))
    with torch.inference_mode():
        torch.testing.assert_close(decoder.load()(latents), vae.decode(latents * width / factor + shift).sample)
        posterior = vae.encode(image).latent_dist
        received_mean, received_deviation = encoder.load()(image)
        torch.testing.assert_close(received_mean, (posterior.mean - shift) * factor / width)
        torch.testing.assert_close(received_deviation, posterior.std * factor / width)


def test_latents_with_a_shift(family_checkpoint: Callable[[str], Path]) -> None:
    found = by_name(read_checkpoint(family_checkpoint("sd3")))
    decoder, encoder = found["vae_decoder"], found["vae_encoder"]
    vae = diffusers.AutoencoderKL.from_pretrained(family_checkpoint("sd3") / "vae").eval()
    factor, shift = vae.config.scaling_factor, vae.config.shift_factor
    (latents,) = example_inputs(decoder, example_sizes(2))
    (image,) = example_inputs(encoder, example_sizes(2))
    with torch.inference_mode():
        torch.testing.assert_close(decoder.load()(latents), vae.decode(latents / factor + shift).sample)
        posterior = vae.encode(image).latent_dist
        received_mean, received_deviation = encoder.load()(image)
        torch.testing.assert_close(received_mean, (posterior.mean - shift) * factor)
        torch.testing.assert_close(received_deviation, posterior.std * factor)


@pytest.mark.parametrize("written", [True, False], ids=["own scale", "the scale of configs that do not say it"])
def test_pictures_to_edit_come_in_the_samplers_scale(
    family_checkpoint: Callable[[str], Path], tmp_path: Path, written: bool
) -> None:
    path = Path(shutil.copytree(family_checkpoint("sd1-edit"), tmp_path / "edit"))
    factor = 0.2 if written else 0.18215
    if not written:
        config = json.loads((path / "vae" / "config.json").read_text())
        del config["scaling_factor"]
        (path / "vae" / "config.json").write_text(json.dumps(config))
    denoiser = by_name(read_checkpoint(path))["denoiser"]
    sample, timestep, states = example_inputs(denoiser, example_sizes(2))
    unet = diffusers.UNet2DConditionModel.from_pretrained(path / "unet").eval()
    unscaled = torch.cat([sample[:, :4], sample[:, 4:] / factor], dim=1)
    with torch.inference_mode():
        expected = unet(unscaled, timestep, states).sample
        torch.testing.assert_close(denoiser.load()(sample, timestep, states), expected)
    assert denoiser.settings == {"image scale": str(1 / factor)}


def test_rows_that_skip_layers_beside_rows_that_do_not(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = read_checkpoint(family_checkpoint("sd3"))
    denoiser = by_name(checkpoint, (0, 1))["denoiser"]
    assert denoiser.settings == {"skip layers": "0,1"}
    *inputs, _ = example_inputs(denoiser, example_sizes(2))
    network = diffusers.SD3Transformer2DModel.from_pretrained(checkpoint.path / "transformer").eval()
    names = ("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections")
    given = dict(zip(names, inputs, strict=True))
    with torch.inference_mode():
        whole, skipped = network(**given).sample, network(**given, skip_layers=[0, 1]).sample
        received = denoiser.load()(*inputs, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(received, torch.stack([whole[0], skipped[1]]))


def test_layers_are_skipped_by_default_in_models_that_are_guided_so(family_checkpoint: Callable[[str], Path]) -> None:
    def layers(**changes: object) -> tuple[int, ...]:
        checkpoint = read_checkpoint(family_checkpoint("sd3"))
        config = {**checkpoint.configs["transformer"], **changes}
        changed = dataclasses.replace(checkpoint, configs={**checkpoint.configs, "transformer": config})
        return by_name(changed)["denoiser"].skip_layers

    assert layers() == ()  # too few layers
    assert layers(num_layers=24, dual_attention_layers=list(range(13))) == (7, 8, 9)  # 3.5 Medium
    assert layers(num_layers=38, dual_attention_layers=[]) == ()  # 3.5 Large


@pytest.mark.parametrize(("name", "layers"), [("sd3", (2,)), ("sd3", (-1,)), ("sd3", (0, 9)), ("sd1", (0,))])
def test_layers_that_cannot_be_skipped(
    family_checkpoint: Callable[[str], Path], name: str, layers: tuple[int, ...]
) -> None:
    with pytest.raises(RequestError, match="--skip-layers"):
        components_from_checkpoint(read_checkpoint(family_checkpoint(name)), "fp32", layers)


@pytest.mark.parametrize(
    ("precision", "force_upcast", "expected"),
    [("fp16", True, "fp32"), ("fp16", False, "fp16"), ("bf16", True, "bf16"), ("fp32", True, "fp32")],
)
def test_an_autoencoder_that_overflows_stays_in_fp32(
    checkpoint_copy: Path, precision: str, force_upcast: bool, expected: str
) -> None:
    edit_config(checkpoint_copy / "vae" / "config.json", force_upcast=force_upcast)
    chosen = {
        component.name: component
        for component in components_from_checkpoint(read_checkpoint(checkpoint_copy), precision)
    }
    assert chosen["vae_decoder"].precision == chosen["vae_encoder"].precision == expected
    assert chosen["denoiser"].precision == precision
    assert chosen["denoiser"].inputs[1].dtype == chosen["denoiser"].inputs[4].dtype == "float32"


def test_only_sdxl_means_what_every_autoencoders_config_says(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = read_checkpoint(family_checkpoint("sd1"))
    assert checkpoint.configs["vae"]["force_upcast"] is True
    chosen = {component.name: component for component in components_from_checkpoint(checkpoint, "fp16")}
    assert chosen["vae_decoder"].precision == "fp16"


# --- weights that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("text_encoder", "text_encoder/model.safetensors"),
        ("vae_decoder", "vae/diffusion_pytorch_model.safetensors"),
    ],
)
def test_weights_that_are_missing_are_named_and_never_drawn_at_random(
    checkpoint_copy: Path, component: str, file: str
) -> None:
    weights = load_file(checkpoint_copy / file)
    removed = sorted(weights)[-1]
    del weights[removed]
    save_file(weights, checkpoint_copy / file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="its weights do not fit its config") as error:
        by_name(read_checkpoint(checkpoint_copy))[component].load()
    assert removed.removeprefix("text_model.") in str(error.value)


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("text_encoder", "text_encoder/model.safetensors"),
        ("vae_decoder", "vae/diffusion_pytorch_model.safetensors"),
    ],
)
def test_weights_of_another_shape_are_an_error(checkpoint_copy: Path, component: str, file: str) -> None:
    weights = load_file(checkpoint_copy / file)
    name = sorted(weights)[-1]
    weights[name] = weights[name].flatten()[:-1].clone()
    save_file(weights, checkpoint_copy / file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="its weights do not fit its config"):
        by_name(read_checkpoint(checkpoint_copy))[component].load()


def test_a_config_that_lacks_a_number(checkpoint_copy: Path) -> None:
    edit_config(checkpoint_copy / "unet" / "config.json", addition_time_embed_dim=None)
    with pytest.raises(CheckpointError, match="addition_time_embed_dim"):
        components_from_checkpoint(read_checkpoint(checkpoint_copy), "fp32")


def test_libraries_say_nothing_on_their_own(tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")[0].load()
    assert capfd.readouterr() == ("", "")


# --- tokenizers -------------------------------------------------------------------------------------------------------


def test_tokenizers_that_differ_in_added_tokens_share_a_vocabulary(emoji_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(emoji_checkpoint)
    first, second = (export_clip_tokenizer(checkpoint, folder, 49408) for folder in ("tokenizer", "tokenizer_2"))
    assert first.vocabulary == second.vocabulary
    assert first == export_clip_tokenizer(checkpoint, "tokenizer", 49408)
    assert first.bos_token_id == second.bos_token_id == 49406
    assert (first.pad_token_id, second.pad_token_id) == (49407, 0)


def test_a_tokenizer_that_cannot_be_read(checkpoint_copy: Path) -> None:
    checkpoint = read_checkpoint(checkpoint_copy)
    for path in (checkpoint_copy / "tokenizer").iterdir():
        path.write_text("{")
    with pytest.raises(CheckpointError, match="not a readable CLIP tokenizer"):
        export_clip_tokenizer(checkpoint, "tokenizer", 49408)
    for path in (checkpoint_copy / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"not the tokenizer of its text encoder \| received: [0-9] tokens"):
        export_clip_tokenizer(checkpoint, "tokenizer", 49408)


def test_a_tokenizer_of_a_larger_text_encoder(emoji_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="ids below 1000"):
        export_clip_tokenizer(read_checkpoint(emoji_checkpoint), "tokenizer", 1000)
