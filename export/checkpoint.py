"""A checkpoint folder in the diffusers layout: found, checked and described before anything heavy is imported."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import CheckpointError
from .families import Family, family_of

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers name their weights
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format


@dataclass(frozen=True)
class Checkpoint:
    """A readable checkpoint. ``configs`` holds each component folder's config; ``weights`` its safetensors files."""

    path: Path
    name: str
    family: Family
    model_index: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    weights: dict[str, tuple[Path, ...]]

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
            raise CheckpointError(self._setting(folder, name), received=repr(value), expected="a positive integer")
        return value

    def levels(self, folder: str) -> int:
        """How many resolutions a UNet or an autoencoder works at: the length of its ``block_out_channels``.

        Raises:
            CheckpointError: the config holds no such list.
        """
        value = self.configs[folder].get("block_out_channels")
        if not isinstance(value, list) or not value:
            raise CheckpointError(
                self._setting(folder, "block_out_channels"), received=repr(value), expected="a list of integers"
            )
        return len(value)

    def _setting(self, folder: str, name: str) -> str:
        return f"{self.path / folder / 'config.json'}: {name}"

    def digest(self, folder: str) -> str:
        """SHA-256 over the config and the weights of one component folder."""
        total = hashlib.sha256(json.dumps(self.configs[folder], sort_keys=True).encode())
        for path in self.weights[folder]:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the configs of a diffusers folder and check that its weights are complete safetensors files.

    Raises:
        CheckpointError: no checkpoint there, an unknown family, pickled, missing or damaged weights.
    """
    root = Path(path)
    if not os.path.isfile(root / "model_index.json"):  # noqa: PTH113 - unlike Path.is_file, False without permission
        raise _no_checkpoint(root)
    index = _json(root / "model_index.json")
    family = family_of(
        str(index.get("_class_name")),
        has_first_text_encoder=_listed(index, "text_encoder"),
        where=str(root),
    )
    networks = [*(encoder.component for encoder in family.text_encoders), family.denoiser_folder, "vae"]
    configs = {folder: _json(root / folder / "config.json") for folder in networks}
    configs["scheduler"] = _json(root / "scheduler" / "scheduler_config.json")
    kind = configs[family.denoiser_folder].get("_class_name")
    if kind != family.denoiser_class:
        raise CheckpointError(f"{root}: {family.denoiser_folder}", received=kind, expected=family.denoiser_class)
    return Checkpoint(
        path=root,
        name=root.resolve().name,
        family=family,
        model_index=index,
        configs=configs,
        weights={folder: _weight_files(root / folder) for folder in networks},
    )


def _no_checkpoint(root: Path) -> CheckpointError:
    subject, expected = f"{root}: no checkpoint here", "a diffusers folder"
    if os.path.isdir(root):  # noqa: PTH112
        return CheckpointError(subject, received="no model_index.json", expected=expected)
    if not os.path.exists(root):  # noqa: PTH110
        return CheckpointError(subject, received="no such folder", expected=expected)
    remedy = "convert it: StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
    return CheckpointError(subject, received="a file", expected=expected, remedy=remedy)


def _listed(index: dict[str, Any], name: str) -> bool:
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing", expected="a complete diffusers folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read", received=str(error), expected="JSON") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}", received=type(content).__name__, expected="a JSON object")
    return content


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a component: one file, or the shards that an index names. Variants are not mixed in."""
    names = {f"{stem}.safetensors" for stem in _STEMS if (folder / f"{stem}.safetensors").is_file()}
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            names |= _shards(index)
    if not names:
        raise _no_weights(folder)
    files = tuple(folder / name for name in sorted(names))
    for file in files:
        _check_safetensors(file)
    return files


def _shards(index: Path) -> set[str]:
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index}: weight_map", received=shards, expected="the file of every tensor")
    return set(shards.values())


def _no_weights(folder: Path) -> CheckpointError:
    pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix in _PICKLES)
    variants = sorted(entry.name for entry in folder.glob("*.safetensors"))
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    if variants:
        remedy = "rename the variant to use"
        return CheckpointError(f"{folder}: no weights", received=", ".join(variants), expected=expected, remedy=remedy)
    if pickles:
        return CheckpointError(
            f"{folder}: pickled weights are never read, because loading them can run any code",
            received=", ".join(pickles),
            expected=expected,
            remedy="convert them on a machine you can afford to lose: "
            "pipe = DiffusionPipeline.from_pretrained(OLD); pipe.save_pretrained(NEW, safe_serialization=True)",
        )
    return CheckpointError(f"{folder}: no weights", expected=expected)


def _check_safetensors(path: Path) -> None:
    """Check that a file is whole: its header parses, and its tensors fill exactly the bytes that follow."""

    def damaged(received: str, expected: str) -> CheckpointError:
        remedy = "download or copy the file again"
        return CheckpointError(f"{path}: damaged", received=received, expected=expected, remedy=remedy)

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise damaged(f"{size} bytes with a header of {length}", "a safetensors file")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read", received=error.strerror or str(error)) from None
    except ValueError as error:
        raise damaged(f"a header that is not JSON ({error})", "a safetensors file") from None
    try:
        end = 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise damaged("a header without tensors", "a safetensors file") from None
    if end != size:
        raise damaged(f"{size} bytes", f"{end} bytes")
