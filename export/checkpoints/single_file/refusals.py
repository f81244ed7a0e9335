"""Files that are not a checkpoint: what each of them is, and which option wants it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ....runtime.errors import CheckpointError
from ..safetensors_header import SafetensorsHeader

#: How the names of pickled weights end.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: First bytes: a zip archive, as torch writes since 1.6, and a bare pickle of protocol 2 to 5.
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_GGUF_MAGIC = b"GGUF"

_EXPECTED = "a checkpoint in the original layout of SD1, SD2, SDXL, its refiner or SD3, or a diffusers folder"


@dataclass(frozen=True)
class _Kind:
    """A kind of file: a regular expression of which one tensor's name has to hold a match, what it is, what to do."""

    pattern: str
    name: str
    remedy: str


_MERGE = "merge it into a checkpoint and give that; no option takes it"
_NOTHING = "no option takes it"
_FOLDER = "give the whole folder that it is from; a component's file alone does not say how to use it"

#: What one tensor makes of a file that may hold a denoiser too.
_ANYWAY = (
    _Kind(r"\.SCB$|\.absmax$|\.quant_map$|quant_state|\.weight_format$|\.(qweight|qzeros)$|^scaled_fp8$|\.scale_weight$",
          "a quantized checkpoint, which is not read", "use the file that it was made from"),
    _Kind(r"^control_model\.", "a ControlNet", _NOTHING),
)  # fmt: skip

#: What a file without a denoiser in the original layout is, in this order: the first whose pattern a name matches.
_WITHOUT_DENOISER = (
    _Kind(r"\.lora_(up|down|A|B|mid)\.|^lora_|\.hada_w\d|\.lokr_w\d|\.oft_(diag|blocks)|\.lora_magnitude|\.dora_scale",
          "a LoRA", _MERGE),
    _Kind(r"^controlnet_|^controlnet_cond_embedding\.|^input_hint_block\.|^lllite_|^control_add_embedding",
          "a ControlNet", _NOTHING),
    _Kind(r"^ip_adapter\.|^image_proj\.", "an IP-Adapter", _NOTHING),
    _Kind(r"^adapter\.|^body\.\d+\.", "a T2I-Adapter", _NOTHING),
    _Kind(r"motion_modules?\.", "a motion module of AnimateDiff", _NOTHING),
    _Kind(r"^(model\.diffusion_model\.)?(double_blocks|double_stream_blocks|single_blocks|single_transformer_blocks)\.",
          "a Flux or another transformer of that kind", "LatentRT knows SD1, SD2, SDXL, its refiner and SD3"),
    _Kind(r"^(down_blocks|mid_block|up_blocks)\.", "a UNet of a diffusers folder", _FOLDER),
    _Kind(r"^transformer_blocks\.\d+\.", "a transformer of a diffusers folder", _FOLDER),
    _Kind(r"^model_ema\.", "the averaged (EMA) weights alone", "use the file that has model.diffusion_model. tensors"),
    _Kind(r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(down|up|mid)\.", "an autoencoder (VAE)",
          "give it as --vae PATH beside a checkpoint"),
    _Kind(r"^(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\.", "an autoencoder (VAE) of a diffusers folder",
          "give its folder as --vae PATH beside a checkpoint"),
    _Kind(r"^((taesd_)?(encoder|decoder)\.)?(layers\.)?\d+\.conv\.\d\.weight$", "a tiny autoencoder (TAESD)",
          "give its diffusers folder as --tiny-vae PATH beside a checkpoint"),
    _Kind(r"^(encoder\.block\.\d+\.layer\.|encoder\.final_layer_norm)", "a T5 text encoder",
          "give it as --text-encoder-3 PATH beside an SD3 checkpoint"),
    _Kind(r"text_model\.encoder\.layers\.|^transformer\.resblocks\.|resblocks\.\d+\.", "a CLIP text encoder",
          "give it as --text-encoder PATH or --text-encoder-2 PATH beside a checkpoint"),
    _Kind(r"^(emb_params|clip_l|clip_g|string_to_param.*|<.*>)$", "a textual inversion", _NOTHING),
)  # fmt: skip


def refuse_other_formats(path: Path) -> None:
    """Refuse what is not a safetensors file, from its first bytes, or by its name where they say nothing.

    Raises:
        CheckpointError: a pickle, which is never read, a GGUF file, one file of a diffusers folder, or a file that
            cannot be read.
    """
    if path.name == "model_index.json":
        remedy = f"give its folder: {path.parent}"
        raise CheckpointError(f"{path}: one file of a diffusers folder", expected=_EXPECTED, remedy=remedy)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read", received=error.strerror or str(error)) from None
    if magic == _GGUF_MAGIC:
        raise CheckpointError(
            f"{path}: a GGUF file: a quantized checkpoint, which LatentRT does not read",
            expected=_EXPECTED,
            remedy="use the safetensors file that it was made from",
        )
    if magic.startswith(_PICKLE_MAGIC) or path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path}: a pickled checkpoint is never read, because loading it can run any code",
            expected=_EXPECTED,
            remedy="convert it on a machine you can afford to lose: "
            "weights = torch.load(OLD, weights_only=True); safetensors.torch.save_file(weights['state_dict'], NEW)",
        )


def refuse_other_kinds(header: SafetensorsHeader) -> None:
    """Refuse what is not an ordinary checkpoint although it may hold a denoiser.

    Raises:
        CheckpointError: a quantized checkpoint, or a ControlNet.
    """
    kind = _kind(header, _ANYWAY)
    if kind is not None:
        raise _refused(header, kind)


def not_a_checkpoint(header: SafetensorsHeader) -> CheckpointError:
    """The error for a file without a denoiser in the original layout: what it is instead."""
    kind = _kind(header, _WITHOUT_DENOISER)
    if kind is None and _is_embedding(header):
        kind = _Kind("", "a textual inversion", _NOTHING)
    if kind is not None:
        return _refused(header, kind)
    names = list(header.tensors)
    received = f"{len(names)} tensors: {', '.join(names[:5])}{', ...' if names[5:] else ''}"
    return CheckpointError(f"{header.path}: not a checkpoint", received=received, expected=_EXPECTED)


def _kind(header: SafetensorsHeader, kinds: tuple[_Kind, ...]) -> _Kind | None:
    patterns = ((kind, re.compile(kind.pattern)) for kind in kinds)
    return next((kind for kind, pattern in patterns if any(map(pattern.search, header.tensors))), None)


def _refused(header: SafetensorsHeader, kind: _Kind) -> CheckpointError:
    subject = f"{header.path}: not a checkpoint"
    return CheckpointError(subject, received=kind.name, expected=_EXPECTED, remedy=kind.remedy)


def _is_embedding(header: SafetensorsHeader) -> bool:
    """A few vectors as wide as a text encoder, whatever they are called."""
    return len(header.tensors) <= 2 and all(
        len(entry.shape) <= 2 and entry.shape[-1:] in ((768,), (1024,), (1280,)) for entry in header.tensors.values()
    )
