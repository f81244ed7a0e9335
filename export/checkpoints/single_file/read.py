"""A single file as a diffusers folder: found out from its header and read no further."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....runtime.errors import RequestError
from ..families import Family
from ..layout import Layout
from ..safetensors_header import SafetensorsHeader, read_header
from .clip_tokenizer import ClipTokenizer
from .families import FileFamily, denoiser_of, file_family_of
from .mmdit import mmdit
from .part import Part, check_parts, missing_parts, read_part, text_section, vae_section
from .prediction import prediction_type, scheduler_config
from .refusals import not_a_checkpoint, refuse_other_formats, refuse_other_kinds
from .section import Section
from .templates import read_template
from .text_encoders import text_encoder
from .unet import unet
from .vae import vae


def read_single_file(path: Path, parts: Mapping[str, Path], chosen_prediction: str | None) -> Layout:
    """What a checkpoint in one safetensors file is in diffusers' folder layout.

    Args:
        path: the file, in the original layout of any family.
        parts: components from elsewhere by folder, in place of the file's; and ``tokenizer_3``, which no file holds.
        chosen_prediction: ``epsilon`` or ``v_prediction`` where the caller knows better than the file.

    Raises:
        CheckpointError: not such a file, or one that lacks components.
        RequestError: a part or a prediction type that the family does not have.
    """
    refuse_other_formats(path)
    header = read_header(path)
    refuse_other_kinds(header)
    denoiser = denoiser_of(header)
    if denoiser is None:
        raise not_a_checkpoint(header)
    files = file_family_of(denoiser)
    check_parts(parts, files.family)
    prediction = _prediction(denoiser, files, chosen_prediction)
    template = read_template(files.templates[prediction])
    found = _surroundings(header, files, parts, template)
    found[files.family.denoiser_folder] = _denoiser(denoiser, files.family, template, found)
    tokenizers: dict[str, Path | ClipTokenizer] = {
        record.tokenizer: ClipTokenizer(pad_token)
        for record in files.family.text_encoders
        if (pad_token := files.places[record.component].pad_token) is not None
    }
    if "tokenizer_3" in parts:
        tokenizers["tokenizer_3"] = parts["tokenizer_3"]
    configs = {folder: part.config for folder, part in found.items()}
    configs["scheduler"] = scheduler_config(template["scheduler"], prediction, header)
    return Layout(
        model_index=template["model_index"],
        configs=configs,
        weights={folder: part.weights for folder, part in found.items()},
        tokenizers=tokenizers,
    )


def _prediction(denoiser: Section, files: FileFamily, chosen: str | None) -> str:
    if len(files.templates) > 1:
        return prediction_type(denoiser, chosen) or files.untold_prediction(denoiser)
    (only,) = files.templates
    if chosen is not None:
        raise RequestError("--prediction-type", received=chosen, expected=f"none: {files.title} has {only} only")
    return only


def _surroundings(
    header: SafetensorsHeader, files: FileFamily, parts: Mapping[str, Path], template: Mapping[str, dict[str, Any]]
) -> dict[str, Part]:
    """Text encoders and autoencoder, from ``parts`` or from the file."""
    found: dict[str, Part] = {}
    missing = []
    for record in files.family.text_encoders:
        name, place = record.component, files.places[record.component]
        section = text_section(header, place)
        if name in parts:
            found[name] = read_part(name, parts[name], files)
        elif section is not None:
            found[name] = Part(*text_encoder(section, template[name], place))
        elif not record.optional:
            missing.append(name)
    section = vae_section(header)
    if "vae" in parts:
        found["vae"] = read_part("vae", parts["vae"], files)
    elif section is not None:
        found["vae"] = Part(*vae(section, template["vae"]))
    else:
        missing.append("vae")
    if missing:
        raise missing_parts(header.path, files, missing)
    return found


def _denoiser(
    denoiser: Section, family: Family, template: Mapping[str, dict[str, Any]], found: Mapping[str, Part]
) -> Part:
    """UNet or MMDiT. How wide the embedding of one number of a size is, only the width of the pooled text tells."""
    if family.denoiser_folder == "transformer":
        return Part(*mmdit(denoiser, template["transformer"]))
    config, weights = unet(denoiser, template["unet"])
    if family.time_ids:
        pooled = found[family.text_encoders[-1].component].config["projection_dim"]
        sizes = config["projection_class_embeddings_input_dim"] - pooled
        config["addition_time_embed_dim"] = sizes // family.time_ids_width
    return Part(config, weights)
