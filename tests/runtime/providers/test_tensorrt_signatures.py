"""Every name and signature that our TensorRT code uses, against the real modules: they import without a GPU."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

from latentrt.runtime.providers import tensorrt, tensorrt_cache, tensorrt_library
from latentrt.runtime.providers.tensorrt_library import Library

#: What the provider calls: class -> method -> the parameters that it passes, in their order.
EVERYWHERE: dict[str, dict[str, tuple[str, ...]]] = {
    "Runtime": {"deserialize_cuda_engine": ("stream_reader_v2",)},
    "ICudaEngine": {"create_execution_context": ("strategy",)},
    "IExecutionContext": {
        "set_optimization_profile_async": ("profile_index", "stream_handle"),
        "set_input_shape": ("name", "shape"),
        "infer_shapes": (),
        "update_device_memory_size_for_shapes": (),
        "set_tensor_address": ("name", "memory"),
        "set_device_memory": ("memory", "size"),
        "execute_async_v3": ("stream_handle",),
    },
}
#: What it calls of TensorRT-RTX besides.
RTX_ONLY: dict[str, dict[str, tuple[str, ...]]] = {
    "ICudaEngine": {"create_runtime_config": (), "create_execution_context": ("runtime_config",)},
    "IExecutionContext": {"is_stream_capturable": ("stream",)},
    "IRuntimeConfig": {
        "set_execution_context_allocation_strategy": ("strategy",),
        "create_runtime_cache": (),
        "set_runtime_cache": ("cache",),
    },
    "IRuntimeCache": {"serialize": (), "deserialize": ("blob",)},
}
#: Attributes that it sets, of TensorRT-RTX.
ATTRIBUTES = {"IRuntimeConfig": ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy")}

#: Names in the modules themselves.
NAMES = ("Runtime", "ILogger", "IStreamReaderV2", "ExecutionContextAllocationStrategy", "__version__", "__name__")
RTX_NAMES = ("CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy", "IRuntimeCache")

#: How the sources spell objects of those classes.
SPELLINGS = {
    "Runtime": r"self\._runtime",
    "ICudaEngine": r"(?:self\.engine|(?<![\w.])engine)(?=\.create_)",
    "IExecutionContext": r"(?:self\._context|(?<![\w.])context)",
    "IRuntimeConfig": r"(?:(?<![\w.])config|create_runtime_config\(\))",
    "IRuntimeCache": r"(?<![\w.])cache(?=\.(?:de)?serialize)|self\.cache(?=\.serialize)",
}


def parameters(method: Any) -> list[list[str]]:
    """The parameters of each overload that pybind11's docstring names, without ``self``."""
    signatures = re.findall(rf"{method.__name__}\((self: [^)]*)\)", method.__doc__)
    return [re.findall(r"(\w+): ", signature)[1:] for signature in signatures]


def assert_overload_exists(trt: ModuleType, calls: dict[str, dict[str, tuple[str, ...]]]) -> None:
    for name, methods in calls.items():
        for method, passed in methods.items():
            overloads = parameters(getattr(getattr(trt, name), method))
            assert any(tuple(overload[: len(passed)]) == passed for overload in overloads), (name, method, overloads)


def test_every_call_is_in_the_real_modules(module: ModuleType) -> None:
    for name in NAMES:
        assert hasattr(module, name), name
    assert_overload_exists(module, EVERYWHERE)
    assert hasattr(module.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert {"SET", "CUR", "END"} <= set(module.SeekPosition.__members__)
    assert {"read", "seek"} <= set(dir(module.IStreamReaderV2))
    assert {"ERROR", "INTERNAL_ERROR", "WARNING", "log"} <= set(dir(module.ILogger))
    assert Library(module).compiles_at_run_time == (module.__name__ == "tensorrt_rtx")


def test_every_call_that_is_only_for_rtx_is_there(rtx: Library) -> None:
    for name in RTX_NAMES:
        assert hasattr(rtx.module, name), name
    assert_overload_exists(rtx.module, RTX_ONLY)
    for owner, attributes in ATTRIBUTES.items():
        for attribute in attributes:
            assert isinstance(getattr(getattr(rtx.module, owner), attribute), property)
    assert hasattr(rtx.module.CudaGraphStrategy, "DISABLED")
    assert hasattr(rtx.module.DynamicShapesKernelSpecializationStrategy, "EAGER")


def test_the_sources_call_nothing_else() -> None:
    sources = "\n".join(
        Path(str(module.__file__)).read_text() for module in (tensorrt, tensorrt_cache, tensorrt_library)
    )
    for owner, spelling in SPELLINGS.items():
        used = set(re.findall(rf"(?:{spelling})\.([a-z]\w+)", sources))
        known = {*EVERYWHERE.get(owner, ()), *RTX_ONLY.get(owner, ()), *ATTRIBUTES.get(owner, ())}
        assert used == known, owner
    of_modules = set(re.findall(r"(?:(?<![\w.])trt|self\.module|library\.module)\.(\w+)", sources))
    assert of_modules == {*NAMES, *RTX_NAMES} - {"IRuntimeCache"}
