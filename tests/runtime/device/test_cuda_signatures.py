"""What our code asks of cuda.core and of the driver's bindings, against the real modules: they import without a GPU."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

core = pytest.importorskip("cuda.core", reason="pip install 'latentrt[cuda]'")

from cuda.bindings import driver  # noqa: E402
from cuda.core.utils import StridedMemoryView  # noqa: E402

from latentrt.runtime.device import cuda, cuda_memory  # noqa: E402

#: What an expression is, in the class or function that it stands in.
OBJECTS: dict[tuple[str, str], Any] = {
    ("CudaEvent", "self.core"): core.Event,
    ("CudaStream", "core"): core.Stream,
    ("CudaStream", "self.core"): core.Stream,
    ("CudaDevice", "core"): core.Device,
    ("CudaDevice", "Device(self._ordinal)"): core.Device,
    ("CudaDevice", "self._core_stream"): core.Stream,
    ("CudaDevice", "ObjectCode"): core.ObjectCode,
    ("CudaDevice", "module"): core.ObjectCode,
    ("CudaDevice", "StridedMemoryView"): StridedMemoryView,
    ("CudaDevice", "view"): StridedMemoryView,
    ("CudaBuffer", "CoreBuffer"): core.Buffer,
    ("CudaBuffer", "StridedMemoryView"): StridedMemoryView,
    ("CudaBuffer", "view"): StridedMemoryView,
}
OF_THE_DRIVER = "driver"


def uses(source: Path) -> Iterator[tuple[str, Any, str, ast.Call | None]]:
    """Every attribute of an object of theirs: where, of what, its name, and the call of it if it is called."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for scope in tree.body:
        if not isinstance(scope, ast.ClassDef | ast.FunctionDef):
            continue
        calls = {id(node.func): node for node in ast.walk(scope) if isinstance(node, ast.Call)}
        for node in ast.walk(scope):
            if not isinstance(node, ast.Attribute):
                continue
            base = ast.unparse(node.value)
            owner = driver if base == OF_THE_DRIVER else OBJECTS.get((scope.name, base))
            if owner is not None:
                yield f"{scope.name}: {base}", owner, node.attr, calls.get(id(node))


USES = [use for module in (cuda, cuda_memory) for use in uses(Path(inspect.getfile(module)))]


@pytest.mark.parametrize(("where", "owner", "name", "call"), USES, ids=[f"{use[0]}.{use[2]}" for use in USES])
def test_it_is_there_and_takes_what_we_give(where: str, owner: Any, name: str, call: ast.Call | None) -> None:
    found = inspect.getattr_static(owner, name)
    assert found is not None
    if call is None or inspect.isclass(found):
        return
    function = getattr(owner, name)
    is_method = inspect.isclass(owner) and not isinstance(found, staticmethod | classmethod)
    given = [object()] * (len(call.args) + is_method)
    inspect.signature(function).bind(*given, **{keyword.arg: object() for keyword in call.keywords})


def test_every_object_of_theirs_was_looked_at() -> None:
    seen = {where for where, *_ in USES}
    assert seen >= {f"{scope}: {expression}" for scope, expression in OBJECTS}
    assert {name for _, owner, name, _ in USES if owner is driver} >= {
        "cuMemAlloc", "cuMemFree", "cuMemAllocHost", "cuMemFreeHost", "cuMemGetInfo", "cuMemsetD8Async",
        "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuGetErrorName", "cuGetErrorString",
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphUpload", "cuGraphLaunch",
        "cuGraphDestroy", "cuGraphExecDestroy",
    }  # fmt: skip


def test_what_is_made_without_a_gpu_is_made() -> None:
    config = core.LaunchConfig(grid=(3, 2, 1), block=128, shmem_size=1024)
    assert (config.grid, config.block, config.shmem_size) == ((3, 2, 1), (128, 1, 1), 1024)
    assert core.StreamOptions(nonblocking=True).nonblocking
    assert not core.EventOptions().timing_enabled
    assert inspect.signature(core.launch).bind(object(), config, object(), *[np.int32(1)] * 5)


def test_a_view_of_memory_has_the_shape_and_dtype_that_we_say() -> None:
    """As ``CudaBuffer.__dlpack__`` makes one, of the host's memory."""
    array = np.arange(12, dtype=np.float32)
    memory = core.Buffer.from_handle(array.ctypes.data, array.nbytes, owner=array)
    assert int(memory.handle) == array.ctypes.data
    assert memory.size == 48


def test_errors_have_names() -> None:
    assert driver.CUresult.CUDA_SUCCESS == 0
    assert driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY == 2
