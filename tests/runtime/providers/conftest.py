"""Fixtures of the tests of providers: TensorRT's packages, as far as they are installed."""

from __future__ import annotations

from types import ModuleType

import pytest

from latentrt.runtime.providers.tensorrt_library import Library


@pytest.fixture(params=["tensorrt_rtx", "tensorrt_lean", "tensorrt"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the modules that is installed here."""
    trt: ModuleType = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return trt


@pytest.fixture
def rtx() -> Library:
    return Library(pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine"))


@pytest.fixture
def lean() -> Library:
    return Library(pytest.importorskip("tensorrt_lean", reason="tensorrt-lean is not installed"))
