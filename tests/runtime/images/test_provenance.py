"""PNGs say how they were made, in A1111's form and in ours."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentrt.runtime import Pipeline
from latentrt.runtime.errors import OutputError, RequestError
from latentrt.runtime.images.provenance import details_text, read_provenance


def test_a_picture_can_be_made_again_from_its_png(emoji: Pipeline, tmp_path: Path) -> None:
    prompt = 'a fox, "quoted": 日本語\nsecond line'
    (path,) = emoji(
        prompt,
        negative_prompt="red",
        width=160,
        height=96,
        num_inference_steps=3,
        guidance_scale=4.5,
        seed=12,
        crops_coords_top_left=(8, 0),
    ).save(tmp_path / "a.png")
    made, _ = read_provenance(path)
    assert made is not None
    again = emoji(
        made.prompt,
        negative_prompt=made.negative_prompt,
        width=made.width,
        height=made.height,
        num_inference_steps=made.num_inference_steps,
        guidance_scale=made.guidance_scale,
        seed=made.seed,
        sampler=made.sampler,
        schedule=made.schedule,
        original_size=made.original_size,
        crops_coords_top_left=made.crops_coords_top_left,
        target_size=made.target_size,
    ).images[0]
    with Image.open(path) as written:
        assert np.array_equal(np.asarray(written), np.asarray(again))
    assert made.bundle_hash == hashlib.sha256((emoji.bundle.path / "manifest.json").read_bytes()).hexdigest()


def test_the_parameters_text_is_what_viewers_of_a1111_pictures_read(emoji: Pipeline, tmp_path: Path) -> None:
    output = emoji(
        "a fox",
        negative_prompt="red, blue",
        num_inference_steps=2,
        guidance_scale=7.5,
        seed=3,
        sampler="DPM++ 2M Karras",
    )
    (path,) = output.save(tmp_path / "a.png")
    with Image.open(path) as picture:
        lines = str(picture.info["parameters"]).split("\n")
    assert lines[0] == "a fox"
    assert lines[1] == "Negative prompt: red, blue"
    settings = dict(part.split(": ", 1) for part in lines[2].split(", "))
    assert settings["Steps"] == "2"
    assert settings["Sampler"] == "DPM++ 2M"
    assert settings["Schedule type"] == "Karras"
    assert settings["CFG scale"] == "7.5"
    assert settings["Seed"] == "3"
    assert settings["Size"] == "128x128"
    assert settings["Model hash"] == emoji.bundle.hash[:10]


def test_injected_latents_are_told_apart_from_a_seed(emoji: Pipeline) -> None:
    latents = np.zeros((1, 4, 16, 16), np.float32)
    output = emoji("a fox", num_inference_steps=1, latents=latents)
    assert output.provenance[0].initial_latents == "given"


def test_several_pictures_get_numbered_names(emoji: Pipeline, tmp_path: Path) -> None:
    output = emoji("a fox", num_inference_steps=1, num_images_per_prompt=2, seed=5)
    paths = output.save(tmp_path / "a.png")
    assert [path.name for path in paths] == ["a-0.png", "a-1.png"]
    seeds = [made.seed for made, _ in map(read_provenance, paths) if made is not None]
    assert seeds == [5, 6]


def test_a_folder_that_does_not_exist(emoji: Pipeline, tmp_path: Path) -> None:
    output = emoji("a fox", num_inference_steps=1)
    with pytest.raises(OutputError, match="cannot be written"):
        output.save(tmp_path / "none" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_is_cut_short_leaves_nothing(
    emoji: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = emoji("a fox", num_inference_steps=1)
    write = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        written = write(path, data[: len(data) // 2])
        if data:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output.save(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jpg", "a", "."])
def test_other_names_than_those_of_pngs_are_refused(emoji: Pipeline, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"not the name of a PNG \| expected: a name that ends in .png"):
        emoji("a fox", num_inference_steps=1).save(tmp_path / name)


def test_arrays_cannot_be_saved(emoji: Pipeline, tmp_path: Path) -> None:
    output = emoji("a fox", num_inference_steps=1, output_type="np")
    with pytest.raises(RequestError, match="output_type='pil'"):
        output.save(tmp_path / "a.png")


def test_pictures_of_other_tools(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert read_provenance(tmp_path / "plain.png") == (None, None)
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match="not a readable picture"):
        read_provenance(tmp_path / "no.png")
    with pytest.raises(RequestError, match="no such file"):
        read_provenance(tmp_path / "absent.png")


def test_a_picture_that_started_from_another_names_it(emoji: Pipeline, tmp_path: Path) -> None:
    y, x = np.mgrid[0:128, 0:128]
    image = Image.fromarray(np.stack([x, y, x ^ y], axis=-1).astype(np.uint8))
    mask = (x > 64).astype(np.float32)
    call = {"num_inference_steps": 4, "strength": 0.5, "mask_image": mask}
    made, text = read_provenance(emoji("a fox", image=image, **call).save(tmp_path / "a.png")[0])
    assert made is not None
    assert made.strength == 0.5
    assert made.image_sha256 == hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    assert made.mask_sha256 == hashlib.sha256(mask.tobytes()).hexdigest()
    assert text is not None
    assert "Denoising strength: 0.5" in text
    other = emoji("a fox", image=image.rotate(90), **call).provenance[0]
    assert other.image_sha256 != made.image_sha256
    plain = emoji("a fox", num_inference_steps=1).provenance[0]
    assert (plain.image_sha256, plain.mask_sha256, plain.strength, plain.refiner) == (None, None, None, None)
    assert f"Image: sha256 {made.image_sha256}" in details_text(made)


def test_pngs_of_the_first_version_can_still_be_read(emoji: Pipeline, tmp_path: Path) -> None:
    """What a call can say has grown: a record without the new fields is one in which they were not used."""
    (path,) = emoji("a fox", num_inference_steps=1).save(tmp_path / "a.png")
    with Image.open(path) as picture:
        record = msgspec.json.decode(str(picture.info["latentrt"]))
        first = {"image_sha256", "mask_sha256", "depth_sha256", "strength", "decoder", "tile_size", "refiner"}
        info = PngInfo()
        info.add_text("latentrt", msgspec.json.encode({k: v for k, v in record.items() if k not in first}).decode())
        picture.save(tmp_path / "old.png", pnginfo=info)
    made, _ = read_provenance(tmp_path / "old.png")
    assert made is not None
    assert (made.prompt, made.strength, made.decoder) == ("a fox", None, "vae_decoder")
