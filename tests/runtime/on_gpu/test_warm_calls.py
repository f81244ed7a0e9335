"""Calls that were made ready: recorded or not, one size after another, from two threads, with texts that go again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ..device.on_gpu import assert_takes_nothing
from .answers import Answers
from .calls import SIZES, latents, loaded

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

pytestmark = pytest.mark.gpu

#: ONNX Runtime records its runs itself, where it is told to.
RECORDS = {"enable_cuda_graph": "1"}


def plain(path: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline that records nothing: all work is put on the stream one by one."""
    if provider == "onnxruntime-cuda":
        return loaded(path, provider, provider_options={"enable_cuda_graph": "0"})
    from latentrt.runtime.providers.tensorrt import TensorRTExecution

    monkeypatch.setattr(TensorRTExecution, "capturable", False)
    return loaded(path, provider)


def test_recorded_steps_give_the_bits_of_those_put_on_the_stream(
    gpu: Pipeline, built: Callable[[str], Path], provider: str, monkeypatch: pytest.MonkeyPatch, answers: Answers
) -> None:
    if provider == "onnxruntime-cuda":
        denoiser: Any = gpu.engines["denoiser"]
        answers.keep(provider, "records its runs unless it is told not to", denoiser.records_itself)
    options: dict[str, Any] = {"provider_options": RECORDS} if provider == "onnxruntime-cuda" else {}
    calls: list[dict[str, Any]] = [
        {"size": size, "sampler": name} for size in SIZES[:2] for name in ("euler", "euler_a")
    ]
    with loaded(built("fp16"), provider, **options) as pipe:
        first = [latents(pipe, **call) for call in calls]
        recorded = [latents(pipe, **call) for call in calls]
        captures = pipe.engines.device.counts.captures
    answers.keep(provider, "graphs recorded by the runtime", captures)
    with plain(built("fp16"), provider, monkeypatch) as pipe:
        expected = [latents(pipe, **call) for call in calls]
        assert pipe.engines.device.counts.captures == 0
    for one, two, other in zip(first, recorded, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(two, other)
    assert provider == "onnxruntime-cuda" or captures > 0


def test_a_warm_change_of_size_records_and_allocates_nothing(gpu: Pipeline) -> None:
    gpu.warmup(SIZES)
    for size in SIZES:  # a library's own pools take their shape
        latents(gpu, size=size)
    counts, before = gpu.engines.device.counts, replace(gpu.engines.device.counts)

    def change() -> None:
        for size in SIZES * 2:
            latents(gpu, size=size)

    assert_takes_nothing(gpu.engines.device, change)
    assert (counts.allocations, counts.captures) == (before.allocations, before.captures)


def test_a_warm_picture_allocates_nothing_either(gpu: Pipeline) -> None:
    gpu.warmup(SIZES[:2])

    def draw() -> None:
        for width, height in SIZES[:2]:
            gpu("a fox", seed=1, num_inference_steps=2, width=width, height=height)

    draw()
    counts, before = gpu.engines.device.counts, replace(gpu.engines.device.counts)
    assert_takes_nothing(gpu.engines.device, draw)
    assert (counts.allocations, counts.captures) == (before.allocations, before.captures)


def test_a_warm_run_waits_for_the_device_only_at_its_end(gpu: Pipeline) -> None:
    """However many steps it has."""
    waits = []
    for steps in (4, 24):
        latents(gpu, num_inference_steps=steps)
        before = gpu.engines.device.counts.synchronizations
        latents(gpu, num_inference_steps=steps)
        waits.append(gpu.engines.device.counts.synchronizations - before)
    assert waits[0] == waits[1]


def test_two_threads_get_what_each_gets_alone(gpu: Pipeline) -> None:
    calls: list[dict[str, Any]] = [{"seed": seed, "size": SIZES[seed % len(SIZES)]} for seed in range(12)]
    alone = [latents(gpu, **call) for call in calls]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda call: latents(gpu, **call), calls))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_text_encoders_that_are_loaded_for_each_text_give_the_same(
    gpu: Pipeline, built: Callable[[str], Path], provider: str
) -> None:
    prompts = ("a fox", "an owl on a pink background", "a birthday cake")
    with loaded(built("fp16"), provider, offload="text", embeddings_cache=0) as pipe:
        for prompt in prompts:
            np.testing.assert_array_equal(latents(pipe, prompt), latents(gpu, prompt))
            assert pipe.engines.get("text_encoder") is None
            assert pipe.engines.get("text_encoder_2") is None

        def others() -> None:
            for i in range(10):
                latents(pipe, f"{i} owls")

        others()
        assert_takes_nothing(pipe.engines.device, others)
