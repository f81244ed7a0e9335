"""A checkpoint, found, checked and described before anything heavy is imported."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError, RequestError
from ...runtime.samplers import model_schedule_from_config
from ...runtime.samplers.diffusers_classes import CLASSES
from .families import SD1, Family, family_of
from .folder import check_folder, network_config, read_folder, weight_files
from .layout import Layout, StoredWeights
from .single_file.clip_tokenizer import ClipTokenizer
from .single_file.families import FILE_FAMILIES
from .single_file.part import OPTIONS, check_parts, read_part
from .single_file.read import read_single_file

#: The folder that a tiny autoencoder is given; no checkpoint has one of its own.
TINY_VAE = "tiny_vae"

_PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Checkpoint:
    """A readable checkpoint. ``configs`` holds each component's config by the name of its folder; ``weights`` where
    its weights are, ``tokenizers`` where the tokenizers are that text encoders need, ``parts`` what is not its own."""

    path: Path
    name: str
    family: Family
    model_index: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    weights: dict[str, StoredWeights]
    tokenizers: dict[str, Path | ClipTokenizer]
    parts: Mapping[str, Path] = field(default_factory=dict)

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The content of ``scheduler/scheduler_config.json``."""
        return self.configs["scheduler"]

    def number(self, folder: str, name: str) -> int:
        """A positive integer of a component's config.

        Raises:
            CheckpointError: the config holds no such number.
        """
        value = self.configs[folder].get(name)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(self.setting(folder, name), received=repr(value), expected="a positive integer")
        return value

    def levels(self, folder: str) -> int:
        """How many resolutions a UNet or an autoencoder works at: the length of its ``block_out_channels``.

        Raises:
            CheckpointError: the config holds no such list.
        """
        value = self.configs[folder].get("block_out_channels")
        if not isinstance(value, list) or not value:
            raise CheckpointError(
                self.setting(folder, "block_out_channels"), received=repr(value), expected="a list of integers"
            )
        return len(value)

    def place(self, folder: str) -> Path:
        """Where a component comes from, as the subject of an error."""
        return self.parts.get(folder, self.path / folder)

    def setting(self, folder: str, name: str) -> str:
        """A value of a component's config as the subject of an error."""
        return f"{self.place(folder) / 'config.json'}: {name}"

    def digest(self, folder: str) -> str:
        """SHA-256 over the config and the weights of one component."""
        total = hashlib.sha256(json.dumps(self.configs[folder], sort_keys=True).encode())
        weights = self.weights[folder]
        if not isinstance(weights, tuple):
            total.update(weights.digest().encode())
            return total.hexdigest()
        for path in weights:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


def read_checkpoint(
    path: str | os.PathLike[str], parts: Mapping[str, Path] | None = None, prediction_type: str | None = None
) -> Checkpoint:
    """Read the configs of a checkpoint and check that its weights are complete safetensors files.

    Args:
        path: a diffusers folder, or a single safetensors file in the original layout.
        parts: what takes the place of the checkpoint's own components, by folder: the folder of a component, or a file
            that holds it; ``tokenizer_3`` too.
        prediction_type: in place of the one that the checkpoint says, or is taken to have.

    Raises:
        CheckpointError: no checkpoint there, an unknown family, a scheduler that cannot be honoured, pickled, missing
            or damaged weights.
        RequestError: a part or a prediction type that the family does not have.
    """
    root, parts = Path(path), dict(parts or {})
    tiny = parts.pop(TINY_VAE, None)
    for folder in parts:
        if folder.startswith("tokenizer"):
            _check_tokenizer(parts[folder])
    if root.is_file():
        layout = read_single_file(root, parts, prediction_type)
        family = _family_of(layout, root)
        own_scaling = None
    else:
        layout = read_folder(root)
        family = _family_of(layout, root)
        own_scaling = layout.configs["vae"].get("scaling_factor")
        layout = _with_parts(layout, family, parts, prediction_type)
    for folder, source in layout.tokenizers.items():
        if isinstance(source, Path) and folder.replace("tokenizer", "text_encoder") in layout.configs:
            check_folder(source)
    if "tokenizer_3" in parts and "text_encoder_3" not in layout.configs:
        expected = "a T5 text encoder, which this checkpoint lacks"
        raise RequestError(OPTIONS["tokenizer_3"], expected=expected, remedy="give --text-encoder-3 too")
    if "vae" in parts:
        _check_scaling(layout.configs["vae"], parts["vae"], family, own_scaling)
    model_schedule_from_config(layout.configs["scheduler"])
    if tiny is not None:
        parts[TINY_VAE] = tiny
        layout = _with_tiny_vae(layout, tiny)
    return Checkpoint(
        path=root,
        name=root.resolve().stem if root.is_file() else root.resolve().name,
        family=family,
        model_index=layout.model_index,
        configs=layout.configs,
        weights=layout.weights,
        tokenizers=layout.tokenizers,
        parts=parts,
    )


def _family_of(layout: Layout, root: Path) -> Family:
    encoders = frozenset(name for name in layout.configs if name.startswith("text_encoder"))
    family = family_of(str(layout.model_index.get("_class_name")), encoders, layout.configs, where=str(root))
    kind = layout.configs.get(family.denoiser_folder, {}).get("_class_name")
    if kind != family.denoiser_class:
        raise CheckpointError(f"{root}: {family.denoiser_folder}", received=kind, expected=family.denoiser_class)
    if "vae" not in layout.configs:
        raise CheckpointError(f"{root}: no autoencoder", expected="vae in model_index.json")
    return family


def _with_parts(layout: Layout, family: Family, parts: Mapping[str, Path], prediction_type: str | None) -> Layout:
    """A folder's layout with components from elsewhere."""
    configs, weights, tokenizers = dict(layout.configs), dict(layout.weights), dict(layout.tokenizers)
    check_parts(parts, family)
    for folder, path in parts.items():
        if folder.startswith("tokenizer"):
            tokenizers[folder] = path
            continue
        part = read_part(folder, path, FILE_FAMILIES[family.name])
        configs[folder], weights[folder] = part.config, part.weights
    if prediction_type is not None:
        scheduler = configs["scheduler"]
        known_types = (
            _PREDICTION_TYPES if "prediction_type" in CLASSES.get(str(scheduler.get("_class_name")), {}) else ()
        )
        if prediction_type not in known_types:
            expected = " or ".join(known_types) or f"none: {family.name} predicts the flow only"
            raise RequestError("--prediction-type", received=prediction_type, expected=expected)
        configs["scheduler"] = {**scheduler, "prediction_type": prediction_type}
    return Layout(layout.model_index, configs, weights, tokenizers)


def _check_tokenizer(path: Path) -> None:
    """What is in the folder is checked with the text encoder's vocabulary; that it is one is told right away."""
    if not any((path / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise CheckpointError(
            f"{path}: no tokenizer",
            received="a folder without them" if path.is_dir() else "a file" if path.exists() else "no such folder",
            expected="a folder with tokenizer.json or spiece.model: tokenizer_3 of a diffusers checkpoint of SD3",
        )


def _check_scaling(config: Mapping[str, Any], path: Path, family: Family, own: float | None) -> None:
    """An autoencoder of another family may have as many channels, but the scale of its latents gives it away."""
    received = config.get("scaling_factor", SD1.vae_scaling)
    if received not in (own, family.vae_scaling):
        raise CheckpointError(
            f"{path}: an autoencoder of another family",
            received=f"scaling_factor {received}",
            expected=f"{family.vae_scaling if own is None else own}, that of {family.name}",
            remedy=f"use an autoencoder made for {family.name}",
        )


def _with_tiny_vae(layout: Layout, path: Path) -> Layout:
    if not path.is_dir():
        raise CheckpointError(f"{path}: no tiny autoencoder", expected="the folder of an AutoencoderTiny")
    config = network_config(path)
    if config.get("_class_name") != "AutoencoderTiny":
        raise CheckpointError(f"{path}", received=config.get("_class_name"), expected="AutoencoderTiny")
    configs = {**layout.configs, TINY_VAE: config}
    return Layout(layout.model_index, configs, {**layout.weights, TINY_VAE: weight_files(path)}, layout.tokenizers)
