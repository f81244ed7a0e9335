"""How a picture was made, written into its PNG and read back from it.

Two text chunks: ``parameters`` in the form that A1111's web UI introduced and that viewers read, and ``latentrt``, one
JSON object with what is needed to make the same picture again; of pictures and latents that went in, with their hashes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..checks import path as checked_path
from ..errors import OutputError, RequestError
from ..noise.sources import TORCH_CPU
from ..samplers.registry import BY_NAME
from ..whole_files import try_to_write, write_whole

PARAMETERS_CHUNK = "parameters"
JSON_CHUNK = "latentrt"

#: zlib level of PNGs. Level 6, Pillow's default, takes twice the time of level 1 for files a tenth smaller.
PNG_LEVEL = 1


class RefinerProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """The second model of a picture, and where it took over: ``handover`` or ``strength``, the other is None."""

    bundle: str
    bundle_hash: str
    handover: float | None
    strength: float | None
    aesthetic_score: float
    negative_aesthetic_score: float


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What made one picture. ``bundle_hash`` is the SHA-256 of the bundle's manifest.

    Those of pictures are of what the run saw of them (``pictures.hash_of``): sized, in bytes or in floating point.
    """

    prompt: str
    negative_prompt: str | None
    seed: int
    rng: str = TORCH_CPU
    initial_latents: str  # "seed", or "given" where the caller injected them and the seed does not matter
    sampler: str
    schedule: str
    num_inference_steps: int
    guidance_scale: float | tuple[float, ...]
    guidance_interval: tuple[float, float] | None
    sampler_options: Mapping[str, Any]
    width: int
    height: int
    original_size: tuple[int, int]
    crops_coords_top_left: tuple[int, int]
    target_size: tuple[int, int]
    guidance_rescale: float = 0.0
    prompt_2: str | None = None  # where the second text encoder, and so on, read another text than the first
    prompt_3: str | None = None
    negative_prompt_2: str | None = None
    negative_prompt_3: str | None = None
    image_sha256: str | None = None
    mask_sha256: str | None = None
    depth_sha256: str | None = None
    strength: float | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None
    image_guidance_scale: float | None = None
    skip_layer_guidance: tuple[float, float, float] | None = None  # scale, start, stop
    max_sequence_length: int | None = None
    decoder: str | None = "vae_decoder"
    tile_size: int | None = None
    stopped_after: int | None = None  # steps of both models, where a callback stopped the run
    refiner: RefinerProvenance | None = None
    bundle: str
    bundle_hash: str
    family: str
    provider: str
    latentrt: str


def parameters_text(made: Provenance) -> str:
    """A1111's ``parameters`` text: the prompt, the negative prompt, one line of settings with its names of samplers."""
    settings = {
        "Steps": made.num_inference_steps,
        "Sampler": BY_NAME[made.sampler].title if made.sampler in BY_NAME else made.sampler,
        "Schedule type": made.schedule.capitalize(),
        "CFG scale": _guidance_text(made.guidance_scale),
        "Seed": made.seed,
        "Size": f"{made.width}x{made.height}",
        "Model hash": made.bundle_hash[:10],
        "Model": made.bundle,
    }
    if made.rng != TORCH_CPU:
        settings["RNG"] = "NV"  # A1111's name for it
    if made.strength is not None:
        settings["Denoising strength"] = f"{made.strength:g}"
    if made.image_guidance_scale is not None:
        settings["Image CFG scale"] = f"{made.image_guidance_scale:g}"
    if made.refiner is not None:
        settings["Refiner"] = f"{made.refiner.bundle} [{made.refiner.bundle_hash[:10]}]"
        if made.refiner.handover is not None:
            settings["Refiner switch at"] = f"{made.refiner.handover:g}"
    settings["Version"] = f"LatentRT {made.latentrt}"
    lines = [made.prompt]
    if made.negative_prompt:
        lines.append(f"Negative prompt: {made.negative_prompt}")
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in settings.items())])


def details_text(made: Provenance) -> str:
    """What ``parameters_text`` has no place for, a line each: hashes, the start, settings of sampler and decoder."""
    lines = {
        "Prompt 2": made.prompt_2,
        "Prompt 3": made.prompt_3,
        "Negative prompt 2": made.negative_prompt_2,
        "Negative prompt 3": made.negative_prompt_3,
        "Bundle": f"{made.bundle} ({made.family}), sha256 {made.bundle_hash}",
        "Initial latents": made.initial_latents,
        "Noise": made.rng,
        "Provider": made.provider,
        "Stopped after": made.stopped_after and f"{made.stopped_after} steps",
        "Image": made.image_sha256 and f"sha256 {made.image_sha256}",
        "Mask": made.mask_sha256 and f"sha256 {made.mask_sha256}",
        "Depth map": made.depth_sha256 and f"sha256 {made.depth_sha256}",
        "Denoising start": made.denoising_start,
        "Denoising end": made.denoising_end,
        "Guidance interval": made.guidance_interval,
        "Guidance rescale": made.guidance_rescale or None,
        "Skip-layer guidance": made.skip_layer_guidance,
        "Sampler options": ", ".join(f"{name}={value}" for name, value in made.sampler_options.items()) or None,
        "T5 tokens": made.max_sequence_length,
        "Decoder": made.decoder if made.tile_size is None else f"{made.decoder} in tiles of {made.tile_size}",
    }
    if made.refiner is not None:
        second = made.refiner
        lines["Refiner"] = f"{second.bundle}, sha256 {second.bundle_hash}"
        lines["Refiner strength"] = second.strength
        lines["Aesthetic scores"] = f"{second.aesthetic_score:g}, negative {second.negative_aesthetic_score:g}"
    return "\n".join(f"{name}: {value}" for name, value in lines.items() if value is not None)


def _guidance_text(scale: float | tuple[float, ...]) -> str:
    return " ".join(f"{one:g}" for one in (scale if isinstance(scale, tuple) else (scale,)))


def png_bytes(image: Image.Image, made: Provenance) -> bytes:
    """The image as a PNG file with its provenance."""
    info = PngInfo()
    info.add_text(PARAMETERS_CHUNK, parameters_text(made))
    info.add_text(JSON_CHUNK, msgspec.json.encode(made).decode())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=PNG_LEVEL)
    return buffer.getvalue()


def require_writable(path: str | os.PathLike[str]) -> Path:
    """``path`` as a place where a PNG can be written, found out before any work is done and by trying it.

    Raises:
        OutputError: another ending than ``.png``, a folder, a folder that is missing or not writable.
    """
    target = checked_path("a PNG to write", path)
    if target.suffix.lower() != ".png":
        raise OutputError(f"{target}: not the name of a PNG", expected="a name that ends in .png")
    try:
        try_to_write(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    if target.is_dir():
        raise OutputError(f"{target}: a folder", expected="a file to write")
    return target


def write_png(path: str | os.PathLike[str], image: Image.Image, made: Provenance) -> None:
    """Write a PNG with its provenance: whole or not at all.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    try:
        write_whole(target, png_bytes(image, made))
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{target}: cannot be written",
        received=error.strerror or str(error),
        remedy="choose a file in a folder that exists and is writable",
    )


def read_provenance(path: str | os.PathLike[str]) -> tuple[Provenance | None, str | None]:
    """The provenance of a PNG made by LatentRT, and its ``parameters`` text; ``None`` for what it does not have.

    Raises:
        RequestError: not a readable picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            chunks = dict(image.info)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise RequestError(f"{path}: not a readable picture", received=reason, expected="a PNG file") from None
    parameters = chunks.get(PARAMETERS_CHUNK)
    if parameters is not None:
        parameters = str(parameters)
    if JSON_CHUNK not in chunks:
        return None, parameters
    try:
        return msgspec.json.decode(str(chunks[JSON_CHUNK]), type=Provenance), parameters
    except msgspec.MsgspecError as error:
        raise RequestError(f"{path}: its {JSON_CHUNK} chunk cannot be read", received=str(error)) from None
