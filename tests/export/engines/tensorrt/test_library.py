"""Which TensorRT is there, and which GPUs it builds for."""

from __future__ import annotations

import importlib

import pytest

from latentrt.export.build_engine import EngineOptions, compiler_for
from latentrt.export.engines.tensorrt import library as library_module
from latentrt.export.engines.tensorrt.build import BuilderOptions
from latentrt.export.engines.tensorrt.compiler import TensorRTCompiler
from latentrt.export.engines.tensorrt.library import Library, import_library
from latentrt.runtime.errors import MissingDependencyError, RequestError


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Library:
    """TensorRT-RTX on a machine without a GPU, which this one may not be."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")
    monkeypatch.setattr(library_module, "gpu_target", lambda: None)
    return import_library("tensorrt-rtx")


def test_targets_are_one_request_in_any_order(rtx: Library) -> None:
    assert rtx.check_targets(("sm120", "sm89", "sm120")) == ("sm89", "sm120")
    assert {"sm86", "sm89", "sm120"} <= set(rtx.targets)


def test_the_gpu_of_this_machine_is_the_default(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "gpu_target", lambda: "sm89")
    assert rtx.check_targets(()) == ("sm89",)


def test_a_gpu_that_is_not_listed_is_tried_where_it_is_and_alone(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "gpu_target", lambda: "sm90")
    assert rtx.check_targets(()) == rtx.check_targets(("sm90",)) == ("sm90",)
    with pytest.raises(RequestError, match=r"received: sm89, sm90 \| expected: sm90, or others without it"):
        rtx.check_targets(("sm89", "sm90"))
    with pytest.raises(RequestError, match=r"does not build for it .* received: sm100 .* of sm75, .*, sm90"):
        rtx.check_targets(("sm100",))


def test_no_gpu_and_no_target(rtx: Library) -> None:
    with pytest.raises(RequestError, match=r"--target-sm .* no GPU here .* name the GPUs to build for"):
        rtx.check_targets(())


def test_a_compute_capability_that_the_provider_does_not_have(rtx: Library) -> None:
    with pytest.raises(RequestError, match=r"tensorrt-rtx .* received: sm90 .* of sm75, sm80, .*--provider tensorrt"):
        rtx.check_targets(("sm89", "sm90"))


def test_targets_are_for_gpus() -> None:
    with pytest.raises(RequestError, match=r"--provider .* onnxruntime-cpu .* a provider for GPUs"):
        compiler_for(EngineOptions("onnxruntime-cpu", ("sm89",)))


@pytest.mark.parametrize(
    ("provider", "hint"), [("tensorrt", "NVIDIA's package index"), ("tensorrt-rtx", "tensorrt-rtx")]
)
def test_a_library_that_is_not_installed(provider: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=rf"--provider {provider} needs .*{hint}"):
        import_library(provider)


def test_settings_in_the_key_are_in_the_units_of_the_command_line(rtx: Library) -> None:
    key = TensorRTCompiler("tensorrt-rtx", ("sm89",), BuilderOptions(workspace=100 << 20)).key()
    assert (key["workspace"], key["optimization level"]) == ("100 MB", "TensorRT's own")
