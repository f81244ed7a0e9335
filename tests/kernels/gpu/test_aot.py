"""Kernels compiled ahead of time: for every target, without a GPU, with a record that matches the code."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from latentrt.kernels.gpu.aot import PTX, SOURCES, TARGETS, compile_kernels
from latentrt.kernels.inputs import pixels_from_image
from latentrt.kernels.launch import INDEX_NAME, CompiledKernel, KernelIndex, KernelSet, grid, kernel_arguments
from latentrt.kernels.philox import philox_normal
from latentrt.kernels.slots import denoise_slots
from latentrt.runtime.errors import ExportError

from ..random_values import values
from .test_denoise_step import ROUTES, ROWS, slots_of


def compile_in(out: Path, *arguments: str) -> None:
    """In a process of its own: in this one kernels may be interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-P", "-m", "latentrt.kernels.gpu.aot", str(out), *arguments]
    subprocess.run(command, env=environment, check=True)


def read(folder: Path) -> dict[tuple[str, str], tuple[CompiledKernel, bytes]]:
    index = msgspec.json.decode((folder / INDEX_NAME).read_bytes(), type=KernelIndex)
    return {(k.name, k.target): (k, (folder / k.file).read_bytes()) for k in index.kernels}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One kernel for all targets, all kernels for one target, and one of them again."""
    root = tmp_path_factory.mktemp("compiled")
    compile_in(root / "targets", "--kernel=pack_rows", "--dtype=bfloat16")
    compile_in(root / "kernels", "--target=sm90", "--dtype=float16")
    compile_in(root / "again", "--target=sm90", "--dtype=float16", "--kernel=guidance_statistics")
    return root


def sm_version(cubin: bytes) -> int:
    """What ``e_flags`` of the ELF header says; the field moved with version 8 of NVIDIA's ABI."""
    magic, abi, machine = cubin[:4], cubin[8], struct.unpack_from("<H", cubin, 18)[0]
    (flags,) = struct.unpack_from("<I", cubin, 48)
    assert (magic, machine) == (b"\x7fELF", 190)  # EM_CUDA
    return (flags >> 8 if abi >= 8 else flags) & 0xFF


def parameters(cubin: bytes, symbol: str) -> list[tuple[int, int]]:
    """Offset and size in bytes of each of a kernel's parameters, from the section ``.nv.info.<symbol>``."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<3H", cubin, 58)
    headers = [struct.unpack_from("<2I4Q", cubin, table + size * i) for i in range(count)]
    section = next(h for h in headers if _name(cubin, headers[names][4] + h[0]) == f".nv.info.{symbol}")
    found: dict[int, tuple[int, int]] = {}
    for form, attribute, payload in _attributes(cubin[section[4] : section[4] + section[5]]):
        if (form, attribute) == (4, 0x17):  # EIFMT_SVAL, EIATTR_KPARAM_INFO
            _, ordinal, offset, flags = struct.unpack("<I2HI", payload)
            found[ordinal] = (offset, flags >> 18)
    return [found[i] for i in range(len(found))]


def _name(cubin: bytes, at: int) -> str:
    return cubin[at : cubin.index(b"\0", at)].decode()


def _attributes(section: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(section):
        form, attribute, size = struct.unpack_from("<2BH", section, at)
        size = size if form == 4 else 0  # the others hold their value in place of a size
        yield form, attribute, section[at + 4 : at + 4 + size]
        at += 4 + size


def test_a_kernel_is_compiled_for_every_target(compiled: Path) -> None:
    kernels = read(compiled / "targets")
    assert set(kernels) == {("pack_rows", target) for target in (*TARGETS, PTX)}
    for (_, target), (kernel, code) in kernels.items():
        if target == PTX:
            text = code.decode()
            assert ".version 8.0\n.target sm_80\n" in text
            assert f".visible .entry {kernel.symbol}(" in text
            assert f".reqntid {kernel.threads}\n" in text
        else:
            assert f"sm{sm_version(code)}" == target


def test_every_kernel_is_compiled_with_the_parameters_of_its_record(compiled: Path) -> None:
    kernels = read(compiled / "kernels")
    assert {name for name, _ in kernels} == set(SOURCES)
    for kernel, code in [*kernels.values(), *read(compiled / "targets").values()]:
        assert kernel.hidden_pointers == 2
        assert kernel.shared_bytes < 48 * 1024, "more has to be asked for at the launch"
        if kernel.target == PTX:
            continue
        sizes = [argument.dtype.itemsize for argument in kernel.arguments] + [8] * kernel.hidden_pointers
        offsets, end = [], 0
        for size in sizes:
            offsets.append(-(-end // size) * size)
            end = offsets[-1] + size
        assert parameters(code, kernel.symbol) == list(zip(offsets, sizes, strict=True)), kernel.file


def test_ptx_stands_in_for_gpus_that_are_newer_than_triton(tmp_path: Path) -> None:
    compile_in(tmp_path, "--target=sm190", f"--target={PTX}", "--kernel=pack_rows", "--dtype=float16")
    index = msgspec.json.decode((tmp_path / INDEX_NAME).read_bytes(), type=KernelIndex)
    assert KernelSet(index, lambda file: b"").select("pack_rows", "float16", "sm190").target == PTX
    assert [kernel.target for kernel in index.kernels] == [PTX]


def test_a_second_compilation_gives_the_same_bytes_and_no_path_is_in_them(compiled: Path) -> None:
    again = read(compiled / "again")["guidance_statistics", "sm90"]
    assert again == read(compiled / "kernels")["guidance_statistics", "sm90"]
    for _, code in (*read(compiled / "kernels").values(), *read(compiled / "targets").values()):
        assert str(compiled).encode() not in code
        assert b"/tmp" not in code
        assert b".py" not in code


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled in this process")
def test_interpreted_kernels_cannot_be_compiled(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="unset TRITON_INTERPRET"):
        compile_kernels(tmp_path, targets=["sm90"], names=["pack_rows"])


class Driver:
    """``cuLaunchKernel`` on torch's context, without Triton: what a runtime does with the record."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")

    def launch(
        self, kernel: CompiledKernel, code: bytes, elements: int, outer: int, given: dict[str, torch.Tensor | int]
    ) -> None:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.assert_cuda_success(self._cuda.cuModuleLoadData(ctypes.byref(module), code + b"\0"))
        self.assert_cuda_success(self._cuda.cuModuleGetFunction(ctypes.byref(function), module, kernel.symbol.encode()))
        numbers = {k: v.data_ptr() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        scalars = [np.array(value) for value in kernel_arguments(kernel, numbers)]
        pointers = (ctypes.c_void_p * len(scalars))(*(scalar.ctypes.data for scalar in scalars))
        blocks, threads = grid(kernel, elements, outer), (kernel.threads, 1, 1)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        shape = [ctypes.c_uint(n) for n in (*blocks, *threads, kernel.shared_bytes)]
        self.assert_cuda_success(self._cuda.cuLaunchKernel(function, *shape, stream, pointers, None))
        torch.cuda.synchronize()

    def assert_cuda_success(self, status: int) -> None:
        assert status == 0, f"CUDA driver error {status}"


@pytest.fixture(scope="module")
def on_this_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    out = tmp_path_factory.mktemp("on-this-gpu")
    target = "sm{}{}".format(*torch.cuda.get_device_capability())
    compile_in(out, f"--target={target}", f"--target={PTX}", "--dtype=float16")
    return out


def _gpu(array: Any) -> torch.Tensor:
    return (array if isinstance(array, torch.Tensor) else torch.from_numpy(array)).cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("from_ptx", [False, True])
def test_a_step_launched_from_its_record(on_this_gpu: Path, from_ptx: bool) -> None:
    shape = (4, 17, 20)
    elements, area = 4 * 17 * 20, 17 * 20
    slots, outputs = slots_of(shape), torch.from_numpy(values(20, ROWS, elements)).half()
    model_input, timesteps = np.full((ROWS, elements), 7, np.float32), np.zeros(ROWS, np.float32)
    device = {name: _gpu(array) for name, array in vars(slots).items()}
    device |= {"routes": _gpu(ROUTES), "outputs": _gpu(outputs), "timesteps": _gpu(timesteps)}
    device["model_input"] = _gpu(model_input).half()
    kernel, code = _one(on_this_gpu, "denoise_step", from_ptx)
    numbers = {"elements": elements, "area": area, "input_stride": elements}
    Driver().launch(kernel, code, elements, len(ROUTES), {**device, **numbers})
    denoise_slots(slots, ROUTES, outputs.float().numpy(), model_input, timesteps)
    for name in ("state", "history", "position", "draws", "arrived"):
        np.testing.assert_array_equal(device[name].cpu().numpy(), getattr(slots, name), err_msg=name)
    np.testing.assert_array_equal(device["timesteps"].cpu().numpy(), timesteps)
    np.testing.assert_array_equal(device["model_input"].cpu().numpy(), model_input.astype(np.float16))


@pytest.mark.gpu
@pytest.mark.parametrize("from_ptx", [False, True])
def test_noise_and_pixels_launched_from_their_records(on_this_gpu: Path, from_ptx: bool) -> None:
    noise = torch.zeros((2, 1, 4096), device="cuda")
    kernel, code = _one(on_this_gpu, "philox_normal", from_ptx)
    device = {"noise": noise, "seeds": torch.tensor([5, 6]).cuda(), "draws": torch.zeros(2, dtype=torch.int32).cuda()}
    Driver().launch(kernel, code, 4096, 2, {**device, "count": 4096, "threads": 4096, "calls": 1, "ring": 1})
    np.testing.assert_allclose(noise[:, 0].cpu(), [philox_normal(5, 4096), philox_normal(6, 4096)], rtol=0, atol=5e-6)

    image = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), np.uint8)
    pixels = torch.empty((2, 3, 24, 32), dtype=torch.half, device="cuda")
    kernel, code = _one(on_this_gpu, "pixels_from_image", from_ptx)
    Driver().launch(kernel, code, 3 * 24 * 32, 2, {"image": _gpu(image), "pixels": pixels, "area": 24 * 32})
    np.testing.assert_array_equal(pixels.cpu().numpy(), pixels_from_image(image).astype(np.float16))


def _one(folder: Path, name: str, from_ptx: bool) -> tuple[CompiledKernel, bytes]:
    return next(found for key, found in read(folder).items() if key[0] == name and (key[1] == PTX) == from_ptx)
