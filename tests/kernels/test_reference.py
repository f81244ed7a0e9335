"""The numpy kernels against their formulas, written out."""

from __future__ import annotations

import numpy as np

from latentrt.kernels.reference import bytes_from_image, image_from_decoded


def test_images_are_clipped_channels_last_and_rounded_to_the_nearest_byte() -> None:
    decoded = np.array([-3.0, -1.0, -0.5, 0.0, 0.999, 5.0], np.float32).reshape(1, 3, 1, 2)
    picture = image_from_decoded(decoded)
    assert picture.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(picture[0, 0, 0], [0, 0.25, 0.9995], atol=1e-6)
    np.testing.assert_allclose(picture[0, 0, 1], [0, 0.5, 1], atol=1e-6)
    assert bytes_from_image(picture).tolist() == [[[[0, 64, 255], [0, 128, 255]]]]
