"""The model families as records: what a checkpoint's own configs do not say."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.errors import CheckpointError


@dataclass(frozen=True)
class TextEncoderRecord:
    """One text encoder: its folder, its tokenizer's folder, and whether its pooled projection is used."""

    component: str
    tokenizer: str
    pooled: bool


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    ``denoiser_class`` is the ``_class_name`` of the denoiser's config. ``time_ids`` names the (height, width) pairs of
    the size conditioning in order. ``buckets`` are the (width, height) the family was trained on, for a side of
    ``native_side``; a checkpoint of another native size uses them scaled.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    text_encoders: tuple[TextEncoderRecord, ...]
    denoiser_folder: str
    denoiser_class: str
    conditioning_width: int
    time_ids: tuple[str, ...]
    native_side: int
    buckets: tuple[tuple[int, int], ...]
    num_inference_steps: int
    guidance_scale: float


SDXL = Family(
    name="sdxl",
    pipeline_classes=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    text_encoders=(
        TextEncoderRecord("text_encoder", "tokenizer", pooled=False),
        TextEncoderRecord("text_encoder_2", "tokenizer_2", pooled=True),
    ),
    denoiser_folder="unet",
    denoiser_class="UNet2DConditionModel",
    conditioning_width=6,
    time_ids=("original_size", "crops_coords_top_left", "target_size"),
    native_side=1024,
    # The sizes near one megapixel of SDXL's training buckets (arXiv:2307.01952, appendix I) that its users work with.
    buckets=(
        (1024, 1024),
        (1152, 896),
        (896, 1152),
        (1216, 832),
        (832, 1216),
        (1344, 768),
        (768, 1344),
        (1536, 640),
        (640, 1536),
    ),
    num_inference_steps=50,
    guidance_scale=5.0,
)

FAMILIES: tuple[Family, ...] = (SDXL,)


def family_of(pipeline_class: str, *, has_first_text_encoder: bool, where: str) -> Family:
    """The family of a checkpoint, from its ``model_index.json``.

    The SDXL refiner shares a pipeline class with the SDXL base and differs by having no first text encoder.

    Raises:
        CheckpointError: a family that LatentRT does not know.
    """
    for family in FAMILIES:
        if pipeline_class in family.pipeline_classes and has_first_text_encoder:
            return family
    known = ", ".join(f"{family.name} ({family.pipeline_classes[0]})" for family in FAMILIES)
    raise CheckpointError(
        f"{where}: a family that LatentRT does not know",
        received=pipeline_class
        + ("" if has_first_text_encoder else " without a first text encoder (an SDXL refiner?)"),
        expected=known,
    )
