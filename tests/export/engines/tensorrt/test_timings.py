"""Measurements of TensorRT's builder are kept per version and GPU. Only TensorRT takes any: it is stood in for here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentrt.export.build_engine import EngineOptions, compiler_for
from latentrt.export.engines.tensorrt.build import BuilderOptions
from latentrt.export.engines.tensorrt.library import Library
from latentrt.export.engines.tensorrt.timings import read_timings, timing_file, write_timings
from latentrt.runtime.errors import ExportError, OutputError, RequestError


@dataclass
class Cache:
    content: bytes

    def serialize(self) -> bytes:
        return self.content


@dataclass
class Config:
    """TensorRT's builder config, as far as timings go: a build adds to what it was given."""

    takes: bool = True
    caches: list[Cache] = field(default_factory=list)

    def create_timing_cache(self, content: bytes) -> Cache:
        return Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.caches.append(cache)
        return self.takes

    def get_timing_cache(self) -> Cache:
        return Cache(self.caches[-1].content + b"+")


def build(file: Path) -> bytes:
    """What a build reads, after which the file holds more."""
    config = Config()
    cache = read_timings(config, file)
    write_timings(config, file)
    return bytes(cache.content)


def test_what_a_build_measures_is_there_for_the_next(tmp_path: Path) -> None:
    file = tmp_path / "timings" / "a.timings"
    assert [build(file), build(file), build(file)] == [b"", b"+", b"++"]
    assert [path.name for path in file.parent.iterdir()] == ["a.timings"]


def test_a_version_and_a_gpu_have_a_file_of_their_own(tmp_path: Path) -> None:
    library = Library("tensorrt", SimpleNamespace(__version__="11.4.0"))
    newer = Library("tensorrt", SimpleNamespace(__version__="11.5.0"))
    assert timing_file(tmp_path, library, ("sm90",)) == tmp_path / "tensorrt-11.4.0-sm90.timings"
    files = {timing_file(tmp_path, kind, (gpu,)) for kind in (library, newer) for gpu in ("sm80", "sm90")}
    assert len(files) == 4


def test_a_write_that_fails_leaves_the_old_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.timings"
    build(file)

    def full(self: Path, content: memoryview) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"a.timings: cannot be written .* No space left"):
        build(file)
    assert file.read_bytes() == b"+"
    assert list(tmp_path.iterdir()) == [file]


def test_measurements_that_the_library_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a.timings: .* delete the file"):
        read_timings(Config(takes=False), tmp_path / "a.timings")


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("--version-compatible", BuilderOptions(version_compatible=True)),
        ("--timing-cache", BuilderOptions(timing_cache=Path("timings"))),
    ],
)
def test_rtx_refuses_what_only_tensorrt_has_before_anything_is_built(option: str, settings: BuilderOptions) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")
    with pytest.raises(RequestError, match=rf"{option} .* --provider tensorrt-rtx .* expected: --provider tensorrt"):
        compiler_for(EngineOptions("tensorrt-rtx", ("sm89",), builder=settings))
