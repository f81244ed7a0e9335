"""The numpy kernels against their formulas, written out."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.kernels.reference import bytes_from_image, denoise_step, guide, image_from_decoded

SHAPES = [(1, 4, 8, 8), (2, 4, 5, 7), (3, 16, 9, 4)]


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_guide_moves_from_the_unconditional_output_past_the_conditional_one(shape: tuple[int, ...]) -> None:
    images = shape[0]
    outputs = values(0, 2 * images, *shape[1:])
    u, c = outputs[:images], outputs[images:]
    np.testing.assert_allclose(guide(outputs, images, 5.0), u + 5 * (c - u), rtol=1e-6, atol=1e-6)
    assert guide(c, images, 5.0) is c


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("history_length", [1, 2, 5])
@pytest.mark.parametrize("draws", [0, 1, 2])
def test_denoise_step_is_the_linear_update(shape: tuple[int, ...], history_length: int, draws: int) -> None:
    x, output = values(1, *shape), values(2, *shape)
    history = [values(3 + i, *shape) for i in range(history_length)]
    noises = [values(20 + i, *shape) for i in range(draws)]
    weights = np.linspace(0.5, -0.7, history_length).tolist()
    noise_weights = [0.3, -0.2][:draws]
    d = 0.4 * x + 1.5 * output
    stored = [d, *history[:-1]]
    expected = 0.9 * x + sum(w * h for w, h in zip(weights, stored, strict=True))
    expected = expected + sum(w * n for w, n in zip(noise_weights, noises, strict=True))
    arrays = {id(array) for array in history}
    denoise_step(
        x,
        output,
        history,
        noises,
        state_to_stored=0.4,
        output_to_stored=1.5,
        state_weight=0.9,
        history_weights=weights,
        noise_weights=noise_weights,
    )
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history[0], d, rtol=1e-6, atol=1e-6)
    assert {id(array) for array in history} == arrays, "the ring reuses its arrays"


def test_images_are_clipped_channels_last_and_rounded_to_the_nearest_byte() -> None:
    decoded = np.array([-3.0, -1.0, -0.5, 0.0, 0.999, 5.0], np.float32).reshape(1, 3, 1, 2)
    picture = image_from_decoded(decoded)
    assert picture.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(picture[0, 0, 0], [0, 0.25, 0.9995], atol=1e-6)
    np.testing.assert_allclose(picture[0, 0, 1], [0, 0.5, 1], atol=1e-6)
    assert bytes_from_image(picture).tolist() == [[[[0, 64, 255], [0, 128, 255]]]]
