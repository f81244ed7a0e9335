"""The header of a safetensors file: names, formats, shapes and places of its tensors. No tensor is read, no torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_LISTED = 5  # how many names a message lists

#: Bits of one element, by the format's names.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its format by the name that safetensors gives it (``F16``), and its bytes' place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a safetensors file says of itself."""

    path: Path
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: Path) -> SafetensorsHeader:
    """Read the header, and check that the file is whole: its tensors fill exactly the bytes that follow.

    Raises:
        CheckpointError: the file cannot be read, is no safetensors file, or was cut or lengthened.
    """

    def damaged(received: str, expected: str) -> CheckpointError:
        remedy = "download or copy the file again"
        return CheckpointError(f"{path}: damaged", received=received, expected=expected, remedy=remedy)

    def no_header(received: str) -> CheckpointError:
        if path.suffix == ".safetensors":
            return damaged(received, "a safetensors file")
        return CheckpointError(f"{path}: not a safetensors file", received=received)

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            text = file.read(length) if 2 <= length <= min(_MAX_HEADER, size - 8) else b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read", received=error.strerror or str(error)) from None
    if not text:
        raise no_header(f"{size} bytes with a header of {length}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise no_header(f"a header that is not JSON ({error})") from None
    try:
        metadata = content.pop("__metadata__", None) or {}
        tensors = {name: _entry(entry, 8 + length) for name, entry in content.items()}
        end = max(entry.stop for entry in tensors.values())
    except (AttributeError, KeyError, TypeError, ValueError):
        raise no_header("a header without tensors") from None
    if end != size:
        raise damaged(f"{size} bytes", f"{end} bytes")
    return SafetensorsHeader(path, tensors, {str(key): str(value) for key, value in metadata.items()})


def misfit_text(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The first names of tensors that a network lacks, and of those that it has no place for."""
    parts = (("nothing for", missing), ("unexpected", unexpected))
    return "; ".join(f"{what} {_listed(names)}" for what, names in parts if names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f", and {len(names) - _LISTED} more" if names[_LISTED:] else "")


def _entry(entry: dict[str, Any], origin: int) -> TensorEntry:
    """Raises KeyError, TypeError or ValueError where the header does not describe a tensor."""
    start, stop = (origin + int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    bits = _BITS.get(entry["dtype"])
    if bits is not None and 8 * (stop - start) != bits * math.prod(shape):
        raise ValueError(f"{stop - start} bytes for {entry['dtype']}{list(shape)}")
    return TensorEntry(entry["dtype"], shape, start, stop)
