"""The command line as a user types it: real processes, their output, their exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from latentrt.runtime.cli.main import main

LATENTRT = Path(sys.executable).with_name("latentrt")


def latentrt(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(LATENTRT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


def test_help_lists_every_command_without_importing_them() -> None:
    done = latentrt("--help")
    assert done.returncode == 0
    for name in ("build-engines", "generate", "inspect", "samplers", "bench"):
        assert name in done.stdout


@pytest.mark.parametrize("name", ["build-engines", "generate", "inspect", "samplers", "bench"])
def test_every_command_explains_itself(name: str) -> None:
    done = latentrt(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"latentrt {name}" in done.stdout


def test_version() -> None:
    assert latentrt("--version").stdout.startswith("latentrt 0.")


def test_an_unknown_command_names_the_nearest() -> None:
    done = latentrt("generat")
    assert done.returncode == 2
    assert "did you mean generate?" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_writes_a_picture_and_inspect_reads_it(emoji_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "fox.png"
    done = latentrt(
        "generate", emoji_bundle, "a fox on a blue background", "-o", out, "--size", "160x96", "--steps", 4,
        "--seed", 7, "--sampler", "dpmpp_2m", "--schedule", "karras", "--guidance-scale", 4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{out}  seed 7" in done.stdout
    with Image.open(out) as picture:
        assert picture.size == (160, 96)
    shown = latentrt("inspect", out)
    assert shown.returncode == 0
    assert "a fox on a blue background" in shown.stdout
    assert "Seed: 7, Size: 160x96" in shown.stdout
    record = json.loads(latentrt("inspect", out, "--json").stdout)["provenance"]
    assert record["sampler"] == "dpmpp_2m"
    assert record["schedule"] == "karras"


def test_generate_speaks_json(emoji_bundle: Path, tmp_path: Path) -> None:
    done = latentrt(
        "generate", emoji_bundle, "a fox", "an owl", "-o", tmp_path / "a.png", "--steps", 2, "--json", "-n", 2
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [Path(name).name for name in content["images"]] == ["a-0.png", "a-1.png", "a-2.png", "a-3.png"]
    assert len(content["seeds"]) == 4
    assert content["seconds"]["total"] > 0


def test_inspect_shows_a_bundle(emoji_bundle: Path) -> None:
    done = latentrt("inspect", emoji_bundle)
    assert done.returncode == 0, done.stderr
    for text in (
        "denoiser",
        "vae_encoder",
        "onnxruntime-cpu",
        "float32[rows, 4, height, width]",
        "128x128",
    ):
        assert text in done.stdout
    content = json.loads(latentrt("inspect", emoji_bundle, "--json").stdout)
    assert set(content["manifest"]["components"]) == {
        "text_encoder", "text_encoder_2", "denoiser", "vae_decoder", "vae_encoder",
    }  # fmt: skip
    gates = [figures for engine in content["manifest"]["engines"] for figures in engine["gate"]]
    assert all(figures["cosine_distance"] < 1e-6 and figures["non_finite"] == 0 for figures in gates)


def test_inspect_shows_what_each_profile_of_an_engine_is_for(
    emoji_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    content = json.loads((emoji_bundle / "manifest.json").read_text())
    engine = next(engine for engine in content["engines"] if engine["component"] == "denoiser")
    ranges = content["components"]["denoiser"]["profile"]
    engine["profiles"] = [
        {**ranges, "height": dict.fromkeys(("min", "opt", "max"), side)} for side in (12, 20)
    ]  # as of --profiles buckets
    (bundle / "manifest.json").write_text(json.dumps(content))
    assert main(["inspect", str(bundle), "--no-verify"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "onnxruntime-cpu for" in line]
    assert ["height 12," in line or line.endswith("height 12") for line in shown] == [True, False]
    assert len(shown) == 2


BAD: dict[str, tuple[list[str], str]] = {
    "no bundle": (["generate", "nowhere", "a fox", "-o", "a.png"], "no bundle here"),
    "size": (["generate", "BUNDLE", "a fox", "-o", "a.png", "--size", "big"], "--size | received: big"),
    "size off the stride": (["generate", "BUNDLE", "a fox", "-o", "a.png", "--size", "100x128"], "the nearest is 96"),
    "steps": (
        ["generate", "BUNDLE", "a fox", "-o", "a.png", "--steps", "10000"],
        "--steps | received: 10000",
    ),
    "sampler": (["generate", "BUNDLE", "a fox", "-o", "a.png", "--sampler", "eulr"], "euler"),
    "guidance": (
        ["generate", "BUNDLE", "a fox", "-o", "a.png", "--guidance-scale", "nan"],
        "error: --guidance-scale | received: nan",
    ),
    "output folder": (["generate", "BUNDLE", "a fox", "-o", "none/a.png"], "none/a.png: cannot be written"),
    "inspect": (["inspect", "nowhere"], "no bundle here"),
    "no provenance": (["inspect", "plain.png"], "no provenance"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, emoji_bundle: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    done = latentrt(*(str(emoji_bundle) if text == "BUNDLE" else text for text in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["plain.png"], "nothing was written"


def test_a_missing_argument_is_explained() -> None:
    done = latentrt("generate")
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


#: Runs a command that is sent a signal in a ``__del__``, where Python drops what the handler raises.
_DROPPED = """
import os, sys, time
from latentrt.runtime.cli import main as cli

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))

def run(arguments):
    Dropping()
    time.sleep(60)

cli.dispatch = run
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_where_python_drops_exceptions(number: signal.Signals) -> None:
    def interruptible() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it

    done = subprocess.run(
        [sys.executable, "-P", "-c", _DROPPED, str(int(number))],
        capture_output=True, text=True, check=False, timeout=30, preexec_fn=interruptible,
    )  # fmt: skip
    assert done.returncode == 128 + number
    assert done.stderr == ("interrupted\n" if number == signal.SIGINT else "")
