"""Where Triton's kernels run: in its interpreter where there is no GPU, on the GPU where there is one."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

if importlib.util.find_spec("triton") is None:  # there are no wheels of it for other systems than Linux
    collect_ignore_glob = ["test_*.py"]

#: Launches with numpy arrays: everything goes to the device, and what the kernel changed comes back.
Launch = Callable[..., None]


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def launch(request: pytest.FixtureRequest) -> Launch:
    """``launch(function, *arguments)`` calls a kernel's typed function with its arrays as tensors on the device."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    if interpreted != (request.param == "interpreter"):
        pytest.skip(
            f"TRITON_INTERPRET is {os.environ.get('TRITON_INTERPRET')!r}: kernels run elsewhere in this process"
        )
    device = "cuda" if request.param == "cuda" else "cpu"

    def call(function: Callable[..., None], *arguments: Any) -> None:
        pairs: list[tuple[np.ndarray, torch.Tensor]] = []

        def moved(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                pairs.append((value, torch.from_numpy(value).to(device)))
                return pairs[-1][1]
            if hasattr(value, "__dataclass_fields__"):
                return type(value)(**{name: moved(getattr(value, name)) for name in value.__dataclass_fields__})
            return value.to(device) if isinstance(value, torch.Tensor) else value

        on_device = [moved(argument) for argument in arguments]
        function(*on_device)
        for array, tensor in pairs:
            array[...] = tensor.cpu().numpy()
        for given, tensor in zip(arguments, on_device, strict=True):
            if isinstance(given, torch.Tensor):
                given.copy_(tensor)

    return call
