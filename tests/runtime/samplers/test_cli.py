"""``latentrt samplers``."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from latentrt.runtime.cli.main import main
from latentrt.runtime.samplers import sampler_names, schedule_names
from latentrt.runtime.samplers.registry import SAMPLERS


def test_lists_all_samplers_and_schedules(capsys: pytest.CaptureFixture[str]):
    assert main(["samplers"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*sampler_names(), *schedule_names()))
    assert all(sampler.diffusers_class in shown for sampler in SAMPLERS)
    assert "…" not in shown


def test_json(capsys: pytest.CaptureFixture[str]):
    assert main(["samplers", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [sampler["name"] for sampler in described["samplers"]] == list(sampler_names())
    assert [schedule["name"] for schedule in described["schedules"]] == list(schedule_names())
    heun = next(sampler for sampler in described["samplers"] if sampler["name"] == "heun")
    assert (heun["order"], heun["evaluations_per_step"], heun["stochastic"]) == (2, 2, False)
    assert heun["diffusers_class"] == "HeunDiscreteScheduler"


def test_chosen_samplers_by_any_name(capsys: pytest.CaptureFixture[str]):
    assert main(["samplers", "DPM++ 2M Karras", "EulerDiscreteScheduler", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [sampler["name"] for sampler in described["samplers"]] == ["dpmpp_2m", "euler"]


def test_unknown_names_exit_with_two(capsys: pytest.CaptureFixture[str]):
    assert main(["samplers", "eulr"]) == 2
    assert "euler" in capsys.readouterr().err


def test_plot(tmp_path: Path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "sigmas.png"
    config = tmp_path / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": "DDIMScheduler", "clip_sample": False}))
    assert main(["samplers", "euler", "heun", "--schedule", "karras", "--schedule", "beta", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert main(["samplers", "--config", str(config), "--plot", str(tmp_path / "own.svg")]) == 0
    assert "<svg" in (tmp_path / "own.svg").read_text()


def drawn(arguments: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """The lines of a plot, by their labels."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    lines: dict[str, list[float]] = {}

    def look(self: Any, path: Path) -> None:
        axes = self.axes[0]
        lines.update({line.get_label().replace("\n", " "): list(line.get_ydata()) for line in axes.lines})
        assert all(float(tick).is_integer() for tick in axes.get_xticks())

    monkeypatch.setattr(figure, "savefig", look)
    assert main(["samplers", *arguments, "--plot", str(path)]) == 0
    return lines


def test_without_names_a_plot_has_every_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = drawn([], tmp_path / "a.jpg", monkeypatch)
    assert {name for label in lines for name in label.split() if not name.startswith("euler")} >= {"karras", "beta"}
    assert all(any(name in label for label in lines) for name in schedule_names())


def test_samplers_that_share_their_sigmas_share_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = drawn(["euler", "heun", "ddim", "--steps", "7"], tmp_path / "a.png", monkeypatch)
    assert list(lines) == ["euler, heun: linspace", "ddim: leading"]
    assert [len(sigmas) for sigmas in lines.values()] == [7, 7]


@pytest.mark.parametrize("name", ["missing/sigmas.png", "sigmas.txt2", "sigmas"])
def test_plots_that_cannot_be_written(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    assert main(["samplers", "--plot", str(tmp_path / name)]) == 2
    assert "the plot cannot be written" in capsys.readouterr().err


def test_a_plot_without_matplotlib(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without_matplotlib(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    assert main(["samplers", "--plot", str(tmp_path / "sigmas.png")]) == 2
    assert "matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["not json", "[1, 2]"])
def test_configs_that_cannot_be_read(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "scheduler_config.json"
    config.write_text(content)
    assert main(["samplers", "--config", str(config), "--plot", str(tmp_path / "a.png")]) == 2
    assert main(["samplers", "--config", str(tmp_path / "none.json"), "--plot", str(tmp_path / "a.png")]) == 2
    assert "scheduler_config.json" in capsys.readouterr().err
