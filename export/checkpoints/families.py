"""The model families as records: what a checkpoint's own configs do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...runtime.bundles.spec import TOKENS_PER_CHUNK, AxisRange
from ...runtime.errors import CheckpointError
from ..buckets import MEGAPIXEL_BUCKETS, SD1_BUCKETS, SD2_BUCKETS, SDXL_TRAINING_BUCKETS, Bucket

ONE_CHUNK = AxisRange(TOKENS_PER_CHUNK, TOKENS_PER_CHUNK, TOKENS_PER_CHUNK)
CHUNKS = AxisRange(TOKENS_PER_CHUNK, TOKENS_PER_CHUNK, 4 * TOKENS_PER_CHUNK)  # for prompts longer than one


@dataclass(frozen=True)
class TextEncoderRecord:
    """One text encoder: its folders, and what of it the denoiser sees.

    ``hidden_state`` ``last`` is behind the final layer norm; ``penultimate`` is before the last layer, without the
    norm. ``pooled`` tells whether the projection of the pooled text is used. ``tokens`` is the range of ids that a
    prompt may become. Hidden states of one ``segment`` are joined along their width, segments along the tokens. A
    checkpoint may lack an encoder that is ``optional``.
    """

    component: str
    tokenizer: str
    hidden_state: Literal["last", "penultimate"] = "penultimate"
    pooled: bool = False
    tokens: AxisRange = ONE_CHUNK
    segment: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    A checkpoint is of the first family that has its pipeline class and its text encoders, and whose
    ``denoiser_config`` agrees with its denoiser's. ``denoiser_class`` is the ``_class_name`` there.

    ``tokens`` is the range of the text states that a denoiser sees. ``time_ids`` names in order what the size
    conditioning of a denoiser that has one is made of. ``force_zeros`` is ``force_zeros_for_empty_prompt`` where
    ``model_index.json`` has none, and ``vae_force_upcast`` whether ``force_upcast`` of the autoencoder counts:
    diffusers writes it into every config, but only SDXL's pipelines read it. ``vae_scaling`` is the scaling factor of
    the family's autoencoders. ``skip_layers`` are left out by skip-layer guidance, in models that are guided so.

    ``buckets`` are the sizes that the family's users work with, ``training_buckets`` what it was trained on, for a
    side of ``native_side``; a checkpoint of another native size uses them scaled. Steps, guidance scale and strength
    are the defaults of the family's pipelines in diffusers.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    text_encoders: tuple[TextEncoderRecord, ...]
    denoiser_folder: str
    denoiser_class: str
    tokens: AxisRange
    native_side: int
    buckets: tuple[Bucket, ...]
    num_inference_steps: int
    guidance_scale: float
    strength: float
    vae_scaling: float
    denoiser_config: tuple[tuple[str, object], ...] = ()
    time_ids: tuple[str, ...] = ()
    force_zeros: bool = False
    vae_force_upcast: bool = False
    training_buckets: tuple[Bucket, ...] = ()
    skip_layers: tuple[int, ...] = ()

    @property
    def time_ids_width(self) -> int:
        """How many numbers the size conditioning has: sizes and corners are pairs, a score is one."""
        return sum(1 if name.endswith("_score") else 2 for name in self.time_ids)


_SD_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionDepth2ImgPipeline",
    "LatentConsistencyModelPipeline",
)

_SDXL_PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
)

SD1 = Family(
    name="sd1",
    pipeline_classes=_SD_PIPELINES,
    text_encoders=(TextEncoderRecord("text_encoder", "tokenizer", hidden_state="last"),),
    denoiser_folder="unet",
    denoiser_class="UNet2DConditionModel",
    denoiser_config=(("use_linear_projection", False), ("addition_embed_type", None)),
    tokens=CHUNKS,
    native_side=512,
    buckets=SD1_BUCKETS,
    num_inference_steps=50,
    guidance_scale=7.5,
    strength=0.8,
    vae_scaling=0.18215,
)

# OpenCLIP-H was trained with one layer more than the checkpoint's text encoder has: its last is the penultimate.
SD2 = replace(
    SD1,
    name="sd2",
    denoiser_config=(("use_linear_projection", True), ("addition_embed_type", None)),
    native_side=768,
    buckets=SD2_BUCKETS,
)

SDXL = Family(
    name="sdxl",
    pipeline_classes=_SDXL_PIPELINES,
    text_encoders=(
        TextEncoderRecord("text_encoder", "tokenizer"),
        TextEncoderRecord("text_encoder_2", "tokenizer_2", pooled=True),
    ),
    denoiser_folder="unet",
    denoiser_class="UNet2DConditionModel",
    denoiser_config=(("addition_embed_type", "text_time"),),
    tokens=CHUNKS,
    time_ids=("original_size", "crops_coords_top_left", "target_size"),
    native_side=1024,
    buckets=MEGAPIXEL_BUCKETS,
    training_buckets=SDXL_TRAINING_BUCKETS,
    num_inference_steps=50,
    guidance_scale=5.0,
    strength=0.3,
    vae_scaling=0.13025,
    force_zeros=True,
    vae_force_upcast=True,
)

SDXL_REFINER = replace(
    SDXL,
    name="sdxl-refiner",
    text_encoders=(TextEncoderRecord("text_encoder_2", "tokenizer_2", pooled=True),),
    time_ids=("original_size", "crops_coords_top_left", "aesthetic_score"),
)

SD3 = Family(
    name="sd3",
    pipeline_classes=(
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ),
    text_encoders=(
        TextEncoderRecord("text_encoder", "tokenizer", pooled=True),
        TextEncoderRecord("text_encoder_2", "tokenizer_2", pooled=True),
        TextEncoderRecord(
            "text_encoder_3", "tokenizer_3", hidden_state="last", tokens=AxisRange(77, 256, 512), segment=1,
            optional=True,
        ),
    ),
    denoiser_folder="transformer",
    denoiser_class="SD3Transformer2DModel",
    tokens=AxisRange(77 + 77, 77 + 256, 77 + 512),  # one chunk of CLIP's and those of T5
    native_side=1024,
    buckets=MEGAPIXEL_BUCKETS,
    num_inference_steps=28,
    guidance_scale=7.0,
    strength=0.6,
    vae_scaling=1.5305,
    skip_layers=(7, 8, 9),  # what Stability AI recommends for 3.5 Medium
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (SD1, SD2, SDXL, SDXL_REFINER, SD3)


def family_of(
    pipeline_class: str, text_encoders: frozenset[str], denoisers: Mapping[str, Mapping[str, Any]], *, where: str
) -> Family:
    """The family of a checkpoint.

    Args:
        pipeline_class: ``_class_name`` of its ``model_index.json``.
        text_encoders: those that it has.
        denoisers: the config of each denoiser folder that it has.
        where: names the checkpoint in errors.

    Raises:
        CheckpointError: a family that LatentRT does not know.
    """
    of_class = [family for family in FAMILIES if pipeline_class in family.pipeline_classes]
    candidates = [family for family in of_class if _has_encoders(family, text_encoders)]
    if not candidates:
        listed = ", ".join(sorted(text_encoders)) or "no text encoder"
        raise CheckpointError(
            f"{where}: a family that LatentRT does not know",
            received=f"{pipeline_class} with {listed}" if of_class else pipeline_class,
            expected=" or ".join(_description(family) for family in of_class or FAMILIES),
        )
    for family in candidates:
        if _agrees(family, denoisers.get(family.denoiser_folder, {})):
            return family
    config = denoisers.get(candidates[0].denoiser_folder, {})
    names = dict.fromkeys(name for family in candidates for name, _ in family.denoiser_config)
    raise CheckpointError(
        f"{where}: a denoiser of another family than its pipeline",
        received=", ".join(f"{name}={config.get(name)!r}" for name in names),
        expected=" or ".join(
            f"{family.name} ({', '.join(f'{name}={value!r}' for name, value in family.denoiser_config)})"
            for family in candidates
        ),
    )


def _has_encoders(family: Family, text_encoders: frozenset[str]) -> bool:
    needed = {record.component for record in family.text_encoders if not record.optional}
    return needed <= text_encoders <= {record.component for record in family.text_encoders}


def _agrees(family: Family, denoiser: Mapping[str, Any]) -> bool:
    """Whether a denoiser's config has the values that the record asks for. An absent value is false or null."""
    return all((denoiser.get(name) or None) == (value or None) for name, value in family.denoiser_config)


def _description(family: Family) -> str:
    encoders = " and ".join(record.component for record in family.text_encoders if not record.optional)
    return f"{family.name} ({family.pipeline_classes[0]} with {encoders})"
