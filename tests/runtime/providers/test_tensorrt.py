"""TensorRT as far as the CUDA driver: which package runs what, what it says, and what is kept of it."""

from __future__ import annotations

import importlib
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
from latentrt.runtime.errors import CaptureError, EngineError, MissingDependencyError
from latentrt.runtime.providers import tensorrt_library
from latentrt.runtime.providers.tensorrt import EngineFile, TensorRTExecution
from latentrt.runtime.providers.tensorrt_cache import RuntimeCache, cache_path
from latentrt.runtime.providers.tensorrt_library import Library, library_for


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
    error, warning = rtx.module.ILogger.ERROR, rtx.module.ILogger.WARNING
    log.log(error, "of an earlier call")
    log.begin()
    assert log.errors() == "no reason given"
    log.log(rtx.module.ILogger.VERBOSE, "nothing to see")
    log.log(warning, "slow")
    log.log(error, "Error Code 2: OutOfMemory")
    log.log(error, "broken")
    assert [message.getMessage() for message in caplog.records][-2:] == [
        "tensorrt_rtx: Error Code 2: OutOfMemory", "tensorrt_rtx: broken"
    ]  # fmt: skip
    assert log.errors() == "Error Code 2: OutOfMemory; broken"
    log.begin()
    of_the_library = threading.Thread(target=log.log, args=(error, "broken elsewhere"))
    of_the_library.start()
    of_the_library.join()
    assert log.errors() == "broken elsewhere"
    log.log(error, "broken here")
    assert log.errors() == "broken here"


def test_threads_that_load_engines_at_once_give_the_library_one_logger() -> None:
    class SlowLogger:
        def __init__(self) -> None:
            time.sleep(0.02)

    module = ModuleType("slow")
    module.ILogger = SlowLogger  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(tensorrt_library.log_of, [Library(module)] * 4))
    assert all(log is logs[0] for log in logs)


class Context:
    """A context of no engine, which takes what it is given, and knows of each call."""

    def __init__(self, *, goes_together: bool = True):
        self.profiles: list[int] = []
        self._goes_together = goes_together

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profiles.append(profile_index)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return True

    def infer_shapes(self) -> list[str]:
        if not self._goes_together:
            raise RuntimeError("what pybind11 makes of it")
        return []

    def update_device_memory_size_for_shapes(self) -> int:
        return 0


def execution_of(context: Context, profile: int = 0, *, capturable: bool = True) -> TensorRTExecution:
    library = SimpleNamespace(
        name="tensorrt_rtx",
        version="1.7",
        create_context=lambda engine, cache: context,
        is_capturable=lambda context, stream: capturable,
    )
    engine: Any = SimpleNamespace(
        component="denoiser",
        contract=SimpleNamespace(outputs=()),
        library=library,
        device=SimpleNamespace(stream=SimpleNamespace(handle=0)),
        engine=None,
        cache=None,
        listen=lambda: None,
        failed=lambda what: EngineError(f"denoiser: {what}"),
    )
    return TensorRTExecution(engine, {"sample": (2, 4, 65, 64)}, {"rows": 2}, profile)


def test_shapes_that_the_engine_refuses_together_are_an_error_of_ours() -> None:
    with pytest.raises(EngineError, match="denoiser: these shapes do not go together"):
        execution_of(Context(goes_together=False))


@pytest.mark.parametrize("profile", [0, 2])
def test_every_context_is_told_its_profile(profile: int) -> None:
    """Only the first of an engine's contexts has the first profile of itself, where contexts do not share them."""
    context = Context()
    execution_of(context, profile)
    assert context.profiles == [profile]


def test_sizes_that_are_not_recorded_are_told_by_name() -> None:
    assert execution_of(Context()).capturable
    with pytest.raises(CaptureError, match=r"denoiser: tensorrt_rtx 1.7 cannot be recorded \| received: rows 2"):
        _ = execution_of(Context(), capturable=False).capturable


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
