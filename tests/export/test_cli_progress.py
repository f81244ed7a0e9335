"""What ``latentrt build-engines`` says of a build."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from latentrt.export.cli_progress import BuildProgress, outcome, planned, summary
from latentrt.export.events import DAMAGED, FORCED, NEW, REUSED, BuildEvent
from latentrt.runtime.bundles.bundle import open_bundle


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (NEW, "built"),
        (REUSED, "reused"),
        (FORCED, "rebuilt because of --force"),
        (DAMAGED, "rebuilt because its files were damaged"),
        ("profile.max changed 1024x1024 -> 1536x1536", "rebuilt because profile.max changed 1024x1024 -> 1536x1536"),
    ],
)
def test_outcomes(reason: str, expected: str) -> None:
    assert outcome(reason) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(NEW, "would be built: new"), (REUSED, "reused"), (FORCED, "would be rebuilt because of --force")],
)
def test_outcomes_of_a_dry_run(reason: str, expected: str) -> None:
    assert planned(reason) == expected


def test_lines_of_a_build(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress(quiet=False) as progress:
        progress.event(BuildEvent("", "wait"))
        progress.event(BuildEvent("", "check"))
        progress.event(BuildEvent("", "drop", detail="made by a newer LatentRT: nothing of it is taken over"))
        progress.event(BuildEvent("denoiser", "compile"))
        progress.event(BuildEvent("denoiser", "compile", detail="tactics", fraction=0.5))
        progress.event(BuildEvent("denoiser", "drop", detail="tensorrt engine for sm89 dropped because of this"))
        progress.event(BuildEvent("denoiser", "done", 2.5, NEW, peak_memory=1_500_000_000, warnings=("slow", "slow")))
    assert capsys.readouterr().err.splitlines() == [
        "waiting for another build of this bundle to end",
        "made by a newer LatentRT: nothing of it is taken over",
        "denoiser: compile",
        "denoiser: tensorrt engine for sm89 dropped because of this",
        "denoiser: built, 2.5 s, 1.5 GB",
        "  slow",
    ]
    assert progress.dropped[1:] == ["denoiser: tensorrt engine for sm89 dropped because of this"]


def test_the_summary_is_about_the_provider_that_was_asked_for(
    text_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_bundle(text_bundle).manifest
    (cpu,) = manifest.engines
    rtx = msgspec.structs.replace(cpu, provider="tensorrt-rtx", gate=(), not_run="there is no GPU here")
    manifest = msgspec.structs.replace(manifest, engines=(cpu, rtx))
    with BuildProgress(quiet=True) as progress:
        progress.event(BuildEvent("text_encoder", "done", 2.5, NEW))
        progress.event(BuildEvent("kernels", "done", 2.5, NEW))

    def text(provider: str | None) -> str:
        summary(text_bundle, manifest, provider, progress)
        return capsys.readouterr().out

    assert "engine" in text("onnxruntime-cpu")
    assert "not compared" not in text("onnxruntime-cpu")
    assert "engine not compared (text_encoder): there is no GPU here\n" in text("tensorrt-rtx")
    assert "│ graph " in text("tensorrt-rtx")
    assert "│ graph " in text(None)
