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
    index_path = root / "model_index.json"
    if not index_path.is_file():
        received = "no model_index.json" if root.is_dir() else "a file" if root.exists() else "no such folder"
        raise CheckpointError(f"{root}: no checkpoint here", received=received, expected="a diffusers folder")
    index = _json(index_path)
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
    stems = ("diffusion_pytorch_model", "model")
    for stem in stems:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            names = sorted({str(name) for name in _json(index).get("weight_map", {}).values()})
            files = tuple(folder / name for name in names)
            break
        if (folder / f"{stem}.safetensors").is_file():
            files = (folder / f"{stem}.safetensors",)
            break
    else:
        pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix in _PICKLES)
        if pickles:
            raise CheckpointError(
                f"{folder}: pickled weights are never read, because loading them can run any code",
                received=", ".join(pickles),
                expected="*.safetensors",
                remedy="convert them on a machine you can afford to lose: "
                "pipe = DiffusionPipeline.from_pretrained(OLD); pipe.save_pretrained(NEW, safe_serialization=True)",
            )
        raise CheckpointError(f"{folder}: no weights", expected=" or ".join(f"{stem}.safetensors" for stem in stems))
    for file in files:
        _check_safetensors(file)
    return files


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
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (AttributeError, KeyError, IndexError, TypeError):
        raise damaged("a header without tensor offsets", "a safetensors file") from None
    if 8 + length + end != size:
        raise damaged(f"{size} bytes", f"{8 + length + end} bytes")
