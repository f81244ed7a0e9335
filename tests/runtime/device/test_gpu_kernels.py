"""Kernels on a GPU, launched by cuda.core, against the host's."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentrt.kernels.philox import calls_for, threads_for
from latentrt.kernels.slots import TILE, Slots
from latentrt.kernels.table_rows import HISTORY
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.interface import Device

from ...kernels.random_values import values
from ...kernels.slot_runs import RUNS
from .on_gpu import fetched, sent

pytestmark = pytest.mark.gpu


def launched(
    device: Device, kernel: str, arrays: dict[str, NDArray[Any]], numbers: dict[str, int], **launch: Any
) -> dict[str, NDArray[Any]]:
    """All arrays after a launch of a kernel on copies of them."""
    buffers = {name: sent(device, array) for name, array in arrays.items()}
    device.stream.launch(device.bind(kernel, {**buffers, **numbers}, **launch))
    return {name: fetched(device, buffer) for name, buffer in buffers.items()}


def assert_same_everywhere(
    gpu: Device, kernel: str, arrays: Any, numbers: Any, tolerance: float, **launch: Any
) -> None:
    theirs = launched(HostDevice(), kernel, arrays, numbers, **launch)
    for name, array in launched(gpu, kernel, arrays, numbers, **launch).items():
        assert np.isfinite(theirs[name].astype(np.float64)).all()
        np.testing.assert_allclose(
            array.astype(np.float64), theirs[name].astype(np.float64), rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["dpm++ 2m", "euler ancestral", "edit", "outside a mask"])
def test_a_step_is_that_of_the_host(gpu: Any, name: str, dtype: str) -> None:
    shape = (4, 24, 40)
    elements, area, count, rows = 4 * 24 * 40, 24 * 40, 3, 9
    table = RUNS[name].rows
    slots = Slots(
        state=values(1, count, elements),
        history=values(2, count, HISTORY, elements),
        noise=values(3, count, 2, elements),
        kept=values(4, count, 2, elements),
        mask=(values(5, count, area) > 0).astype(np.float32),
        table=table,
        position=np.array([2, 0, 3], np.int32),
        draws=np.zeros(count, np.int32),
        arrived=np.zeros(count, np.int32),
        statistics=np.zeros((count, 4, -(-elements // TILE)), np.float32),
    )
    routes = np.array([[2, 0, 1, 2, 0, 1, 2], [0, 3, 4, 5, 3, 4, 5], [-1] * 7], np.int32)
    arrays = {field.name: getattr(slots, field.name) for field in fields(Slots)} | {
        "routes": routes,
        "outputs": values(6, rows, elements).astype(dtype),
        "model_input": values(7, rows, elements + 2 * area).astype(dtype),
        "timesteps": values(8, rows),
    }
    numbers = {"elements": elements, "area": area, "input_stride": elements + 2 * area}
    tolerance = 2e-3 if dtype == "float16" else 2e-5
    assert shape[0] * area == elements
    assert_same_everywhere(gpu, "denoise_step", arrays, numbers, tolerance, elements=elements, outer=3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pictures_are_the_bytes_of_the_host(gpu: Any, dtype: str) -> None:
    arrays = {"decoded": values(1, 2, 3, 40, 24).astype(dtype), "pixels": np.zeros((2, 40, 24, 3), np.uint8)}
    assert_same_everywhere(gpu, "image_from_decoded", arrays, {"area": 960}, 0, elements=3 * 960, outer=2, dtype=dtype)
    arrays = {
        "image": np.random.default_rng(1).integers(0, 256, (2, 40, 24, 3), np.uint8),
        "pixels": np.zeros((2, 3, 40, 24), dtype),
    }
    assert_same_everywhere(
        gpu, "pixels_from_image", arrays, {"area": 960}, 1e-6, elements=3 * 960, outer=2, dtype=dtype
    )


def test_extra_channels_are_those_of_the_host(gpu: Any) -> None:
    arrays = {
        "extra": values(1, 2, 480),
        "sources": np.array([1, 0, -1], np.int32),
        "model_input": values(2, 3, 1440).astype(np.float16),
    }
    numbers = {"first": 960, "elements": 480, "input_stride": 1440}
    assert_same_everywhere(gpu, "pack_rows", arrays, numbers, 0, elements=480, outer=3, dtype="float16")


def test_noise_is_that_of_torch_on_this_gpu(gpu: Any) -> None:
    count, threads = 4 * 64 * 64, threads_for(4 * 64 * 64)
    noise = gpu.allocate((1, 2, count), np.float32)
    arguments = {
        "noise": noise,
        "seeds": sent(gpu, np.array([1234], np.int64)),
        "draws": sent(gpu, np.array([1], np.int32)),
        "count": count,
        "threads": threads,
        "calls": calls_for(count, threads),
        "ring": 2,
    }
    gpu.stream.launch(gpu.bind("philox_normal", arguments, elements=threads * calls_for(count, threads), outer=1))
    generator = torch.Generator("cuda").manual_seed(1234)
    theirs = [torch.randn(count, generator=generator, device="cuda") for _ in range(2)][1]
    np.testing.assert_allclose(fetched(gpu, noise)[0, 1], theirs.cpu().numpy(), atol=1e-5)
