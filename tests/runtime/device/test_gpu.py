"""The runtime on a GPU: recorded steps, memory, threads, tensors of others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from latentrt.kernels.launch import KernelSet
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import RequestError

from ...kernels.slot_runs import RUNS, by_definition, run_of
from ..function_engine import engines_of
from ..table_loop import SHAPE, linear_engine, run_through
from .on_gpu import assert_takes_nothing, fetched, on_gpu, sent

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "name",
    [
        "euler, guidance in the middle",
        "dpm++ 3m sde",
        "heun",
        "unipc",
        "outside a mask",
        "rescaled guidance",
        "euler ancestral, noise of a GPU",
    ],
)
def test_runs_end_where_the_tables_say(gpu: Any, name: str) -> None:
    with closing(on_gpu(gpu, "float32")) as engines:
        expected = by_definition(RUNS[name], SHAPE)
        state = run_through(engines, RUNS[name])[0]
        np.testing.assert_allclose(state, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_recorded_step_gives_the_bits_of_one_put_on_the_stream(gpu: Any, kernels: KernelSet) -> None:
    from latentrt.runtime.device.cuda import CudaDevice

    runs = [replace(RUNS["euler, guidance in the middle"], seed=seed) for seed in (1, 2)]
    with closing(on_gpu(gpu)) as recorded, closing(on_gpu(CudaDevice(kernels))) as plain:
        plain["denoiser"].capturable = False  # type: ignore[attr-defined]
        for _ in range(3):
            np.testing.assert_array_equal(run_through(recorded, *runs), run_through(plain, *runs))
        assert gpu.counts.captures == 2
        assert plain.device.counts.captures == 0


def test_a_recording_that_the_driver_breaks_off_is_given_up_and_the_run_goes_on(gpu: Any, kernels: KernelSet) -> None:
    from latentrt.runtime.device.cuda import CudaDevice

    run = RUNS["dpm++ 2m"]
    with closing(on_gpu(gpu)) as recorded, closing(on_gpu(CudaDevice(kernels))) as plain:
        plain["denoiser"].waits = True  # type: ignore[attr-defined]
        for _ in range(2):
            np.testing.assert_array_equal(run_through(recorded, run), run_through(plain, run))
        assert plain.runner.capture_refused
        assert plain.device.counts.captures == 0


def test_warm_sizes_allocate_and_record_nothing(engines: Engines, gpu: Any) -> None:
    sizes = [(4, 64, 64), (4, 40, 56), (4, 16, 8)]
    run = RUNS["dpm++ 2m"]
    for size in sizes:
        run_through(engines, run, shape=size)
    before = replace(gpu.counts)

    def change() -> None:
        for size in sizes * 3:
            run_through(engines, run, shape=size)

    assert_takes_nothing(gpu, change)
    assert (gpu.counts.allocations, gpu.counts.captures) == (before.allocations, before.captures)


def test_the_host_runs_ahead_of_the_device(engines: Engines, gpu: Any) -> None:
    """Nothing waits for a step unless somebody asks for it."""
    run = RUNS["dpm++ 2m"]
    run_through(engines, run)
    before = gpu.counts.synchronizations
    run_through(engines, run)
    assert gpu.counts.synchronizations == before + 2  # the last state, and the end of the run


def test_two_hundred_runs_leak_nothing(engines: Engines, gpu: Any) -> None:
    run = run_of("euler", 4)
    for _ in range(3):
        run_through(engines, run)

    def runs() -> None:
        for seed in range(200):
            run_through(engines, replace(run, seed=seed))

    assert_takes_nothing(gpu, runs)


def test_a_closed_pipeline_leaves_nothing(kernels: KernelSet) -> None:
    from latentrt.runtime.device.cuda import CudaDevice

    def use() -> None:
        with closing(on_gpu(CudaDevice(kernels), workspace_bytes=1 << 28)) as engines:
            run_through(engines, RUNS["euler"], shape=(4, 64, 64))

    watcher = CudaDevice(kernels)
    use()
    torch.cuda.synchronize()
    assert_takes_nothing(watcher, use)


def test_two_threads_get_what_each_gets_alone(engines: Engines) -> None:
    runs = [replace(RUNS["dpm++ 2m sde"], seed=seed) for seed in range(16)]
    alone = [run_through(engines, run) for run in runs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda run: run_through(engines, run), runs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_linear_denoiser_in_torch_is_the_one_in_numpy(gpu: Any) -> None:
    run = RUNS["euler"]
    with closing(on_gpu(gpu, "float32")) as ours, closing(engines_of(linear_engine())) as theirs:
        np.testing.assert_allclose(run_through(ours, run), run_through(theirs, run), atol=1e-4)


def test_tensors_of_torch_come_and_go_without_a_copy(gpu: Any) -> None:
    tensor = torch.arange(24, dtype=torch.float16, device="cuda").reshape(2, 3, 4)
    buffer = gpu.from_dlpack(tensor)
    assert (buffer.pointer, buffer.shape, buffer.dtype) == (tensor.data_ptr(), (2, 3, 4), np.float16)
    np.testing.assert_array_equal(fetched(gpu, buffer), tensor.cpu().numpy())
    ours = sent(gpu, np.arange(6, dtype=np.float32).reshape(2, 3))
    gpu.stream.synchronize()
    again = torch.from_dlpack(ours)
    assert again.data_ptr() == ours.pointer
    del ours
    again += 1
    np.testing.assert_array_equal(again.cpu().numpy(), np.arange(1, 7).reshape(2, 3))


def test_a_tensor_on_the_gpu_is_brought_to_the_host_where_it_is_needed_there(engines: Engines) -> None:
    tensor = torch.randn(1, 4, 8, 8, device="cuda") * 3  # still being made when it is asked for
    np.testing.assert_array_equal(engines.runner.fetch("latents", tensor), tensor.cpu().numpy())


def test_tensors_that_cannot_be_used_are_refused(gpu: Any) -> None:
    with pytest.raises(RequestError, match=r"latents \| received: on the host, device 0 \| expected: on GPU 0"):
        gpu.from_dlpack(torch.ones(3), "latents")
    with pytest.raises(RequestError, match="expected: a contiguous one"):
        gpu.from_dlpack(torch.ones(3, 4, device="cuda").T)
