"""``manifest.json``: the record that makes a folder a bundle. Written by export, read by the runtime.

The manifest holds no dates and no durations, so the same checkpoint built twice with the same tools gives the same
manifest, and its SHA-256 (the bundle's hash, which every PNG carries) names exactly one set of weights and settings.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import BundleError
from .spec import TOKENS_PER_CHUNK, Profile, TensorSpec

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 2

REBUILD = "build the bundle again: latentrt build-engines CHECKPOINT --out BUNDLE --force"


class FileRecord(msgspec.Struct, frozen=True):
    """What a file of the bundle must be: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class GateRecord(msgspec.Struct, frozen=True):
    """One comparison of an engine with its fp32 PyTorch reference at one set of axis sizes."""

    sizes: dict[str, int]
    output: str
    cosine_distance: float
    max_abs: float
    reference_max_abs: float
    non_finite: int


class Component(msgspec.Struct, frozen=True):
    """One exported network: its contract, the ONNX graph, and the weight files that the graph refers to.

    ``key`` holds the parts that decide whether a rebuild may reuse the component, by name. ``gate`` compares the graph,
    run in its own precision, with the fp32 reference; ``not_run`` says why it does not, if it does not.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: Profile
    precision: str
    parameters: int
    opset: int
    onnx: str
    weights: tuple[str, ...]
    key: dict[str, str]
    gate: tuple[GateRecord, ...] = ()
    not_run: str = ""


class EngineRecord(msgspec.Struct, frozen=True):
    """A component compiled for one provider, with the gate's figures.

    ``targets`` are the compute capabilities (``"sm89"``) of the GPUs that it runs on; none: any processor.
    ``profiles`` are the axis ranges it is tuned for, in the engine's order, where they are more than the component's
    one. ``not_run`` says why it did not pass through the gate, if it did not. A ``version_compatible`` engine of
    TensorRT also runs with its lean runtime.
    """

    component: str
    provider: str
    provider_version: str
    path: str
    weights: tuple[str, ...]
    gate: tuple[GateRecord, ...]
    key: dict[str, str]
    targets: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    not_run: str = ""
    version_compatible: bool = False


class AddedToken(msgspec.Struct, frozen=True):
    """A text that a tokenizer takes as one token before it looks at words, with the flags of the tokenizers library."""

    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool


class TextEncoding(msgspec.Struct, frozen=True):
    """How one text encoder takes part: its tokenizer, the ids around the prompt, and the outputs that are used.

    ``tokenizer`` is a ``tokenizer.json`` without added tokens, so that encoders which differ only in those (SDXL's
    second one pads with ``!``, which makes every ``!`` of a prompt a special token) share one vocabulary. ``None``
    says that the bundle was built without this encoder: zeros take the place of its hidden states.

    A prompt becomes ``tokens`` ids, up to ``max_tokens`` where a request asks for more: the mark of its begin, if the
    tokenizer has one, at most as many words as fit, the mark of its end, padding.

    ``hidden_states`` of all encoders of one ``segment`` are concatenated along their last axis; segments are padded
    with zeros to ``Manifest.text_width`` and concatenated along the tokens. ``pooled`` names the output that this
    encoder adds to the pooled text, if any.
    """

    component: str
    tokenizer: str | None
    added_tokens: tuple[AddedToken, ...]
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int
    hidden_states: str
    pooled: str | None = None
    tokens: int = TOKENS_PER_CHUNK
    max_tokens: int = TOKENS_PER_CHUNK
    segment: int = 0


class Conditioning(msgspec.Struct, frozen=True):
    """The denoiser's inputs beside ``sample``, ``timestep`` and ``encoder_hidden_states``.

    ``pooled`` is the name of the input that takes the pooled texts of all encoders, concatenated. ``time_ids`` names
    in order what the input of that name is made of: (height, width) or (top, left) pairs and scores. Where
    ``guidance_embedding`` is set, the input ``timestep_cond`` takes an embedding of the guidance scale, which the
    denoiser was distilled to apply by itself: there are no unconditional rows.
    """

    pooled: str | None = None
    time_ids: tuple[str, ...] = ()
    guidance_embedding: bool = False


class ExtraChannels(msgspec.Struct, frozen=True):
    """Channels of ``sample`` behind the noisy latents: ``mask``, ``masked_latents``, ``image_latents``, ``depth``."""

    name: str
    channels: int


class SkipLayerGuidance(msgspec.Struct, frozen=True):
    """Guidance away from the same denoiser without some of its layers, as Stable Diffusion 3.5 Medium wants it.

    The denoiser has an input ``skip_layers [rows]``: a row with 1 there leaves ``layers`` out. ``scale``, ``start``
    and ``stop`` (fractions of the run) are defaults of requests that ask for it.
    """

    layers: tuple[int, ...]
    scale: float
    start: float
    stop: float


class LatentSpace(msgspec.Struct, frozen=True):
    """Channels of the latents, image pixels per latent pixel, and the multiple (in image pixels) a side must have."""

    channels: int
    scale: int
    stride: int


class Defaults(msgspec.Struct, frozen=True):
    """What a request uses where it says nothing. Sizes in image pixels; ``strength`` is that of image to image."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    strength: float = 0.8


class Manifest(msgspec.Struct, frozen=True):
    """The whole record.

    ``task`` is what the denoiser was trained for: ``text-to-image``, ``inpainting``, ``edit`` or ``depth``; all but
    the first have ``extra_channels``. ``text_width`` is that of ``encoder_hidden_states``.
    """

    schema_version: int
    latentrt: str
    name: str
    family: str
    latent_space: LatentSpace
    text_encodings: tuple[TextEncoding, ...]
    force_zeros_for_empty_prompt: bool
    scheduler: dict[str, Any]
    defaults: Defaults
    buckets: tuple[tuple[int, int], ...]
    components: dict[str, Component]
    engines: tuple[EngineRecord, ...]
    files: dict[str, FileRecord]
    tools: dict[str, str]
    text_width: int = 0
    conditioning: Conditioning = Conditioning()
    task: str = "text-to-image"
    extra_channels: tuple[ExtraChannels, ...] = ()
    skip_layer_guidance: SkipLayerGuidance | None = None


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: indented, keys in a fixed order, so that equal manifests are equal files."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Parse ``manifest.json``; ``where`` names the bundle in errors.

    Raises:
        BundleError: not JSON, another structure, or another schema version than this LatentRT's.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(
            f"{where}: {MANIFEST_NAME} cannot be read",
            received=str(error),
            expected=f"a manifest of schema version {SCHEMA_VERSION}",
            remedy=REBUILD,
        ) from None
    newer = version > SCHEMA_VERSION
    raise BundleError(
        f"{where}: made by {'a newer' if newer else 'an older'} LatentRT",
        received=f"schema version {version}",
        expected=SCHEMA_VERSION,
        remedy=f"upgrade latentrt, or {REBUILD}" if newer else REBUILD,
    )
