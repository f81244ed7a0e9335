"""What a library's refusal means for the device."""

from __future__ import annotations

import pytest

from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import DeviceError, DeviceMemoryError, EngineError
from latentrt.runtime.providers.gpu import gpu_error


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)", DeviceMemoryError),
        ("Error Code 1: Cuda Runtime (out of memory)", DeviceMemoryError),
        ("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 16", DeviceMemoryError),
        ("BFCArena::Extend Available memory of 8 is smaller than requested bytes of 16", DeviceMemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", DeviceMemoryError),
        ("CUDNN failure 4001: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", DeviceMemoryError),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", DeviceError),
        ("Error Code 1: Cuda Driver (unspecified launch failure)", DeviceError),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", DeviceError),
        ("Error Code 1: Platform (Cuda) error", DeviceError),
        ("Error Code 1: Cask (Cask convolution execution)", DeviceError),
        ("CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED ; GPU=0", EngineError),
        ("Error Code 2: OutOfMemory (Requested 16); Error Code 4: Internal Error (enqueue failed)", DeviceMemoryError),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", DeviceError),
        ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", DeviceError),
        ("Error Code 3: API Usage Error (Parameter check failed, condition: mContext.profileSelected)", EngineError),
        ("no reason given", EngineError),
    ],
)
def test_an_error_says_whether_the_device_can_still_be_used(reason: str, kind: type[EngineError]) -> None:
    error = gpu_error("denoiser: the run cannot be put on the stream", reason, HostDevice(limit=3 << 30))
    assert type(error) is kind
    assert reason in str(error)
    if kind is DeviceMemoryError:
        assert "3.22 GB of 3.22 GB free" in str(error)
