"""``manifest.json``: the record that makes a folder a bundle. Written by export, read by the runtime.

The manifest holds no dates and no durations, so the same checkpoint built twice with the same tools gives the same
manifest, and its SHA-256 (the bundle's hash, which every PNG carries) names exactly one set of weights and settings.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import BundleError
from .spec import Profile, TensorSpec

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


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

    ``key`` holds the parts that decide whether a rebuild may reuse the component, by name.
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


class EngineRecord(msgspec.Struct, frozen=True):
    """A component compiled for one provider, with the gate's figures."""

    component: str
    provider: str
    provider_version: str
    path: str
    weights: tuple[str, ...]
    gate: tuple[GateRecord, ...]
    key: dict[str, str]


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
    second one pads with ``!``, which makes every ``!`` of a prompt a special token) share one vocabulary.

    ``hidden_states`` of all encoders are concatenated along their last axis into ``encoder_hidden_states``;
    ``pooled`` names the output that becomes ``text_embeds``, if this encoder gives it.
    """

    component: str
    tokenizer: str
    added_tokens: tuple[AddedToken, ...]
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    hidden_states: str
    pooled: str | None = None


class LatentSpace(msgspec.Struct, frozen=True):
    """Channels of the latents, image pixels per latent pixel, and the multiple (in image pixels) a side must have."""

    channels: int
    scale: int
    stride: int


class Defaults(msgspec.Struct, frozen=True):
    """What a request uses where it says nothing. Sizes in image pixels."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float


class Manifest(msgspec.Struct, frozen=True):
    """The whole record. ``time_ids`` names, in order, the pairs that SDXL's size conditioning is made of."""

    schema_version: int
    latentrt: str
    name: str
    family: str
    latent_space: LatentSpace
    text_encodings: tuple[TextEncoding, ...]
    time_ids: tuple[str, ...]
    force_zeros_for_empty_prompt: bool
    scheduler: dict[str, Any]
    defaults: Defaults
    buckets: tuple[tuple[int, int], ...]
    components: dict[str, Component]
    engines: tuple[EngineRecord, ...]
    files: dict[str, FileRecord]
    tools: dict[str, str]


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: indented, keys in a fixed order, so that equal manifests are equal files."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Parse ``manifest.json``; ``where`` names the bundle in errors.

    Raises:
        BundleError: not JSON, another structure, or a schema version this LatentRT does not know.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version <= SCHEMA_VERSION:
            return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(
            f"{where}: {MANIFEST_NAME} cannot be read",
            received=str(error),
            expected=f"a manifest of schema version {SCHEMA_VERSION}",
            remedy="build the bundle again: latentrt build-engines CHECKPOINT --out BUNDLE --force",
        ) from None
    raise BundleError(
        f"{where}: made by a newer LatentRT",
        received=f"schema version {version}",
        expected=f"at most {SCHEMA_VERSION}",
        remedy="upgrade latentrt, or build the bundle again with this version",
    )
