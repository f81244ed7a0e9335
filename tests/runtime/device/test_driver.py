"""What is said of machines whose driver is missing or too old."""

from __future__ import annotations

import pytest

from latentrt.runtime.device.driver import check_driver, driver_version, parsed_version
from latentrt.runtime.errors import EngineError


def test_versions_are_read_as_cuda_writes_them() -> None:
    assert parsed_version(13020) == (13, 2)
    assert parsed_version(12090) == (12, 9)


@pytest.mark.skipif(driver_version() is not None, reason="there is a driver")
def test_a_machine_without_a_driver_is_told_what_to_do() -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver .* CUDA 13\.0 or newer .* --gpus all"):
        check_driver((13, 0))


def test_an_old_driver_is_refused_with_both_versions() -> None:
    with pytest.raises(EngineError, match=r"too old \| received: one for CUDA 12\.9 \| expected: .* CUDA 13\.0"):
        check_driver((13, 0), found=(12, 9))
    check_driver((13, 0), found=(13, 0))
    check_driver((12, 0), found=(13, 2))
