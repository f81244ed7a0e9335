"""Fixtures of the tests on a GPU. The engine is a few lines of torch, so that nothing there needs a provider."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
import torch

from latentrt.kernels.launch import INDEX_NAME, KernelIndex, KernelSet
from latentrt.runtime.device.driver import gpu_target
from latentrt.runtime.engines import Engines

from .on_gpu import on_gpu


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelSet:
    """Every kernel, compiled for the GPU that is here in a process of its own, so that this one needs no Triton."""
    folder = tmp_path_factory.mktemp("kernels")
    target = gpu_target()
    assert target is not None
    pytest.importorskip("cuda.core")
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    compile_them = (
        "import sys; from pathlib import Path; from latentrt.kernels.gpu.aot import compile_kernels; "
        "compile_kernels(Path(sys.argv[1]), [sys.argv[2]])"
    )
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-P", "-c", compile_them, str(folder), target], check=True, env=compiling)
    index = msgspec.json.decode((folder / INDEX_NAME).read_bytes(), type=KernelIndex)
    return KernelSet(index, lambda file: (folder / file).read_bytes())


@pytest.fixture
def gpu(kernels: KernelSet) -> Any:
    from latentrt.runtime.device.cuda import CudaDevice

    return CudaDevice(kernels)


@pytest.fixture
def engines(gpu: Any) -> Iterator[Engines]:
    """A linear denoiser in half precision on the GPU."""
    with closing(on_gpu(gpu)) as engines:
        yield engines
