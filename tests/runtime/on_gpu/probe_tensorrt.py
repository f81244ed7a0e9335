"""What TensorRT or TensorRT-RTX says to the smallest network on this GPU, without any code of LatentRT's.

``python probe_tensorrt.py tensorrt_rtx`` prints a line of JSON ``[stage, answer, everything that was logged]`` as each
stage ends: a library that crashes has said what came before.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

#: Of the picture that a convolution is run on, with as many channels.
_SIDE, _CHANNELS = 32, 16


def main() -> None:
    """Go through all stages; the last one is reached on a GPU that the library runs on."""
    trt = importlib.import_module(sys.argv[1])
    logged: list[str] = []

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity not in (trt.ILogger.INFO, trt.ILogger.VERBOSE):
                logged.append(f"{severity.name}: {msg}")

    def stage(name: str, ask: Callable[[], Any], told: Callable[[Any], object] = str) -> Any:
        try:
            result = ask()
            answer = "refused" if result is None or result is False else told(result)
        except Exception as error:
            result, answer = None, f"{type(error).__name__}: {error}"
        print(json.dumps([name, answer, list(logged)]), flush=True)
        logged.clear()
        if result is None or result is False:
            sys.exit(1)
        return result

    log = Log()
    stage("version", lambda: trt.__version__)
    plan = stage("built", lambda: _plan(trt, log), lambda plan: f"{plan.nbytes} bytes")
    runtime = stage("a runtime", lambda: trt.Runtime(log), lambda runtime: "made")
    engine = stage("loaded", lambda: runtime.deserialize_cuda_engine(plan), lambda engine: "loaded")
    context = stage("a context", engine.create_execution_context, lambda context: "made")
    stage("ran", lambda: _run(context))


def _plan(trt: Any, log: Any) -> Any:
    """A convolution in fp16, for the GPU that is here where the library wants to be told."""
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0)
    x = network.add_input("x", trt.float16, (1, _CHANNELS, _SIDE, _SIDE))
    kernel = np.ones((_CHANNELS, _CHANNELS, 3, 3), np.float16)
    layer = network.add_convolution_nd(x, _CHANNELS, (3, 3), trt.Weights(kernel), trt.Weights())
    layer.get_output(0).name = "y"
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    if hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    return builder.build_serialized_network(network, config)


def _run(context: Any) -> str:
    import torch

    x = torch.ones(1, _CHANNELS, _SIDE, _SIDE, dtype=torch.float16, device="cuda")
    y = torch.zeros(1, _CHANNELS, _SIDE - 2, _SIDE - 2, dtype=torch.float16, device="cuda")
    context.set_tensor_address("x", x.data_ptr())
    context.set_tensor_address("y", y.data_ptr())
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    accepted = context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    if not accepted:
        raise RuntimeError("the run was refused")
    if not bool((y == 9 * _CHANNELS).all()):
        raise RuntimeError(f"the result is wrong: {y.flatten()[:4].tolist()}")
    return "the result is right"


if __name__ == "__main__":
    main()
