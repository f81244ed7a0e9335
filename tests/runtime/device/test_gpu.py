"""The runtime on a GPU: kernels launched by cuda.core, recorded steps, memory, threads, faults.

The engine is a few lines of torch, so that nothing here needs a provider.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentrt.kernels.launch import INDEX_NAME, KernelIndex, KernelSet
from latentrt.kernels.philox import calls_for, threads_for
from latentrt.kernels.slots import TILE, Slots
from latentrt.kernels.table_rows import HISTORY
from latentrt.runtime.device.driver import gpu_target
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.interface import Buffer, Device
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import DeviceMemoryError, RequestError

from ...kernels.random_values import values
from ...kernels.slot_runs import RUNS, by_definition, run_of
from ..function_engine import engines_of
from ..table_loop import SHAPE, linear_contract, linear_engine, run_through

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelSet:
    """Every kernel, compiled for the GPU that is here in a process of its own, so that this one needs no Triton."""
    folder = tmp_path_factory.mktemp("kernels")
    target = gpu_target()
    assert target is not None
    pytest.importorskip("cuda.core")
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    compile_them = (
        "import sys; from pathlib import Path; from latentrt.kernels.gpu.aot import compile_kernels; "
        "compile_kernels(Path(sys.argv[1]), [sys.argv[2]])"
    )
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-P", "-c", compile_them, str(folder), target], check=True, env=compiling)
    index = msgspec.json.decode((folder / INDEX_NAME).read_bytes(), type=KernelIndex)
    return KernelSet(index, lambda file: (folder / file).read_bytes())


@pytest.fixture
def gpu(kernels: KernelSet) -> Any:
    from latentrt.runtime.device.cuda import CudaDevice

    return CudaDevice(kernels)


@pytest.fixture
def engines(gpu: Any) -> Iterator[Engines]:
    """A linear denoiser in half precision on the GPU."""
    with closing(on_gpu(gpu)) as engines:
        yield engines


def on_gpu(gpu: Any, dtype: str = "float16", **options: Any) -> Engines:
    from .torch_engine import TorchEngine

    engine: Any = TorchEngine("denoiser", linear_contract(dtype=dtype), gpu, **options)
    return engines_of(engine, device=gpu)


# Kernels


def sent(device: Device, array: NDArray[Any]) -> Buffer:
    buffer = device.allocate(array.shape, array.dtype)
    device.stream.upload(buffer, np.ascontiguousarray(array))
    return buffer


def fetched(device: Device, buffer: Buffer) -> NDArray[Any]:
    array = np.empty(buffer.shape, buffer.dtype)
    device.stream.download(buffer, array)
    device.stream.synchronize()
    return array


def launched(
    device: Device, kernel: str, arrays: dict[str, NDArray[Any]], numbers: dict[str, int], **launch: Any
) -> dict[str, NDArray[Any]]:
    """All arrays after a launch of a kernel on copies of them."""
    buffers = {name: sent(device, array) for name, array in arrays.items()}
    device.stream.launch(device.bind(kernel, {**buffers, **numbers}, **launch))
    return {name: fetched(device, buffer) for name, buffer in buffers.items()}


def assert_same_everywhere(
    gpu: Device, kernel: str, arrays: Any, numbers: Any, tolerance: float, **launch: Any
) -> None:
    theirs = launched(HostDevice(), kernel, arrays, numbers, **launch)
    for name, array in launched(gpu, kernel, arrays, numbers, **launch).items():
        assert np.isfinite(theirs[name].astype(np.float64)).all()
        np.testing.assert_allclose(
            array.astype(np.float64), theirs[name].astype(np.float64), rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["dpm++ 2m", "euler ancestral", "edit", "outside a mask"])
def test_a_step_is_that_of_the_host(gpu: Any, name: str, dtype: str) -> None:
    shape = (4, 24, 40)
    elements, area, count, rows = 4 * 24 * 40, 24 * 40, 3, 9
    table = RUNS[name].rows
    slots = Slots(
        state=values(1, count, elements),
        history=values(2, count, HISTORY, elements),
        noise=values(3, count, 2, elements),
        kept=values(4, count, 2, elements),
        mask=(values(5, count, area) > 0).astype(np.float32),
        table=table,
        position=np.array([2, 0, 3], np.int32),
        draws=np.zeros(count, np.int32),
        arrived=np.zeros(count, np.int32),
        statistics=np.zeros((count, 4, -(-elements // TILE)), np.float32),
    )
    routes = np.array([[2, 0, 1, 2, 0, 1, 2], [0, 3, 4, 5, 3, 4, 5], [-1] * 7], np.int32)
    arrays = {field.name: getattr(slots, field.name) for field in fields(Slots)} | {
        "routes": routes,
        "outputs": values(6, rows, elements).astype(dtype),
        "model_input": values(7, rows, elements + 2 * area).astype(dtype),
        "timesteps": values(8, rows),
    }
    numbers = {"elements": elements, "area": area, "input_stride": elements + 2 * area}
    tolerance = 2e-3 if dtype == "float16" else 2e-5
    assert shape[0] * area == elements
    assert_same_everywhere(gpu, "denoise_step", arrays, numbers, tolerance, elements=elements, outer=3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pictures_are_the_bytes_of_the_host(gpu: Any, dtype: str) -> None:
    arrays = {"decoded": values(1, 2, 3, 40, 24).astype(dtype), "pixels": np.zeros((2, 40, 24, 3), np.uint8)}
    assert_same_everywhere(gpu, "image_from_decoded", arrays, {"area": 960}, 0, elements=3 * 960, outer=2, dtype=dtype)
    arrays = {
        "image": np.random.default_rng(1).integers(0, 256, (2, 40, 24, 3), np.uint8),
        "pixels": np.zeros((2, 3, 40, 24), dtype),
    }
    assert_same_everywhere(
        gpu, "pixels_from_image", arrays, {"area": 960}, 1e-6, elements=3 * 960, outer=2, dtype=dtype
    )


def test_extra_channels_are_those_of_the_host(gpu: Any) -> None:
    arrays = {
        "extra": values(1, 2, 480),
        "sources": np.array([1, 0, -1], np.int32),
        "model_input": values(2, 3, 1440).astype(np.float16),
    }
    numbers = {"first": 960, "elements": 480, "input_stride": 1440}
    assert_same_everywhere(gpu, "pack_rows", arrays, numbers, 0, elements=480, outer=3, dtype="float16")


def test_noise_is_that_of_torch_on_this_gpu(gpu: Any) -> None:
    count, threads = 4 * 64 * 64, threads_for(4 * 64 * 64)
    noise = gpu.allocate((1, 2, count), np.float32)
    arguments = {
        "noise": noise,
        "seeds": sent(gpu, np.array([1234], np.int64)),
        "draws": sent(gpu, np.array([1], np.int32)),
        "count": count,
        "threads": threads,
        "calls": calls_for(count, threads),
        "ring": 2,
    }
    gpu.stream.launch(gpu.bind("philox_normal", arguments, elements=threads * calls_for(count, threads), outer=1))
    generator = torch.Generator("cuda").manual_seed(1234)
    theirs = [torch.randn(count, generator=generator, device="cuda") for _ in range(2)][1]
    np.testing.assert_allclose(fetched(gpu, noise)[0, 1], theirs.cpu().numpy(), atol=1e-5)


# Runs


@pytest.mark.parametrize(
    "name", ["euler, guidance in the middle", "dpm++ 3m sde", "heun", "unipc", "outside a mask", "rescaled guidance"]
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
    before, free = replace(gpu.counts), gpu.memory()[0]
    for size in sizes * 3:
        run_through(engines, run, shape=size)
    assert (gpu.counts.allocations, gpu.counts.captures) == (before.allocations, before.captures)
    assert gpu.memory()[0] == free


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
    free = gpu.memory()[0]
    for seed in range(200):
        run_through(engines, replace(run, seed=seed))
    assert gpu.memory()[0] >= free


def test_a_closed_pipeline_leaves_nothing(kernels: KernelSet) -> None:
    from latentrt.runtime.device.cuda import CudaDevice

    def use() -> None:
        with closing(on_gpu(CudaDevice(kernels), workspace_bytes=1 << 28)) as engines:
            run_through(engines, RUNS["euler"], shape=(4, 64, 64))

    watcher = CudaDevice(kernels)
    use()
    torch.cuda.synchronize()
    free = watcher.memory()[0]
    for _ in range(5):
        use()
    assert watcher.memory()[0] >= free - (1 << 22)  # the driver keeps a little of its own


def test_two_threads_get_what_each_gets_alone(engines: Engines) -> None:
    runs = [replace(RUNS["dpm++ 2m sde"], seed=seed) for seed in range(16)]
    alone = [run_through(engines, run) for run in runs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda run: run_through(engines, run), runs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# Tensors


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


# Faults


def test_what_does_not_fit_is_refused_and_what_fits_still_runs(gpu: Any) -> None:
    total = gpu.memory()[1]
    with closing(on_gpu(gpu)) as engines:
        expected = run_through(engines, RUNS["euler"])
        with pytest.raises(DeviceMemoryError, match=r"GPU 0 .*: not enough memory .* GB free .* lower width, height"):
            gpu.allocate((2 * total,), np.uint8)
        engines["denoiser"].workspace_bytes = 2 * total  # type: ignore[attr-defined]
        with pytest.raises(DeviceMemoryError):
            run_through(engines, RUNS["euler"], shape=(4, 64, 64))
        engines["denoiser"].workspace_bytes = 1 << 20  # type: ignore[attr-defined]
        np.testing.assert_array_equal(run_through(engines, RUNS["euler"]), expected)


def test_an_illegal_access_fails_the_run_and_breaks_the_pipeline(kernels: KernelSet, tmp_path: Path) -> None:
    """In a process of its own, whose GPU context it ends."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    for kernel in kernels.index.kernels:
        (folder / kernel.file).write_bytes(kernels.read(kernel.file))
    (folder / "kernels.json").write_bytes(msgspec.json.encode(kernels.index))
    program = """
        import sys
        from pathlib import Path
        import msgspec, numpy as np
        from latentrt.kernels.launch import KernelIndex, KernelSet
        from latentrt.runtime.device.cuda import CudaDevice
        from latentrt.runtime.errors import DeviceError, EngineError
        from latentrt.runtime.device.runner import DeviceRunner
        folder = Path(sys.argv[1])
        index = msgspec.json.decode((folder / "kernels.json").read_bytes(), type=KernelIndex)
        device = CudaDevice(KernelSet(index, lambda file: (folder / file).read_bytes()))
        runner = DeviceRunner(device)
        decoded, pixels = device.allocate((1, 3, 4, 4), np.float32), device.allocate((1, 4, 4, 3), np.uint8)
        decoded.pointer = 1 << 40
        launch = device.bind("image_from_decoded", {"decoded": decoded, "pixels": pixels, "area": 16},
                             elements=48, outer=1, dtype="float32")
        try:
            with runner.turn():
                device.stream.launch(launch)
                device.stream.synchronize()
        except DeviceError as error:
            print("failed:", error)
        try:
            with runner.turn():
                print("went on")
        except EngineError as error:
            print("refused:", error)
        runner.close()
        print("closed")
    """
    result = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program), str(folder)], capture_output=True, text=True
    )
    assert "failed: GPU 0" in result.stdout, result.stderr
    assert "ILLEGAL_ADDRESS" in result.stdout
    assert "refused: the pipeline is broken since an earlier call" in result.stdout
    assert "went on" not in result.stdout
    assert "closed" in result.stdout


def test_the_linear_denoiser_in_torch_is_the_one_in_numpy(gpu: Any) -> None:
    run = RUNS["euler"]
    with closing(on_gpu(gpu, "float32")) as ours, closing(engines_of(linear_engine())) as theirs:
        np.testing.assert_allclose(run_through(ours, run), run_through(theirs, run), atol=1e-4)
