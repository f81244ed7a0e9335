"""TensorRT as far as the CUDA driver: every name and signature against the real modules, and what needs no GPU."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from latentrt.runtime.bundles.manifest import EngineRecord
from latentrt.runtime.device.driver import gpu_target
from latentrt.runtime.errors import EngineError, MissingDependencyError
from latentrt.runtime.providers import tensorrt, tensorrt_cache, tensorrt_library
from latentrt.runtime.providers.tensorrt import EngineFile, TensorRTExecution
from latentrt.runtime.providers.tensorrt_cache import RuntimeCache, cache_path
from latentrt.runtime.providers.tensorrt_library import Library, library_for

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


@pytest.fixture(params=["tensorrt_rtx", "tensorrt_lean", "tensorrt"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the modules that is installed here."""
    trt: ModuleType = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return trt


@pytest.fixture
def rtx() -> Library:
    return Library(pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine"))


@pytest.fixture
def lean() -> Library:
    return Library(pytest.importorskip("tensorrt_lean", reason="tensorrt-lean is not installed"))


def parameters(method: Any) -> list[list[str]]:
    """The parameters of each overload that pybind11's docstring names, without ``self``."""
    signatures = re.findall(rf"{method.__name__}\((self: [^)]*)\)", method.__doc__)
    return [re.findall(r"(\w+): ", signature)[1:] for signature in signatures]


def check(trt: ModuleType, calls: dict[str, dict[str, tuple[str, ...]]]) -> None:
    for name, methods in calls.items():
        for method, passed in methods.items():
            overloads = parameters(getattr(getattr(trt, name), method))
            assert any(tuple(overload[: len(passed)]) == passed for overload in overloads), (name, method, overloads)


def test_every_call_is_in_the_real_modules(module: ModuleType) -> None:
    for name in NAMES:
        assert hasattr(module, name), name
    check(module, EVERYWHERE)
    assert hasattr(module.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert {"SET", "CUR", "END"} <= set(module.SeekPosition.__members__)
    assert {"read", "seek"} <= set(dir(module.IStreamReaderV2))
    assert {"ERROR", "INTERNAL_ERROR", "WARNING", "log"} <= set(dir(module.ILogger))
    assert Library(module).compiles_at_run_time == (module.__name__ == "tensorrt_rtx")


def test_every_call_that_is_only_for_rtx_is_there(rtx: Library) -> None:
    for name in RTX_NAMES:
        assert hasattr(rtx.module, name), name
    check(rtx.module, RTX_ONLY)
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


def record(provider: str, version: str, *, compatible: bool = False) -> EngineRecord:
    return EngineRecord(
        component="denoiser", provider=provider, provider_version=version, path="engines/denoiser.engine",
        weights=(), gate=(), key={}, targets=("sm90",), version_compatible=compatible,
    )  # fmt: skip


def test_which_package_runs_which_engine(rtx: Library, lean: Library) -> None:
    assert rtx.runs(record("tensorrt-rtx", rtx.version))
    assert not rtx.runs(record("tensorrt-rtx", "1.2.0.54"))
    assert not lean.runs(record("tensorrt", lean.version)), "it has none of the code that such an engine wants"
    assert lean.runs(record("tensorrt", lean.version, compatible=True))
    assert not lean.runs(record("tensorrt", "10.9.0.34", compatible=True))


def test_an_engine_that_no_installed_package_runs(lean: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "installed", lambda provider: [lean])
    assert library_for(record("tensorrt", lean.version, compatible=True)) is lean
    with pytest.raises(EngineError) as caught:
        library_for(record("tensorrt", lean.version))
    assert caught.value.subject == f"denoiser: an engine of tensorrt {lean.version} does not run here"
    assert caught.value.received == f"tensorrt_lean {lean.version}"
    assert caught.value.expected == f"tensorrt {lean.version}"
    assert str(caught.value.remedy).endswith("--provider tensorrt --version-compatible")
    with pytest.raises(EngineError, match=r"expected: tensorrt 99.0.0.1 or tensorrt_lean 99.0.0.1 \| .* tensorrt$"):
        library_for(record("tensorrt", "99.0.0.1", compatible=True))


def test_an_engine_of_another_version_of_rtx(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "installed", lambda provider: [rtx])
    with pytest.raises(EngineError, match=rf"received: tensorrt_rtx {rtx.version} \| expected: tensorrt_rtx 1.2.0.54"):
        library_for(record("tensorrt-rtx", "1.2.0.54"))


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ("tensorrt", r"tensorrt needs tensorrt or tensorrt_lean .*NVIDIA's package index .* or .*\[tensorrt-lean\]"),
        ("tensorrt-rtx", r"tensorrt-rtx needs tensorrt_rtx \| install it: pip install 'latentrt\[tensorrt-rtx\]'"),
    ],
)
def test_a_package_that_is_not_installed(provider: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=says):
        library_for(record(provider, "11.4.0.106"))


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.11: cannot open shared object file", name="tensorrt"),
        OSError("libnvinfer.so.11: cannot open shared object file"),
        ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings"),
    ],
)
def test_a_package_of_which_a_part_is_missing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(EngineError, match=r"tensorrt is installed and cannot be imported \| received: .*"):
        library_for(record("tensorrt", "11.4.0.106"))


@pytest.mark.skipif(gpu_target() is not None, reason="there is a GPU here")
def test_no_runtime_is_made_without_a_gpu(module: ModuleType) -> None:
    """tensorrt-lean would make one, and crash when the process ends."""
    script = (
        "import importlib\n"
        "from latentrt.runtime.errors import EngineError\n"
        "from latentrt.runtime.providers.tensorrt_library import Library\n"
        f"library = Library(importlib.import_module({module.__name__!r}))\n"
        "try:\n    library.create_runtime()\nexcept EngineError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{module.__name__} needs an NVIDIA GPU | received: no driver")


def test_what_the_library_says_reaches_errors_and_the_log(rtx: Library, caplog: pytest.LogCaptureFixture) -> None:
    log = tensorrt_library.log_of(rtx)
    assert log is tensorrt_library.log_of(Library(rtx.module)), "the library keeps the first that it is given"
    log.log(rtx.module.ILogger.VERBOSE, "nothing to see")
    log.log(rtx.module.ILogger.WARNING, "slow")
    log.log(rtx.module.ILogger.ERROR, "broken")
    assert [message.getMessage() for message in caplog.records] == ["tensorrt_rtx: slow", "tensorrt_rtx: broken"]
    assert log.take_error() == "broken"
    assert log.take_error() == "no reason given"
    of_the_library = threading.Thread(target=log.log, args=(rtx.module.ILogger.ERROR, "broken elsewhere"))
    of_the_library.start()
    of_the_library.join()
    assert log.take_error() == "broken elsewhere"


def test_threads_that_load_engines_at_once_give_the_library_one_logger() -> None:
    class SlowLogger:
        def __init__(self) -> None:
            time.sleep(0.02)

    module = ModuleType("slow")
    module.ILogger = SlowLogger  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(tensorrt_library.log_of, [Library(module)] * 4))
    assert all(log is logs[0] for log in logs)


def test_shapes_that_the_engine_refuses_together_are_an_error_of_ours() -> None:
    class Context:
        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            return True

        def infer_shapes(self) -> list[str]:
            raise RuntimeError("what pybind11 makes of it")

    engine: Any = SimpleNamespace(
        contract=SimpleNamespace(outputs=()),
        library=SimpleNamespace(create_context=lambda engine, cache: Context()),
        device=SimpleNamespace(stream=SimpleNamespace(handle=0)),
        engine=None,
        cache=None,
        failed=lambda what: EngineError(f"denoiser: {what}"),
    )
    with pytest.raises(EngineError, match="denoiser: these shapes do not go together"):
        TensorRTExecution(engine, {"sample": (2, 4, 65, 64)}, {}, 0)


def test_an_engine_is_read_from_where_its_reader_is() -> None:
    file = EngineFile(memoryview(b"0123456789"))
    assert [bytes(file.read(size, 0)) for size in (3, 4, 2)] == [b"012", b"3456", b"78"]
    assert file.seek_from("CUR", -2)
    assert bytes(file.read(3, 0)) == b"789"
    assert bytes(file.read(3, 0)) == b""
    assert file.seek_from("END", -1)
    assert bytes(file.read(3, 0)) == b"9", "no more than there is"
    assert file.seek_from("SET", 1)
    assert bytes(file.read(1, 0)) == b"1"
    assert not file.seek_from("SET", 11)
    assert bytes(file.read(1, 0)) == b"2", "a seek that cannot be leaves it where it is"


class Kernels:
    """What TensorRT-RTX keeps compiled kernels in."""

    def __init__(self, content: bytes | None = b"", accepts: bool = True):
        self.content = content
        self.accepts = accepts

    def deserialize(self, blob: bytes) -> bool:
        if self.accepts:
            self.content = blob
        return self.accepts

    def serialize(self) -> bytes | None:
        return self.content


def test_compiled_kernels_are_kept_for_each_version_gpu_and_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_path("tensorrt_rtx", "1.7.1.116", "NVIDIA GeForce RTX 4090", "ab" * 32)
    expected = "latentrt/tensorrt_rtx-1.7.1.116/NVIDIA-GeForce-RTX-4090/abababababababab.cache"
    assert path == tmp_path / expected
    for unusable in ("", "relative/path"):  # the specification of base directories: both are to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_path("tensorrt_rtx", "1", "GPU", "ab").is_relative_to(Path("~/.cache").expanduser())


def test_compiled_kernels_are_written_when_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "kernels" / "one.cache"
    cache = RuntimeCache(Kernels(b"first"), path)
    cache.save()
    assert path.read_bytes() == b"first"
    path.unlink()
    cache.save()
    assert not path.exists(), "nothing new"
    cache.cache.content = b"first and second"
    cache.save()
    again = RuntimeCache(Kernels(), path)
    assert again.cache.content == b"first and second"
    written = path.stat().st_mtime_ns
    again.save()
    assert path.stat().st_mtime_ns == written
    assert [file.name for file in path.parent.iterdir()] == ["one.cache"], "nothing is left beside it"


def test_kernels_of_another_driver_are_compiled_again_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "one.cache"
    path.write_bytes(b"of another driver")
    cache = RuntimeCache(Kernels(b"new", accepts=False), path)
    cache.save()
    assert path.read_bytes() == b"new"


def test_kernels_that_the_library_does_not_hand_out_are_not_kept(tmp_path: Path) -> None:
    RuntimeCache(Kernels(None), tmp_path / "one.cache").save()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_only_slow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kernels").write_text("a file where a folder should be")
    cache = RuntimeCache(Kernels(b"new"), tmp_path / "kernels" / "one.cache")
    cache.save()
    cache.save()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once"
    assert "compiled kernels are not kept" in caplog.text
