"""Axes, shapes and profiles of one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import Component
from latentrt.runtime.bundles.spec import AxisRange, Profile
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import EngineError
from latentrt.runtime.providers.contract import axis_sizes, check_buffers, output_shapes, profile_for


@pytest.fixture
def decoder(emoji_bundle: Path) -> Component:
    return open_bundle(emoji_bundle, verify=False).manifest.components["vae_decoder"]


def test_outputs_follow_from_the_shapes_of_the_inputs(decoder: Component) -> None:
    sizes = axis_sizes("vae_decoder", decoder, {"latents": (2, 4, 6, 9)})
    assert sizes == {"images": 2, "height": 6, "width": 9}
    scale = decoder.outputs[0].shape[2]
    assert str(scale).endswith("*height")
    factor = int(str(scale).split("*")[0])
    assert output_shapes(decoder, sizes) == {"image": ((2, 3, 6 * factor, 9 * factor), np.dtype(np.float32))}


@pytest.mark.parametrize(
    "shapes",
    [{}, {"latents": (2, 4, 6)}, {"latents": (2, 5, 6, 9)}, {"sample": (2, 4, 6, 9)}, {"latents": (2, 4, 6, 9, 1)}],
)
def test_shapes_that_are_not_the_contracts(decoder: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(EngineError, match=r"the shapes of its inputs .* expected: latents float32\[images, 4"):
        axis_sizes("vae_decoder", decoder, shapes)


def test_axes_that_inputs_disagree_on(emoji_bundle: Path) -> None:
    denoiser = open_bundle(emoji_bundle, verify=False).manifest.components["denoiser"]
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (2, 4, 8, 8), "timestep": (1,), "encoder_hidden_states": (2, 77, 80), "text_embeds": (2, 48),
        "time_ids": (2, 6),
    }  # fmt: skip
    with pytest.raises(EngineError, match=r"received: sample\[2, 4, 8, 8\], timestep\[1\]"):
        axis_sizes("denoiser", denoiser, shapes)
    assert axis_sizes("denoiser", denoiser, {**shapes, "timestep": (2,)})["rows"] == 2


def test_a_buffer_of_another_shape_or_type(decoder: Component) -> None:
    device = HostDevice()
    sizes = axis_sizes("vae_decoder", decoder, {"latents": (1, 4, 2, 3)})
    (image, _), latents = output_shapes(decoder, sizes)["image"], device.allocate((1, 4, 2, 3), "float32")
    good = {"latents": latents, "image": device.allocate(image, "float32")}
    check_buffers("vae_decoder", decoder, sizes, good)
    with pytest.raises(EngineError, match=r"the buffer of image \| received: nothing \| expected: float32\[1, 3"):
        check_buffers("vae_decoder", decoder, sizes, {"latents": latents})
    with pytest.raises(EngineError, match=r"the buffer of image \| received: float16\[1, 3"):
        check_buffers("vae_decoder", decoder, sizes, {**good, "image": device.allocate(image, "float16")})


def profile(rows: tuple[int, int, int], height: tuple[int, int, int], width: tuple[int, int, int]) -> Profile:
    return {"rows": AxisRange(*rows), "height": AxisRange(*height), "width": AxisRange(*width)}


SPAN = profile((1, 2, 16), (64, 128, 160), (64, 128, 160))
WIDE = profile((1, 2, 16), (112, 112, 112), (144, 144, 144))
SQUARE = profile((1, 2, 16), (128, 128, 128), (128, 128, 128))


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ({"rows": 2, "height": 128, "width": 128}, 0),  # as near as its own, and first
        ({"rows": 2, "height": 112, "width": 144}, 1),
        ({"rows": 2, "height": 96, "width": 160}, 0),
        ({"rows": 16, "height": 112, "width": 144}, 1),
    ],
)
def test_the_profile_that_is_tuned_nearest_is_chosen(sizes: dict[str, int], chosen: int) -> None:
    assert profile_for("denoiser", [SPAN, WIDE, SQUARE], sizes) == chosen


def test_sizes_that_no_profile_allows() -> None:
    expected = r"received: rows 2, height 200, width 144 \| expected: rows 1..2..16, height 112, .* or rows"
    with pytest.raises(EngineError, match=rf"denoiser: no profile .* {expected} .*--aspects"):
        profile_for("denoiser", [WIDE, SQUARE], {"rows": 2, "height": 200, "width": 144})
