"""The host as a device: buffers, recordings, kernels by name, and tensors of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrt.kernels.gpu.aot import SOURCES
from latentrt.kernels.host import KERNELS
from latentrt.kernels.philox import calls_for, philox_normal, threads_for
from latentrt.kernels.reference import bytes_from_image, image_from_decoded
from latentrt.runtime.device.dlpack import is_elsewhere, is_tensor
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import CaptureError, DeviceMemoryError, EngineError, RequestError


def test_views_share_the_memory_of_their_buffer() -> None:
    device = HostDevice()
    buffer = device.allocate((4, 3), np.float32)
    device.stream.upload(buffer, np.arange(12, dtype=np.float32))
    rows, halves = buffer[1:3], buffer.view((2, 2), np.uint16)
    assert rows.shape == (2, 3)
    assert rows.pointer == buffer.pointer + 3 * 4
    assert (halves.nbytes, halves.pointer) == (8, buffer.pointer)
    device.stream.fill_zero(rows)
    np.testing.assert_array_equal(buffer.array, [[0, 1, 2], [0, 0, 0], [0, 0, 0], [9, 10, 11]])
    assert buffer.pointer % 256 == 0


def test_copies_keep_to_size_and_dtype() -> None:
    device = HostDevice()
    buffer = device.allocate((2, 3), np.float32)
    with pytest.raises(TypeError, match="float64"):
        device.stream.upload(buffer, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="reshape"):
        device.stream.upload(buffer, np.zeros((2, 4), np.float32))


def test_a_recording_does_nothing_until_it_is_launched_and_then_it_all() -> None:
    device = HostDevice()
    a, b = device.allocate((3,), np.float32), device.allocate((3,), np.float32)
    source = np.ones(3, np.float32)
    device.stream.fill_zero(a)
    with device.stream.capture() as capture:
        device.stream.upload(a, source)
        device.stream.copy(b, a)
    assert not a.array.any()
    source[:] = 5
    capture.graph.launch(device.stream)
    np.testing.assert_array_equal(b.array, [5, 5, 5])
    assert device.counts.captures == 1
    with device.stream.capture(), pytest.raises(CaptureError), device.stream.capture():
        pass


def test_a_broken_off_recording_leaves_the_stream_as_it_was() -> None:
    device = HostDevice()
    a = device.allocate((1,), np.float32)

    def record_and_fail() -> None:
        with device.stream.capture():
            device.stream.upload(a, np.zeros(1, np.float32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record_and_fail()
    device.stream.upload(a, np.ones(1, np.float32))
    assert a.array[0] == 1
    assert device.counts.captures == 0


def test_memory_is_counted_and_limited() -> None:
    device = HostDevice(limit=1000)
    buffer = device.allocate((200,), np.float32)
    assert device.memory() == (200, 1000)
    with pytest.raises(DeviceMemoryError, match=r"not enough memory \| received: 2e-07 GB free \| expected: 4e-07 GB"):
        device.allocate((100,), np.float32)
    buffer.close()
    buffer.close()
    device.allocate((250,), np.float32)  # nobody keeps it
    assert device.memory() == (1000, 1000)
    assert device.counts.allocations == 2


def test_tensors_come_and_go_without_a_copy() -> None:
    device = HostDevice()
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    buffer = device.from_dlpack(tensor)
    assert (buffer.pointer, buffer.shape, buffer.dtype) == (tensor.data_ptr(), (2, 3), np.float32)
    tensor[0, 0] = 9
    again = torch.from_dlpack(buffer)
    assert again[0, 0] == 9
    assert again.data_ptr() == tensor.data_ptr()
    assert not is_elsewhere(tensor)
    assert is_tensor(tensor)
    assert not is_tensor([1, 2])
    assert not is_tensor(np.zeros(2))


class OnAGpu:
    """A tensor that says it is on a GPU, which is all that is ever asked of it."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_tensors_on_another_device_are_refused() -> None:
    assert is_elsewhere(OnAGpu())
    with pytest.raises(RequestError, match=r"latents \| received: on CUDA \| expected: on the host"):
        HostDevice().from_dlpack(OnAGpu(), "latents")


def test_the_host_has_every_compiled_kernel() -> None:
    assert KERNELS.keys() == SOURCES.keys()
    with pytest.raises(EngineError, match="dream: no such kernel"):
        HostDevice().bind("dream", {}, elements=1, outer=1)


def test_pictures_become_bytes_and_back_by_the_kernels_of_that_name() -> None:
    device = HostDevice()
    decoded, pixels = device.allocate((1, 3, 4, 5), np.float16), device.allocate((1, 4, 5, 3), np.uint8)
    values = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float16)
    device.stream.upload(decoded, values)
    launch = device.bind(
        "image_from_decoded", {"decoded": decoded, "pixels": pixels, "area": 20}, elements=60, outer=1, dtype="float16"
    )
    device.stream.launch(launch)
    np.testing.assert_array_equal(pixels.array, bytes_from_image(image_from_decoded(values.astype(np.float32))))
    given = device.allocate((1, 3, 4, 5), np.float32)
    arguments = {"image": pixels, "pixels": given, "area": 20}
    device.stream.launch(device.bind("pixels_from_image", arguments, elements=60, outer=1, dtype="float32"))
    np.testing.assert_allclose(given.array, np.clip(values, -1, 1), atol=1 / 255)


def test_noise_goes_to_the_slots_that_ask_for_it() -> None:
    device, count = HostDevice(), 300
    noise = device.allocate((2, 2, count), np.float32)
    seeds, draws = device.allocate((2,), np.int64), device.allocate((2,), np.int32)
    device.stream.fill_zero(noise)
    device.stream.upload(seeds, np.array([7, 8]))
    device.stream.upload(draws, np.array([3, -1], np.int32))
    threads = threads_for(count)
    numbers = {"count": count, "threads": threads, "calls": calls_for(count, threads), "ring": 2}
    arguments = {"noise": noise, "seeds": seeds, "draws": draws, **numbers}
    device.stream.launch(device.bind("philox_normal", arguments, elements=threads, outer=2))
    np.testing.assert_array_equal(noise.array[0, 1], philox_normal(7, count, 3))
    assert not noise.array[0, 0].any()
    assert not noise.array[1].any()
