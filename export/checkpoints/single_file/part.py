"""One component from elsewhere: the folder of a diffusers checkpoint, or a safetensors file that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....runtime.errors import CheckpointError, RequestError
from ..families import Family
from ..folder import network_config, weight_files
from ..layout import StoredWeights
from ..safetensors_header import SafetensorsHeader, read_header
from .families import VAE_PREFIXES, FileFamily, TextEncoderPlace
from .refusals import refuse_other_formats, refuse_other_kinds
from .section import Section
from .templates import read_template
from .text_encoders import text_encoder
from .vae import vae

#: Which option takes a component that a file lacks.
OPTIONS = {
    "vae": "--vae",
    "text_encoder": "--text-encoder",
    "text_encoder_2": "--text-encoder-2",
    "text_encoder_3": "--text-encoder-3",
    "tokenizer_3": "--tokenizer-3",
}

#: A tensor that only the original layout of an autoencoder has, without its prefix.
_VAE_MARK = "decoder.mid.block_1.norm1.weight"
#: Tensors that tell a text encoder's layout, without their prefix: transformers' CLIP, OpenCLIP, T5.
_TEXT_MARKS = (
    "text_model.final_layer_norm.weight",
    "final_layer_norm.weight",
    "positional_embedding",
    "encoder.final_layer_norm.weight",
)


@dataclass(frozen=True)
class Part:
    """A component as a diffusers folder describes it."""

    config: dict[str, Any]
    weights: StoredWeights


def check_parts(parts: Iterable[str], family: Family) -> None:
    """Raise RequestError for a part, by its folder, that a family does not have."""
    known = ["vae", *(record.component for record in family.text_encoders)]
    known += [record.tokenizer for record in family.text_encoders if record.tokenizer in OPTIONS]
    for folder in parts:
        if folder not in known:
            expected = ", ".join(OPTIONS[name] for name in known)
            raise RequestError(f"{OPTIONS[folder]}: {family.name} has no such part", expected=expected)


def read_part(folder: str, path: Path, files: FileFamily) -> Part:
    """Read what is to take the place of a component: its folder, or a file of its own or with other components.

    Args:
        folder: the component's folder in diffusers' layout: ``vae``, or one of the family's text encoders.
        path: a folder with a ``config.json``, or a safetensors file.
        files: the family whose settings apply to a file.

    Raises:
        CheckpointError: no such component there.
    """
    if path.is_dir():
        return _part_in_folder(folder, path)
    refuse_other_formats(path)
    header = read_header(path)
    refuse_other_kinds(header)
    template = read_template(next(iter(files.templates.values())))
    if folder == "vae":
        section = vae_section(header)
        found = None if section is None else vae(section, template["vae"])
    else:
        place = files.places[folder]
        section = text_section(header, place) or text_section(header, place, bare=True)
        found = None if section is None else text_encoder(section, template[folder], place)
    if found is None:
        raise CheckpointError(
            f"{path}: no {folder} in this file",
            received=f"{len(header.tensors)} tensors, the first {next(iter(header.tensors))}",
            expected=f"the {folder} of {files.title} in the original layout",
            remedy="give the component's folder of a diffusers checkpoint instead of a file from it",
        )
    return Part(*found)


def _part_in_folder(folder: str, path: Path) -> Part:
    if (path / "model_index.json").is_file():
        expected, remedy = "the folder of one component", f"give {OPTIONS[folder]} {path / folder}"
        raise CheckpointError(f"{path}: a whole checkpoint", expected=expected, remedy=remedy)
    config = network_config(path)
    kind = config.get("_class_name", config.get("model_type"))
    if folder == "vae" and kind != "AutoencoderKL":
        raise CheckpointError(f"{path}: not an autoencoder (VAE)", received=kind, expected="AutoencoderKL")
    return Part(config, weight_files(path))


def vae_section(header: SafetensorsHeader) -> Section | None:
    """The autoencoder of a file, if it holds one in the original layout."""
    sections = (Section(header, prefix) for prefix in (*VAE_PREFIXES, ""))
    return next((section for section in sections if _VAE_MARK in section), None)


def text_section(header: SafetensorsHeader, place: TextEncoderPlace, *, bare: bool = False) -> Section | None:
    """A text encoder of a file where its family keeps it, or, ``bare``, as the only content of a file of its own."""
    sections = (Section(header, prefix) for prefix in (("",) if bare else place.prefixes))
    return next((section for section in sections if any(mark in section for mark in _TEXT_MARKS)), None)


def missing_parts(path: Path, files: FileFamily, missing: Sequence[str]) -> CheckpointError:
    """The error for a file that lacks components which nothing else gives."""
    return CheckpointError(
        f"{path}: not a whole checkpoint of {files.title}",
        received=f"no {' and no '.join(missing)}",
        remedy=f"give {' and '.join(f'{OPTIONS[name]} PATH' for name in missing)}: "
        "a folder of a diffusers checkpoint, or a safetensors file",
    )


def no_t5_tokenizer(path: Path) -> CheckpointError:
    """The error for a T5 encoder without its tokenizer, which no checkpoint file holds and LatentRT cannot ship."""
    return CheckpointError(
        f"{path}: a T5 text encoder without a tokenizer",
        received="no --tokenizer-3",
        expected="the folder tokenizer_3 of a diffusers checkpoint of SD3",
        remedy="give --tokenizer-3 FOLDER, or leave T5 out",
    )
