"""What of the CUDA device can be told apart without a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("cuda.core", reason="pip install 'latentrt[cuda]'")

from latentrt.runtime.device.cuda import CudaDevice, _is_contiguous
from latentrt.runtime.device.driver import driver_version
from latentrt.runtime.errors import EngineError


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [((2, 3), (3, 1), True), ((3, 2), (1, 3), False), ((1, 4), (99, 1), True), ((2, 3), (4, 1), False), ((), (), True)],
)
def test_gaps_between_elements_are_seen(shape: tuple[int, ...], strides: tuple[int, ...], contiguous: bool) -> None:
    assert _is_contiguous(shape, strides) is contiguous


@pytest.mark.skipif(driver_version() is not None, reason="there is a driver")
def test_no_gpu_is_an_error_of_ours() -> None:
    with pytest.raises(EngineError, match="no NVIDIA driver was found"):
        CudaDevice(None)
