"""``latentrt generate`` with pictures, settings and a refiner; its texts as values."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentrt.runtime import Pipeline
from latentrt.runtime.cli.values import interval_from_text, options_from_texts, picture_from_file, size_from_text
from latentrt.runtime.errors import RequestError


def latentrt(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "latentrt.runtime.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


def save_picture(path: Path, width: int = 160, height: int = 96) -> Path:
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 96)], axis=-1)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def test_everything_that_decides_a_picture_reaches_the_call_and_its_record(
    emoji: Pipeline, emoji_bundle: Path, tmp_path: Path
) -> None:
    image, mask, out = save_picture(tmp_path / "in.png"), tmp_path / "mask.png", tmp_path / "out.png"
    Image.fromarray(np.repeat(np.repeat([[0, 255]], 96, axis=0), 80, axis=1).astype(np.uint8)).save(mask)
    done = latentrt(
        "generate", emoji_bundle, "a fox", "-o", out, "--image", image, "--mask", mask, "--strength", 0.75,
        "--steps", 4, "--seed", 3, "--sampler", "ddim", "--option", "eta=0.5", "--guidance-interval", "0.25:1",
        "--tile-size", 80,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = emoji(
        "a fox", image=Image.open(image), mask_image=Image.open(mask), strength=0.75, num_inference_steps=4, seed=3,
        sampler="ddim", sampler_options={"eta": 0.5}, guidance_interval=(0.25, 1.0), tile_size=80,
    )  # fmt: skip
    with Image.open(out) as picture:
        assert np.abs(np.asarray(picture, int) - np.asarray(expected.images[0], int)).max() <= 1
    made: dict[str, Any] = json.loads(latentrt("inspect", out, "--json").stdout)["provenance"]
    assert (made["strength"], made["sampler_options"], made["guidance_interval"]) == (0.75, {"eta": 0.5}, [0.25, 1.0])
    assert made["image_sha256"] == expected.provenance[0].image_sha256
    assert made["mask_sha256"] == expected.provenance[0].mask_sha256
    shown = latentrt("inspect", out).stdout
    assert "Denoising strength: 0.75" in shown
    for line in (
        f"Image: sha256 {made['image_sha256']}",
        "Sampler options: eta=0.5",
        "Decoder: vae_decoder in tiles of 80",
    ):
        assert line in shown


def test_a_refiner_on_the_command_line(emoji_bundle: Path, tmp_path: Path) -> None:
    """Any bundle with the same latents can go on where another stops: here the same one."""
    out = tmp_path / "out.png"
    done = latentrt(
        "generate", emoji_bundle, "a fox", "-o", out, "--steps", 4, "--refiner", emoji_bundle, "--handover", 0.5
    )
    assert done.returncode == 0, done.stderr
    shown = latentrt("inspect", out).stdout
    assert "Refiner switch at: 0.5" in shown
    assert "Refiner: " in shown.split("\n\n")[1]


BAD: dict[str, tuple[list[str], str]] = {
    "no picture": (["--image", "none.png"], "--image | received: none.png: no such file"),
    "a file that is no picture": (["--image", "text.png"], "--image | received: text.png: a file that is no picture"),
    "a mask alone": (["--mask", "in.png"], "--mask without an image | expected: --image, which the run starts from"),
    "a strength alone": (["--strength", "0.5"], "strength without an image"),
    "a strength beyond 1": (["--image", "in.png", "--strength", "2"], "strength | received: 2.0"),
    "an option without a value": (["--option", "eta"], "--option | received: eta"),
    "an unknown option": (["--option", "etta=1"], "eta"),
    "an interval": (["--guidance-interval", "0.2"], "--guidance-interval | received: 0.2"),
    "a hand-over to nobody": (["--handover", "0.8"], "--refiner BUNDLE"),
    "a picture of a size that the bundle cannot": (["--image", "odd.png"], "width of the picture | received: 100"),
    "a tiny decoder that is not there": (["--decoder", "tiny"], "no tiny_decoder"),
    "a schedule twice": (["--option", "schedule=karras"], "--option has schedule"),
    "a number that is a text": (["--sampler", "ddim", "--option", "eta=much"], "eta"),
    "a number beyond any": (["--sampler", "ddim", "--option", "eta=" + "9" * 400], "64 bits"),
    "a size beyond any": (["--size", "9" * 5000 + "x64"], "--size | received: 999"),
    "a text for an encoder that there is not": (["--prompt-3", "x"], "--prompt-3 | received"),
    "bytes that are no text": (["--negative-prompt", "fox \udcff"], "--negative-prompt | received: 'fox \\udcff'"),
    "a folder for a picture": (["-o", "."], ": not the name of a PNG"),
    "a folder called like a picture": (["-o", "folder.png"], "folder.png: a folder"),
    "another kind of picture": (["-o", "out.jpg"], "out.jpg: not the name of a PNG"),
    "a folder that is missing": (["-o", "none/out.png"], "none/out.png: cannot be written"),
    "a name that is too long": (["-o", "x" * 300 + ".png"], "cannot be written | received: File name too long"),
    "a tile": (["--tile-size", "7"], "--tile-size | received: 7"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, emoji_bundle: Path, tmp_path: Path
) -> None:
    save_picture(tmp_path / "in.png")
    save_picture(tmp_path / "odd.png", width=100)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    sampler = ["--sampler", "ddim"] if "etta=1" in arguments else []
    done = latentrt("generate", emoji_bundle, "a fox", "-o", "out.png", *arguments, *sampler, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before, "nothing was written"


INSPECT: dict[str, tuple[list[str], str]] = {
    "layers of a picture": (
        ["in.png", "--layers"],
        "--layers | received: in.png, a file | expected: a bundle's folder",
    ),
    "a picture not verified": (["in.png", "--no-verify"], "--no-verify | received: in.png"),
    "a component of nothing": (["BUNDLE", "--component", "denoiser"], "--component | received: denoiser"),
    "layers in JSON": (["BUNDLE", "--layers", "--json"], "--layers and --json exclude each other"),
    "a manifest": (["BUNDLE/manifest.json"], "expected: the bundle's folder | latentrt inspect BUNDLE"),
    "a file that is neither": (["text.txt"], "not a readable picture"),
    "what it takes": (["text.txt"], "expected: a bundle's folder, or a PNG written by LatentRT"),
}


@pytest.mark.parametrize(("arguments", "message"), INSPECT.values(), ids=INSPECT.keys())
def test_what_inspect_cannot_show_is_refused(
    arguments: list[str], message: str, emoji_bundle: Path, tmp_path: Path
) -> None:
    save_picture(tmp_path / "in.png")
    (tmp_path / "text.txt").write_text("no picture")
    bundle = str(emoji_bundle)
    done = latentrt("inspect", *(text.replace("BUNDLE", bundle) for text in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert message.replace("BUNDLE", bundle) in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_at_once_and_leaves_nothing(
    number: int, emoji_bundle: Path, start_latentrt: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Also while other threads are inside an engine: 1000 steps take many seconds."""
    arguments = ["generate", emoji_bundle, "a fox", "-o", "out.png", "--steps", "1000", "--threads", "2", "-n", "4"]
    with start_latentrt(*arguments, cwd=tmp_path) as process:
        time.sleep(4)  # it is denoising by then
        assert process.poll() is None
        process.send_signal(number)
        start = time.perf_counter()
        _, message = process.communicate(timeout=60)
    assert time.perf_counter() - start < 3
    assert process.returncode == 128 + number
    assert message == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_options_are_numbers_lists_words_or_texts() -> None:
    texts = ["eta=0.5", "solver_order=3", "timesteps=999, 500,1.5", "clip=true", "x=None", "noise=brownian", "s=a,b"]
    assert options_from_texts(texts) == {
        "eta": 0.5, "solver_order": 3, "timesteps": [999, 500, 1.5], "clip": True, "x": None, "noise": "brownian",
        "s": "a,b",
    }  # fmt: skip
    for bad in (["=1"], ["eta="] * 2, ["eta"]):
        with pytest.raises(RequestError, match="--option"):
            options_from_texts(bad)


def test_intervals_and_sizes() -> None:
    assert interval_from_text("0.1:1") == (0.1, 1.0)
    assert size_from_text("1152x896") == (1152, 896)
    for bad in ("", ":", "0.1", "a:b", "0:1:2"):
        with pytest.raises(RequestError, match="--guidance-interval"):
            interval_from_text(bad)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a.jpg", exif=exif)
    assert picture_from_file("--image", tmp_path / "a.jpg").size == (32, 64)
