"""The noise of CUDA's generator, drawn by the device of a pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.kernels.philox import philox_normal
from latentrt.runtime import Pipeline
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.errors import RequestError
from latentrt.runtime.images.provenance import details_text, parameters_text
from latentrt.runtime.noise.philox import PhiloxNoise


def test_the_stream_goes_on_where_torch_does() -> None:
    """pytorch/pytorch#79496: ``torch.randn(3, device="cuda")`` after ``torch.cuda.manual_seed(10)``; then the next."""
    with DeviceRunner(HostDevice()) as runner:
        stream = PhiloxNoise(10, runner)
        np.testing.assert_allclose(stream.randn((3,)), [-0.1029, 1.6810, -0.2708], atol=6e-5)
        second = stream.randn((1, 4, 16, 16))
        assert second.shape == (1, 4, 16, 16)
        np.testing.assert_array_equal(second.reshape(-1), philox_normal(10, 1024, 1))
        assert stream.skip((1024,), 3) == 2
        np.testing.assert_array_equal(stream.randn((1024,)), philox_normal(10, 1024, 5))


def test_a_picture_from_that_noise(emoji: Pipeline) -> None:
    """The same as from the same latents given, whoever its neighbours are; and it says so."""
    arguments = {"num_inference_steps": 3, "sampler": "euler_a"}
    both = emoji(["a fox", "a rocket"], seed=[4, 9], rng="philox", output_type="latent", **arguments)
    alone = emoji("a rocket", seed=9, rng="philox", output_type="latent", **arguments)
    np.testing.assert_allclose(alone.images[0], both.images[1], atol=2e-5)
    assert not np.allclose(alone.images, emoji("a rocket", seed=9, output_type="latent", **arguments).images, atol=0.1)

    given = philox_normal(9, 1024).reshape(1, 4, 16, 16)
    euler = emoji("a rocket", seed=9, rng="philox", output_type="latent", num_inference_steps=3, sampler="euler")
    from_latents = emoji("a rocket", latents=given, output_type="latent", num_inference_steps=3, sampler="euler")
    np.testing.assert_array_equal(euler.images, from_latents.images)

    made = alone.provenance[0]
    assert made.rng == "philox"
    assert "RNG: NV" in parameters_text(made)
    assert "philox" in details_text(made)


def test_an_unknown_generator(emoji: Pipeline) -> None:
    with pytest.raises(RequestError, match=r"rng \| received: 'cuda' \| expected: 'torch-cpu' or 'philox'"):
        emoji("a fox", rng="cuda")
