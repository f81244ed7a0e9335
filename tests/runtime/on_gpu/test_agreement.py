"""Every provider that runs on this GPU computes what ONNX Runtime does on the processor, and what diffusers does on
the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime.bundles.spec import resolve_shape
from latentrt.runtime.errors import EngineError
from latentrt.runtime.providers.choice import choose_provider

from .answers import Answers
from .calls import cosine_distance

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

pytestmark = pytest.mark.gpu

#: What half precision may cost (cosine distance), of one component and of the whole run.
LIMIT = 1e-3

#: Of the latents of a whole run beside diffusers in the same precision. In fp32 it is half the square of a relative
#: error of 1.4e-5. On a processor the same run is 2e-13 from diffusers in fp32, and 9e-8 with weights and tensors in
#: fp16, whose mantissa is that of TF32: this lies in the middle, so whoever computes in TF32 is found out.
LATENT_LIMITS = {"fp16": 1e-3, "fp32": 1e-10}


def inputs(pipe: Pipeline, component: str, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for spec in pipe.bundle.manifest.components[component].inputs:
        shape = resolve_shape(spec, dict(sizes))
        if spec.dtype == "int64":
            made[spec.name] = random.integers(0, 1000, shape)
        else:
            made[spec.name] = random.standard_normal(shape, np.float32)
    if "timestep" in made:
        made["timestep"] = np.linspace(10, 990, sizes["rows"], dtype=np.float32)
    return made


@pytest.mark.parametrize("kind", ["min", "opt", "max"])
@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder", "vae_encoder"])
def test_a_component_agrees_with_the_processor(gpu: Pipeline, emoji: Pipeline, component: str, kind: str) -> None:
    profile = gpu.bundle.manifest.components[component].profile
    given = inputs(emoji, component, {axis: getattr(sizes, kind) for axis, sizes in profile.items()}, seed=7)
    of_gpu = {
        spec.name: given[spec.name].astype(spec.dtype) for spec in gpu.bundle.manifest.components[component].inputs
    }
    received, expected = gpu.engines[component].run(of_gpu), emoji.engines[component].run(given)
    for name, values in expected.items():
        assert np.isfinite(received[name]).all(), name
        assert cosine_distance(received[name], values) < LIMIT, name


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_a_run_agrees_with_the_processor(gpu: Pipeline, emoji: Pipeline, size: tuple[int, int]) -> None:
    received, expected = (
        pipe(["a rocket", "a fox"], seed=5, num_inference_steps=8, width=size[0], height=size[1], output_type="latent")
        for pipe in (gpu, emoji)
    )
    assert cosine_distance(received.images, expected.images) < LIMIT


def test_a_picture_comes_out(gpu: Pipeline, emoji: Pipeline, provider: str, answers: Answers) -> None:
    received, expected = (pipe("a rocket", seed=5, output_type="np").images for pipe in (gpu, emoji))
    distance = cosine_distance(received, expected)
    answers.keep(provider, "a picture in fp16, cosine distance from the processor's in fp32", distance)
    assert distance < LIMIT


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
@pytest.mark.parametrize("precision", LATENT_LIMITS)
def test_latents_are_those_of_diffusers_on_the_gpu(
    opened: Callable[[str], Pipeline],
    reference: Callable[[str], Any],
    provider: str,
    precision: str,
    size: tuple[int, int],
    answers: Answers,
) -> None:
    import torch

    theirs, (width, height) = reference(precision), size
    noise = np.random.default_rng(3).standard_normal((1, 4, height // 8, width // 8), np.float32)
    call: dict[str, Any] = {"prompt": "a rocket! on a blue background", "num_inference_steps": 20}
    call |= {"guidance_scale": 5.0, "width": width, "height": height, "output_type": "latent"}
    given = torch.from_numpy(noise).to("cuda", theirs.unet.dtype)
    expected = theirs(**call, latents=given).images.float().cpu().numpy()
    received = opened(precision)(**call, latents=noise).images
    distance, furthest = cosine_distance(received, expected), float(np.abs(received - expected).max())
    told = {"cosine distance": distance, "max-abs": furthest}
    answers.keep(provider, f"latents in {precision}, {width}x{height}, beside diffusers on the GPU", told)
    assert distance < LATENT_LIMITS[precision]


def test_sizes_outside_of_the_profile_are_refused(gpu: Pipeline, provider: str) -> None:
    if provider == "onnxruntime-cuda":
        pytest.skip("ONNX Runtime runs graphs, which have no profiles")
    profile = gpu.bundle.manifest.components["denoiser"].profile
    sizes = {axis: allowed.max for axis, allowed in profile.items()} | {"rows": profile["rows"].max + 1}
    shapes = {name: value.shape for name, value in inputs(gpu, "denoiser", sizes, seed=1).items()}
    with pytest.raises(EngineError, match="denoiser: no profile of its engine allows these sizes"):
        gpu.engines["denoiser"].prepare(shapes)


def test_an_engine_that_is_closed_and_loaded_again(gpu: Pipeline, built: Callable[[str], Path], provider: str) -> None:
    """The kernels that TensorRT-RTX compiled are read back; a closed engine refuses."""
    choice = choose_provider(gpu.bundle, provider)
    record = choice.engines["text_encoder"]
    given = inputs(gpu, "text_encoder", {"texts": 1}, seed=3)
    results = []
    for _ in range(2):
        engine = choice.module.load_engine(gpu.bundle, record, device=gpu.engines.device, threads=1, options={})
        results.append(engine.run(given))
        engine.close()
        with pytest.raises(EngineError, match="text_encoder: the engine is closed"):
            engine.run(given)
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name])
