"""Which number format each component computes in."""

from __future__ import annotations

from typing import Any

import torch

TORCH_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def component_precision(component: str, precision: str, config: dict[str, Any]) -> str:
    """The precision of one component in a bundle of the given precision.

    An autoencoder whose config says ``force_upcast`` overflows in fp16 (SDXL's original one does): it stays in fp32.
    """
    if component.startswith("vae") and precision == "fp16" and config.get("force_upcast", False):
        return "fp32"
    return precision
