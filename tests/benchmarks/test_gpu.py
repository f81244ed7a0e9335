"""What is measured on a GPU, by a GPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from latentrt.benchmarks.device_memory import DeviceMemory
from latentrt.benchmarks.workload import Ask, Start, Workload
from latentrt.runtime.errors import MissingDependencyError, RequestError
from latentrt.runtime.providers import PROVIDERS

pytestmark = pytest.mark.gpu

#: No memory of a GPU moves so many bytes a second, and no launch takes so long.
FASTEST, SLOWEST = 2e13, 1e-2

WORK = Workload("a fox", 64, 64, 2, 5.0, 1)


def test_memory_that_is_taken_is_counted_and_the_peak_seen() -> None:
    torch = pytest.importorskip("torch")
    torch.zeros(1, device="cuda")
    memory = DeviceMemory()
    with memory.counted(watch=True):
        large = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        time.sleep(0.1)
        del large
        torch.cuda.empty_cache()
    assert memory.peak >= 1 << 30
    assert memory.own < 1 << 28


@pytest.mark.parametrize(("options", "tolerance"), [({}, 0.0), ({"compile": "inductor"}, 0.1)])
def test_the_reference_draws_and_tells_its_stages(
    options: dict[str, str], tolerance: float, emoji_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    from latentrt.benchmarks.sides.diffusers_pipeline import open_side

    given = {"device": "cuda", "precision": "fp16"}
    eager = open_side(Start(str(emoji_checkpoint), 1, WORK, str(tmp_path), given)).draw
    drawn = open_side(Start(str(emoji_checkpoint), 1, WORK, str(tmp_path), given | options)).draw
    ask = Ask(WORK, noise="numpy", give="latents")
    latents, expected = drawn(ask).latents, eager(ask).latents
    assert latents is not None
    assert expected is not None
    assert np.abs(latents - expected).max() <= tolerance * np.abs(expected).max()
    stages = drawn(Ask(WORK)).stages
    assert all(stages[name] > 0 for name in ("text", "denoise", "decode", "postprocess"))


def test_the_profiler_sees_kernels_that_a_graph_launches() -> None:
    torch = pytest.importorskip("torch")
    from latentrt.benchmarks.kernel_profile import one_step, traced

    a, b = (torch.randn(512, 512, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.mm(a, b)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.mm(a, b, out=out)

    def replayed(times: int) -> None:
        for _ in range(times):
            graph.replay()

    traced(lambda: replayed(1))
    found = one_step(traced(lambda: replayed(2)), traced(lambda: replayed(6)), 4)
    assert [kernel.calls for kernel in found.kernels] == [1] * len(found.kernels)
    assert 0 < found.kernels[0].seconds < SLOWEST


def test_own_kernels_are_timed() -> None:
    pytest.importorskip("triton")
    from latentrt.benchmarks.gpu_clock import seconds_of
    from latentrt.benchmarks.own_kernels import launches

    for launch in launches("cuda", 64, 4, 128, 128):
        seconds = seconds_of(launch.run, "cuda")
        assert launch.bytes / FASTEST < seconds < SLOWEST, launch.kernel


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_the_plain_kernels_compute_what_torch_does(family: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    pytest.importorskip("onnx_ir", reason="onnx_ir is not installed")
    from latentrt.benchmarks import operations

    for operation in operations.operations_of(family, 64, 64):
        x = np.random.default_rng(0).standard_normal(operation.shape, np.float32).astype(np.float16)
        by = operations.in_torch(operation, x, "cuda")
        fused, expected = by[operations.TRITON](), by[operations.TORCH]()
        torch.testing.assert_close(fused, expected, rtol=4e-3, atol=1e-2)


@pytest.mark.parametrize("provider", [name for name, info in PROVIDERS.items() if info.needs_gpu])
def test_a_provider_runs_an_operation_alone(provider: str, tmp_path: Path) -> None:
    for needed in ("onnx_ir", "onnxruntime", "triton"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    from latentrt.benchmarks.gpu_clock import seconds_of
    from latentrt.benchmarks.provider_operations import geglu, prepared, write_bundle

    operation = geglu(2, 1024, 2560)
    x = np.random.default_rng(0).standard_normal(operation.shape, np.float32).astype(np.float16)
    write_bundle(operation, tmp_path / "bundle")
    try:
        with prepared(tmp_path / "bundle", provider, x) as (run, stream):
            seconds = seconds_of(run, "cuda", stream)
    except (MissingDependencyError, RequestError) as error:
        pytest.skip(str(error))
    assert operation.bytes / FASTEST < seconds < SLOWEST
