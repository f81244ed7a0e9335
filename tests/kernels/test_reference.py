"""The numpy kernels against their formulas, written out."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.kernels.reference import StepWeights, bytes_from_image, denoise_step, image_from_decoded

SHAPES = [(1, 4, 8, 8), (2, 4, 5, 7), (3, 16, 9, 4), (2, 4, 64, 64), (1, 4, 73, 79)]  # also more than one block


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("history_length", [1, 2, 5])
@pytest.mark.parametrize("draws", [0, 1, 2])
def test_denoise_step_is_the_linear_update(
    shape: tuple[int, ...], guided: bool, history_length: int, draws: int
) -> None:
    images = shape[0]
    x, outputs = values(1, *shape), values(2, (1 + guided) * images, *shape[1:])
    history = [values(3 + i, *shape) for i in range(history_length)]
    noises = [values(20 + i, *shape) for i in range(draws)]
    model_input = np.empty_like(outputs)
    weights = StepWeights(
        guidance=5.0,
        state_to_stored=0.4,
        output_to_stored=1.5,
        state_weight=0.9,
        history_weights=tuple(np.linspace(0.5, -0.7, history_length).tolist()),
        noise_weights=(0.3, -0.2)[:draws],
        next_input_scale=0.25,
    )
    u, c = outputs[:images], outputs[-images:]
    m = u + 5 * (c - u) if guided else c
    d = 0.4 * x + 1.5 * m
    expected = 0.9 * x
    for weight, stored in zip(weights.history_weights, [d, *history[:-1]], strict=True):
        expected = expected + weight * stored
    for weight, noise in zip(weights.noise_weights, noises, strict=True):
        expected = expected + weight * noise
    arrays = {id(array) for array in history}
    denoise_step(x, outputs, history, noises, model_input, weights)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)
    if history_length > 1:
        np.testing.assert_allclose(history[0], d, rtol=1e-5, atol=1e-5)
    for rows in np.split(model_input, 1 + guided):
        np.testing.assert_array_equal(rows, x * np.float32(0.25))
    assert {id(array) for array in history} == arrays, "the ring reuses its arrays"


def test_the_first_draw_of_a_run_has_none_before_it() -> None:
    shape = (1, 4, 8, 8)
    x, outputs, noise = values(1, *shape), values(2, *shape), values(3, *shape)
    expected = x + outputs + np.float32(0.5) * noise
    weights = StepWeights(1.0, 0.0, 1.0, 1.0, (1.0,), (0.5, 0.0), 1.0)
    denoise_step(x, outputs, [np.empty_like(x)], [noise], np.empty(shape, np.float32), weights)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.5), (1.0, 0.0), (0.0, 0.0)])
def test_weights_of_zero_and_one_save_a_product(weights: tuple[float, float]) -> None:
    shape = (1, 4, 8, 8)
    x, outputs, older = values(1, *shape), values(2, *shape), values(3, *shape)
    d = x + outputs
    expected = x + np.float32(weights[0]) * d + np.float32(weights[1]) * older
    history, model_input = [older, np.empty_like(x)], np.empty_like(x)
    denoise_step(x, outputs, history, [], model_input, StepWeights(1.0, 1.0, 1.0, 1.0, weights, (), 1.0))
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(history[0], d)
    np.testing.assert_array_equal(model_input, x)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_input_of_an_unguided_evaluation_after_a_guided_one_has_one_row_per_image(shape: tuple[int, ...]) -> None:
    x, outputs, model_input = values(1, *shape), values(2, 2 * shape[0], *shape[1:]), np.empty(shape, np.float32)
    weights = StepWeights(5.0, 0.0, 1.0, 1.0, (1.0,), (), 2.0)
    denoise_step(x, outputs, [np.empty_like(x)], [], model_input, weights)
    np.testing.assert_array_equal(model_input, x * np.float32(2))


def test_images_are_clipped_channels_last_and_rounded_to_the_nearest_byte() -> None:
    decoded = np.array([-3.0, -1.0, -0.5, 0.0, 0.999, 5.0], np.float32).reshape(1, 3, 1, 2)
    picture = image_from_decoded(decoded)
    assert picture.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(picture[0, 0, 0], [0, 0.25, 0.9995], atol=1e-6)
    np.testing.assert_allclose(picture[0, 0, 1], [0, 0.5, 1], atol=1e-6)
    assert bytes_from_image(picture).tolist() == [[[[0, 64, 255], [0, 128, 255]]]]
