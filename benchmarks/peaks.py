"""What this machine does at best: products and convolutions, and copying memory.

A processor's peak, in fp32 at a number of threads, is the best of what numpy, torch and ONNX Runtime reach: a library's
product alone would be too low a limit where another's convolution is faster, as it is on some processors. A GPU's is
what torch's product of large matrices of random numbers reaches: with zeros it would draw less power and clock higher.

Whatever else runs meanwhile makes a peak look lower than it is, never higher. So all of them are tried in turns, over
some seconds, and the best of each counts; of several measurements too (``highest``).

``python -P -m latentrt.benchmarks.peaks`` prints a line of JSON; OMP_NUM_THREADS and its like are read by the libraries
when they are imported, so it is a process of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from ..runtime.errors import RunError
from .baselines import Device
from .results import Peaks
from .turns import environment

#: Sides of the square matrices that are tried: small ones stay in caches, large ones hide what surrounds the kernel.
SIDES = (512, 1024, 2048)

#: Sides of the pictures that are convolved, with so many channels, 3 by 3.
PICTURES, CHANNELS = (16, 32, 64), 256

#: Copied from and to: far larger than any cache.
COPY_BYTES = 256 << 20

#: The same for a GPU.
_GPU_SIDES = (4096, 8192, 16384)
_GPU_COPY_BYTES = 1 << 30

#: Each work gets ``ROUNDS`` turns of so many seconds.
ROUNDS, SECONDS = 5, 0.2

#: Something to measure: what it counts (FLOP or bytes), and how to do it.
_Work = tuple[float, Callable[[], object]]

_MATMUL, _TORCH, _CONVOLUTION, _COPY = "numpy matmul", "torch matmul", "onnxruntime convolution", "copy"


def measure_peaks(threads: int, device: Device, precision: str) -> Peaks:
    """Measure in a process of its own; ``precision`` is a GPU's, a processor's is fp32.

    Raises:
        RunError: it failed.
    """
    command = [sys.executable, "-P", "-m", "latentrt.benchmarks.peaks", str(threads), device, precision]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads), check=False)
    if done.returncode != 0:
        raise RunError("the machine's peaks could not be measured", received=done.stderr[-1000:])
    return msgspec.json.decode(done.stdout, type=Peaks)


def highest(measured: Sequence[Peaks]) -> Peaks:
    """The best of several measurements of the same machine."""
    best = max(measured, key=lambda peaks: peaks.matmul)
    return msgspec.structs.replace(best, copy=max(peaks.copy for peaks in measured))


def main() -> None:
    """Measure and print."""
    threads, device, precision = int(sys.argv[1]), *sys.argv[2:]
    peaks = _gpu_peaks(threads, precision) if device == "cuda" else processor_peaks(threads)
    print(msgspec.json.encode(peaks).decode())


def processor_peaks(threads: int) -> Peaks:
    """Measured in this process, in fp32."""
    works = {_COPY: [_copy(threads)], _MATMUL: [_numpy_matmul(side) for side in SIDES]}
    if importlib.util.find_spec("torch") is not None:
        works[_TORCH] = [_torch_matmul(side, threads) for side in SIDES]
    if importlib.util.find_spec("onnxruntime") is not None:
        works[_CONVOLUTION] = [_convolution(side, threads) for side in PICTURES]
    best = best_rates(works, _timed)
    copy = best.pop(_COPY)
    by = max(best, key=lambda name: best[name])
    return Peaks(best[by], by, copy, threads)


def _gpu_peaks(threads: int, precision: str) -> Peaks:
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed(work: Callable[[], object]) -> float:
        """By the GPU's own clock."""
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    works: dict[str, list[_Work]] = {_COPY: [], _TORCH: []}
    for side in _GPU_SIDES:
        a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
        works[_TORCH].append((2 * side**3, functools.partial(torch.mm, a, b, out=torch.empty_like(a))))
    source = torch.ones(_GPU_COPY_BYTES, dtype=torch.uint8, device="cuda")
    works[_COPY].append((2 * _GPU_COPY_BYTES, functools.partial(torch.empty_like(source).copy_, source)))
    best = best_rates(works, timed)
    return Peaks(best[_TORCH], _TORCH, best[_COPY], threads, precision, torch.cuda.get_device_name())


def _numpy_matmul(side: int) -> _Work:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((side, side), np.float32) for _ in range(2))
    return 2 * side**3, functools.partial(np.matmul, a, b, out=np.empty_like(a))


def _torch_matmul(side: int, threads: int) -> _Work:
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(side, side) for _ in range(2))
    return 2 * side**3, functools.partial(torch.mm, a, b, out=torch.empty_like(a))


def _convolution(side: int, threads: int) -> _Work:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, CHANNELS, side, side]
    weights = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    graph = helper.make_graph([node], "convolution", [x], [y], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"x": np.random.default_rng(1).standard_normal(shape, np.float32)}
    return 2 * 9 * CHANNELS**2 * side**2, functools.partial(session.run, None, inputs)


def _copy(threads: int) -> _Work:
    """Bytes read and written, by each thread a part of its own."""
    count = COPY_BYTES // 4 // threads
    pairs = [(np.ones(count, np.float32), np.empty(count, np.float32)) for _ in range(threads)]

    def copy() -> None:
        workers = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return 2 * 4 * count * threads, copy


def best_rates(
    works: Mapping[str, Sequence[_Work]], timed: Callable[[Callable[[], object]], float]
) -> dict[str, float]:
    """By name, the most that any of its works did a second: a limit is what is reached once, not on average."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(ROUNDS):
        for name, named in works.items():
            for amount, work in named:
                work()
                end = time.perf_counter() + SECONDS
                while time.perf_counter() < end:
                    best[name] = max(best[name], amount / timed(work))
    return best


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
