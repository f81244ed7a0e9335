"""Engines for GPUs on a machine without their GPU: the gate is told why they are not compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latentrt.export.engines import engine_on_gpu
from latentrt.export.engines.engine_on_gpu import EngineWithDevice, opener_on_gpu
from latentrt.export.engines.onnxruntime_compiler import OnnxRuntimeCompiler
from latentrt.runtime.device import driver
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.interface import Device
from latentrt.runtime.errors import OutputError
from latentrt.runtime.providers import Engine


def never(device: Device) -> Engine:
    raise AssertionError("there is nothing to load it onto")


@pytest.mark.parametrize(
    ("here", "targets", "says"),
    [
        (None, ("sm89", "sm120"), "it was built without a GPU of sm89 or sm120"),
        (None, (), "it was built without a GPU"),
        ("sm90", ("sm89",), "it was built without a GPU of sm89"),
    ],
)
def test_why_an_engine_is_not_run(
    here: str | None, targets: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_on_gpu, "gpu_target", lambda: here)
    assert opener_on_gpu(targets, never) == says


def test_a_library_that_does_not_run_on_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where ONNX Runtime is the one for processors, engines for GPUs are built all the same."""
    import onnxruntime

    monkeypatch.setattr(engine_on_gpu, "gpu_target", lambda: "sm90")
    monkeypatch.setattr(engine_on_gpu, "check_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    job: Any = SimpleNamespace(component="denoiser", writer=SimpleNamespace(folder=tmp_path))
    says = "it was not run: the provider onnxruntime-cuda needs onnxruntime-gpu"
    assert OnnxRuntimeCompiler("onnxruntime-cuda").opener(job, "engine.onnx", ()) == says


def test_an_engine_that_fails_to_close_leaves_its_device_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    device, closed = HostDevice(), list[str]()
    monkeypatch.setattr(device, "close", lambda: closed.append("the device"))

    def fail() -> None:
        raise OutputError("the cache cannot be written")

    engine: Any = SimpleNamespace(component="denoiser", prepare=None, close=fail)
    with pytest.raises(OutputError):
        EngineWithDevice(engine, device).close()
    assert closed == ["the device"]


def test_a_gpu_with_too_old_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    monkeypatch.setattr(engine_on_gpu, "gpu_target", lambda: "sm89")
    monkeypatch.setattr(driver, "driver_version", lambda: (11, 8))
    assert opener_on_gpu(("sm89",), never) == "it was not run: the NVIDIA driver is too old"
