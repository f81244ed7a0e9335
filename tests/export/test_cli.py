"""``latentrt build-engines`` as its users see it."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.runtime.bundles.bundle import open_bundle

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_help_names_every_option(latentrt: Run) -> None:
    done = latentrt("build-engines", "--help")
    assert done.returncode == 0
    for option in (
        "CHECKPOINT", "--out", "--provider", "--precision", "--aspects", "--batch", "--component", "--onnx-only",
        "--force", "--json", "--vae", "--tiny-vae", "--text-encoder", "--tokenizer-3", "--prediction-type",
        "--skip-layers",
    ):  # fmt: skip
        assert option in done.stdout


def test_help_does_not_wait_for_numpy() -> None:
    found = "import sys, latentrt.export.cli; print(sorted({'numpy', 'onnx_ir', 'torch', 'PIL'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-P", "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_build_tells_its_progress_and_a_rebuild_that_it_reused(
    latentrt: Run, tiny_checkpoint: Path, tmp_path: Path, text_bundle: Path
) -> None:
    arguments = ("build-engines", tiny_checkpoint, "--out", tmp_path / "bundle", "--component", "text_encoder")
    done = latentrt(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "importing torch and diffusers"
    assert lines[1].startswith("profile 0: 64x64..96x96..144x144, rows 1..2..16, ")
    assert lines[2:6] == [f"text_encoder: {stage}" for stage in ("export", "gate", "compile", "gate")]
    assert lines[6].startswith("text_encoder: built, ")
    assert len(lines) == 7, done.stderr
    assert "text_encoder" in done.stdout
    assert "built" in done.stdout
    assert f"{tmp_path / 'bundle'}: sdxl, " in done.stdout

    # Another process and another place give the same bytes.
    assert open_bundle(tmp_path / "bundle").hash == open_bundle(text_bundle).hash

    again = latentrt(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    report = json.loads(again.stdout)
    assert report["bundle"] == str(tmp_path / "bundle")
    assert report["components"]["text_encoder"]["why"] == "reused"
    assert report["components"]["text_encoder"]["seconds"] < report["seconds"]
    assert "onnx/text_encoder.onnx" in report["files"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("nowhere",),
            "error: nowhere: no checkpoint here | received: no such file or folder | expected: a diffusers folder, ",
        ),
        (("CHECKPOINT", "--batch", "8:1"), "error: --batch | received: 8:1 | expected: MIN:OPT:MAX"),
        (("CHECKPOINT", "--precision", "int4"), "error: --precision | received: int4 | expected: fp32 or fp16 or bf16"),
        (("CHECKPOINT", "--provider", "cuda"), "error: --provider | received: cuda"),
        (("CHECKPOINT", "--target-sm", "89,abc"), "error: --target-sm | received: 89,abc | expected: compute capab"),
        (("CHECKPOINT", "--target-sm", ","), "error: --target-sm | received: , | expected: compute capabilities"),
    ],
)
def test_input_that_cannot_be_used_exits_2_with_one_line(
    latentrt: Run, emoji_checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    given = [emoji_checkpoint if argument == "CHECKPOINT" else argument for argument in arguments]
    done = latentrt("build-engines", *given, "--out", tmp_path / "bundle")
    assert done.returncode == 2
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_exits_1_with_one_line(latentrt: Run, checkpoint_copy: Path, tmp_path: Path) -> None:
    path = checkpoint_copy / "text_encoder" / "model.safetensors"
    weights = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    done = latentrt("build-engines", checkpoint_copy, "--out", tmp_path / "bundle", "--component", "text_encoder")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: text_encoder: the checkpoint's own network does not compute")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundle").exists()


# --- a real build that is stopped -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGINT, "tokenizers"),
        (signal.SIGTERM, "tokenizers"),
        (signal.SIGKILL, "tokenizers"),  # while torch exports
        (signal.SIGKILL, "engines"),  # while the engine is compiled and compared
    ],
)
def test_a_build_stopped_by_a_signal(
    start_latentrt: Callable[..., subprocess.Popen[str]],
    tiny_checkpoint: Path,
    text_bundle_copy: Path,
    number: signal.Signals,
    stage: str,
) -> None:
    out = text_bundle_copy
    before = open_bundle(out)
    process = start_latentrt("build-engines", tiny_checkpoint, "--out", out, "--component", "text_encoder", "--force")
    deadline = time.monotonic() + 120
    while not (out.parent / f".{out.name}.partial" / stage).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)

    assert process.returncode not in (0, 2)
    assert "Traceback" not in messages
    assert open_bundle(out).hash == before.hash
    if number == signal.SIGKILL:  # what it left is not trusted
        assert (out.parent / f".{out.name}.partial").exists()
        shutil.rmtree(out / "onnx")  # so that the next build would gain from what it must not trust
        bundle_from_checkpoint(tiny_checkpoint, out, BuildOptions(components=("text_encoder",)))
        assert open_bundle(out).hash == before.hash
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_build_on_a_disk_that_fills_up(
    latentrt: Callable[..., subprocess.CompletedProcess[str]], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    out = tmp_path / "new" / "bundle"
    arguments = ("build-engines", tiny_checkpoint, "--out", out, "--component", "text_encoder")
    done = latentrt(*arguments, preexec_fn=limit)
    assert done.returncode == 2
    assert "cannot be written | received: File too large | make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
