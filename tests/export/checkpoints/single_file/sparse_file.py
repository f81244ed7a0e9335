"""Safetensors files of any size that take no room: a true header in front of a hole."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8",
          torch.float8_e4m3fn: "F8_E4M3"}  # fmt: skip


def write_sparse(path: Path, state: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write what ``state`` would be saved as, all zeros; its tensors may be on the meta device."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path
