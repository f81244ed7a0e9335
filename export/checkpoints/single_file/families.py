"""Where each family's single files keep its components, and how the families are told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....runtime.errors import CheckpointError
from ..families import SD1, SD2, SD3, SDXL, SDXL_REFINER, Family
from ..safetensors_header import SafetensorsHeader
from .prediction import always_epsilon, sd2_prediction_type
from .section import Section


@dataclass(frozen=True)
class TextEncoderPlace:
    """Where files keep a text encoder. ``unused_layers`` at its end are in the file and not in diffusers' folders (SD2
    uses the layer before the last). ``identity_projection``: its pooled output is used without the projection that its
    class has. ``pad_token`` is CLIP's tokenizer's; None is an encoder with a tokenizer of its own, which a file cannot
    give."""

    prefixes: tuple[str, ...]
    pad_token: str | None
    unused_layers: int = 0
    identity_projection: bool = False


@dataclass(frozen=True)
class FileFamily:
    """The single files of a family.

    ``places`` has its text encoders by the names of their components. ``templates`` names the data file with what
    shapes do not tell, for each prediction type. ``untold_prediction`` says what a denoiser predicts when its file does
    not.
    """

    family: Family
    title: str
    templates: Mapping[str, str]
    places: Mapping[str, TextEncoderPlace]
    untold_prediction: Callable[[Section], str] = always_epsilon


_END, _FIRST = "<|endoftext|>", "!"

_SD1 = FileFamily(
    SD1,
    title="Stable Diffusion 1",
    templates={"epsilon": "sd1", "v_prediction": "sd1"},
    places={
        "text_encoder": TextEncoderPlace(
            ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."), _END
        ),
    },
)
_SD2 = FileFamily(
    SD2,
    title="Stable Diffusion 2",
    templates={"epsilon": "sd2", "v_prediction": "sd2-v"},
    places={
        "text_encoder": TextEncoderPlace(
            ("cond_stage_model.model.", "conditioner.embedders.0.model."), _FIRST, unused_layers=1
        ),
    },
    untold_prediction=sd2_prediction_type,
)
_SDXL = FileFamily(
    SDXL,
    title="Stable Diffusion XL",
    templates={"epsilon": "sdxl", "v_prediction": "sdxl"},
    places={
        "text_encoder": TextEncoderPlace(("conditioner.embedders.0.transformer.",), _END),
        "text_encoder_2": TextEncoderPlace(("conditioner.embedders.1.model.",), _FIRST),
    },
)
_SDXL_REFINER = FileFamily(
    SDXL_REFINER,
    title="the Stable Diffusion XL refiner",
    templates={"epsilon": "sdxl-refiner", "v_prediction": "sdxl-refiner"},
    places={"text_encoder_2": TextEncoderPlace(("conditioner.embedders.0.model.",), _FIRST)},
)
_SD3 = FileFamily(
    SD3,
    title="Stable Diffusion 3",
    templates={"flow_prediction": "sd3"},
    places={
        "text_encoder": TextEncoderPlace(("text_encoders.clip_l.transformer.",), _END, identity_projection=True),
        "text_encoder_2": TextEncoderPlace(("text_encoders.clip_g.transformer.",), _FIRST),
        "text_encoder_3": TextEncoderPlace(("text_encoders.t5xxl.transformer.",), None),
    },
    untold_prediction=lambda denoiser: "flow_prediction",
)

#: By the names that LatentRT's families have.
FILE_FAMILIES = {files.family.name: files for files in (_SD1, _SD2, _SDXL, _SDXL_REFINER, _SD3)}

VAE_PREFIXES = ("first_stage_model.", "vae.")

_DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
_UNET, _MMDIT = "input_blocks.0.0.weight", "joint_blocks.0.x_block.attn.qkv.weight"

#: Widths of the text that a denoiser's cross attention reads, where only they tell the families apart.
_TEXT_WIDTHS = {2048: _SDXL, 1280: _SDXL_REFINER}

#: Denoisers that look like a family's and are not: the tensor that gives each away, and what it is.
_RELATIVES = {
    "label_emb.weight": "Stable Diffusion's x4 upscaler",
    "input_blocks.1.0.time_stack.in_layers.0.weight": "Stable Video Diffusion",
    "time_embed.cond_proj.weight": "a latent consistency model with a guidance embedding",
}
_RELATIVE_FILES = {
    "cc_projection.weight": "Zero123",
    "noise_augmentor.data_mean": "Stable Diffusion 2 unCLIP",
    "embedder.model.visual.proj": "Stable Diffusion 2 unCLIP",
    "edm_mean": "Playground v2.5, an SDXL of another noise schedule",
    "edm_vpred.sigma_max": "CosXL, an SDXL of another noise schedule",
}


def denoiser_of(header: SafetensorsHeader) -> Section | None:
    """The UNet or the MMDiT of a file, if it holds one in the original layout."""
    for prefix in _DENOISER_PREFIXES:
        section = Section(header, prefix)
        if _UNET in section or _MMDIT in section:
            return section
    return None


def file_family_of(denoiser: Section) -> FileFamily:
    """The family of a single file.

    A UNet with a vector condition is SDXL's or the refiner's: they keep their text encoders in different places, and
    without text encoders the width of the text tells. The others differ in how attention is projected: by 1x1
    convolutions in SD1, by linear layers in SD2.

    Raises:
        CheckpointError: a relative that LatentRT does not support.
    """
    header = denoiser.header
    if _MMDIT in denoiser:
        return _SD3
    known = {**{f"{denoiser.prefix}{key}": what for key, what in _RELATIVES.items()}, **_RELATIVE_FILES}
    for key, what in known.items():
        if key in header.tensors:
            raise _unsupported(header, what)
    if "label_emb.0.0.weight" not in denoiser:
        return _SD2 if _attention(denoiser, "proj_in.weight", -1) != 1 else _SD1
    for files in (_SDXL, _SDXL_REFINER):
        if any(_has_section(header, place.prefixes) for place in files.places.values()):
            return files
    width = _attention(denoiser, "transformer_blocks.0.attn2.to_k.weight", 1)
    if width not in _TEXT_WIDTHS:
        raise _unsupported(header, f"a UNet with a vector condition and text {width} wide")
    return _TEXT_WIDTHS[width]


def _has_section(header: SafetensorsHeader, prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith(prefixes) for name in header.tensors)


def _attention(denoiser: Section, key: str, axis: int) -> int:
    """A size that is the same in every attention on the way down."""
    name = re.compile(rf"input_blocks\.\d+\.1\.{re.escape(key)}")
    found = next(filter(name.fullmatch, denoiser.tensors), None)
    if found is None:
        raise denoiser.misfit([f"input_blocks.1.1.{key}"], [])
    return denoiser.shape(found)[axis]


def _unsupported(header: SafetensorsHeader, what: str) -> CheckpointError:
    return CheckpointError(
        f"{header.path}: a family that LatentRT does not know",
        received=what,
        expected=", ".join(files.title for files in FILE_FAMILIES.values()),
    )
