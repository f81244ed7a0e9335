"""What is counted as an installation. Installing one takes a network; ``make bench-full`` does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.benchmarks.suites import installation


def test_what_is_required_is_found_through_all_that_requires_it() -> None:
    names = {one.name.lower().replace("_", "-") for one in installation.required(("diffusers",))}
    assert {"diffusers", "safetensors", "huggingface-hub", "numpy", "filelock"} <= names
    assert "pytest" not in names  # of diffusers' extras


def test_what_is_not_installed_requires_nothing() -> None:
    assert installation.required(("no-such-distribution",)) == []


def test_ours_is_installed_from_a_copy_without_what_it_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    copied: set[str] = set()

    def run(command: list[str]) -> None:
        commands.append(command)
        if "install" in command:
            environment, source = Path(command[0]).parents[1], Path(command[-1].removesuffix("[cpu]"))
            copied.update(str(path.relative_to(source)) for path in source.rglob("*"))
            (environment / "file").write_bytes(bytes(1000))
        else:
            Path(command[-1]).mkdir()

    monkeypatch.setattr(installation, "run_command", run)
    size = installation.fresh_installation("cpu")
    assert (size.what, size.bytes) == ("installation with the cpu extra", 1000)
    assert {"pyproject.toml", "README.md", "runtime/loading.py"} <= copied
    assert not any(name.split("/")[0] in ("build", "tests", "examples", ".git") for name in copied)
