"""Pipelines on their device: warm sizes, calls from many threads, tensors of other libraries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from latentrt.runtime import Pipeline, load
from latentrt.runtime.bundles.manifest import TextEncoding
from latentrt.runtime.errors import RequestError
from latentrt.runtime.loop.warmup import warm_up
from latentrt.runtime.timing import Timings

from ...kernels.slot_runs import RUNS
from ..function_engine import FunctionEngine, contract_of, engines_of
from ..table_loop import SHAPE, linear_engine, run_through

SIZES = [(96, 128), (128, 128)]


@pytest.fixture
def pipe(emoji_bundle: Path) -> Iterator[Pipeline]:
    with load(emoji_bundle, verify=False, embeddings_cache=0) as pipe:
        yield pipe


def test_calls_for_a_warm_size_allocate_nothing(pipe: Pipeline) -> None:
    pipe.warmup(SIZES)
    counts = pipe.engines.device.counts
    before = replace(counts)
    calls: list[dict[str, Any]] = [
        {},
        {"negative_prompt": "blue", "sampler": "dpmpp_2m", "schedule": "karras"},
        {"guidance_scale": 1.0, "sampler": "euler_a"},
        {"guidance_interval": (0.3, 0.7), "sampler": "heun"},
        {"rng": "philox", "sampler": "euler_a"},
        {"output_type": "np"},
    ]
    for width, height in SIZES:
        for call in calls:
            pipe("a fox", width=width, height=height, num_inference_steps=3, **call)
    assert counts.allocations == before.allocations
    assert counts.captures == before.captures
    pipe("a fox", width=128, height=96, num_inference_steps=1)
    assert counts.allocations > before.allocations, "a size that was not warmed"


def test_what_was_warmed_is_recorded_in_the_workspace_that_the_largest_of_it_needs() -> None:
    contract = contract_of({"input_ids": "int64 texts 240"}, {"states": "float32 texts 240 1"}, texts=(1, 1, 2))
    text = FunctionEngine(
        "text_encoder",
        contract,
        lambda inputs: {"states": inputs["input_ids"][..., np.newaxis].astype(np.float32)},
        workspace_bytes=lambda rows: 100,
    )
    encoding = TextEncoding("text_encoder", "tokenizer.json", (), None, 0, 0, "states", tokens=240)
    with engines_of(text, linear_engine(workspace_bytes=lambda rows: 1000 * rows)) as engines:
        manifest = msgspec.structs.replace(engines.bundle.manifest, text_encodings=(encoding,))
        engines.bundle = replace(engines.bundle, manifest=manifest)
        warm_up(engines, [(10, 6), SHAPE[1:]], 1, texts=True)
        before = replace(engines.device.counts)
        engines.run("text_encoder", {"input_ids": np.zeros((1, 240), np.int64)}, Timings())
        run_through(engines, RUNS["euler, guidance in the middle"])
        after = engines.device.counts
        assert (after.allocations, after.captures) == (before.allocations, before.captures)


def test_sizes_that_are_too_many_to_be_kept_are_told(caplog: pytest.LogCaptureFixture) -> None:
    encoding = TextEncoding("text_encoder", "tokenizer.json", (), None, 0, 0, "states", tokens=240)
    for sizes, messages in (([(10, 6)], 0), ([(10, 6), (6, 10), (5, 12), (12, 5)], 1)):
        with engines_of(linear_engine(), limit=60_000) as engines:
            manifest = msgspec.structs.replace(engines.bundle.manifest, text_encodings=(encoding,))
            engines.bundle = replace(engines.bundle, manifest=manifest)
            warm_up(engines, sizes, 1, texts=False)
        assert len(caplog.messages) == messages
    assert "4 sizes take more memory than is kept for plans" in caplog.text


def test_text_encoders_that_are_released_are_not_loaded_to_be_warm(emoji_bundle: Path) -> None:
    with load(emoji_bundle, verify=False, offload="text") as pipe:
        pipe.warmup(SIZES[:1])
        assert pipe.engines.get("text_encoder") is None
        assert pipe.engines.get("denoiser") is not None


@pytest.mark.parametrize("name", ["sd1-edit", "sd1-inpainting"])
def test_models_that_see_a_picture_are_warmed_for_it(family_bundle: Callable[[str], Path], name: str) -> None:
    call: dict[str, Any] = {"image": Image.new("RGB", (24, 24), "red")}
    if name == "sd1-inpainting":
        call |= {"mask_image": Image.new("L", (24, 24), 255), "strength": 0.8}
    with load(family_bundle(name), verify=False, embeddings_cache=0) as pipe:
        pipe.warmup([(24, 24)])
        before = replace(pipe.engines.device.counts)
        pipe("a fox", width=24, height=24, num_inference_steps=3, **call)
        after = pipe.engines.device.counts
        assert (after.allocations, after.captures) == (before.allocations, before.captures)


@pytest.mark.parametrize("picture", [np.full((96, 128, 3), 90, np.uint8), np.full((96, 128, 3), 0.3, np.float32)])
def test_calls_that_start_from_pictures_are_warmed_where_that_is_asked_for(pipe: Pipeline, picture: Any) -> None:
    pipe.warmup([(128, 96)], num_images_per_prompt=2, pictures=True)
    before = replace(pipe.engines.device.counts)
    pipe("a fox", image=picture, strength=0.8, num_images_per_prompt=2, num_inference_steps=3)
    after = pipe.engines.device.counts
    assert (after.allocations, after.captures) == (before.allocations, before.captures)


def test_what_cannot_be_warmed_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(RequestError, match="width"):
        pipe.warmup([(1000, 128)])
    with pytest.raises(RequestError, match="num_images_per_prompt"):
        pipe.warmup(SIZES, num_images_per_prompt=0)
    for sizes in ((128, 128), [128], 128, [(128, 128, 1)], None):
        with pytest.raises(RequestError, match=r"sizes \| received: .* \| expected: a list of \(width, height\)"):
            pipe.warmup(sizes)  # type: ignore[arg-type]


def test_warming_leaves_pictures_as_they_are(pipe: Pipeline, emoji: Pipeline) -> None:
    pipe.warmup(SIZES, num_images_per_prompt=2)
    call: dict[str, Any] = {"seed": 4, "num_images_per_prompt": 2, "num_inference_steps": 4, "output_type": "latent"}
    np.testing.assert_allclose(pipe("a fox", **call).images, emoji("a fox", **call).images, atol=1e-5)


def test_threads_are_served_one_after_another(pipe: Pipeline) -> None:
    """Each sees its own steps alone, and gets the picture that it would get alone."""
    call: dict[str, Any] = {"num_inference_steps": 4, "output_type": "latent", "sampler": "euler_a"}
    alone = [pipe("a fox", seed=seed, **call).images for seed in range(4)]
    steps: list[int] = []

    def look(pipeline: Pipeline, index: int, timestep: float, state: object) -> None:
        steps.append(threading.get_ident())

    def draw(seed: int) -> Any:
        return pipe("a fox", seed=seed, callback_on_step_end=look, **call).images

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(len(set(steps[i : i + 4])) == 1 for i in range(0, 16, 4))


def test_a_callback_may_use_the_pipeline(pipe: Pipeline) -> None:
    call: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "sampler": "dpmpp_2m_sde"}
    expected, inner = pipe("a fox", seed=1, **call).images, pipe("a cat", seed=2, **call).images
    seen: list[Any] = []

    def draw(pipeline: Pipeline, index: int, timestep: float, state: object) -> None:
        seen.append(pipeline("a cat", seed=2, **call).images)

    np.testing.assert_array_equal(pipe("a fox", seed=1, callback_on_step_end=draw, **call).images, expected)
    np.testing.assert_array_equal(seen, [inner] * 3)


def test_a_call_that_fails_or_stops_lets_the_next_one_in(pipe: Pipeline) -> None:
    def fail(pipeline: Pipeline, index: int, timestep: float, state: object) -> None:
        raise ZeroDivisionError

    def stop(pipeline: Pipeline, index: int, timestep: float, state: object) -> bool:
        return False

    with ThreadPoolExecutor(1) as pool:
        for end in (fail, stop):
            try:
                pipe("a fox", num_inference_steps=50, callback_on_step_end=end)
            except ZeroDivisionError:  # held here, with all that its traceback refers to
                assert end is fail
                assert pool.submit(lambda: pipe("a fox", num_inference_steps=1)).result(timeout=60).steps_done == 1
            assert pool.submit(lambda: pipe("a fox", num_inference_steps=1)).result(timeout=60).steps_done == 1


def test_pictures_stay_on_the_device_for_other_libraries(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"seed": 3, "num_images_per_prompt": 2, "num_inference_steps": 2}
    pictures = torch.from_dlpack(emoji("a fox", output_type="dlpack", **call).images)
    assert pictures.dtype == torch.uint8
    np.testing.assert_array_equal(pictures.numpy(), np.stack(emoji("a fox", **call).images))
    kept = pictures.clone()
    emoji("a cat", output_type="dlpack", **call)
    assert torch.equal(pictures, kept), "the next call has memory of its own"


def test_latents_go_from_call_to_call_as_tensors(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"seed": 3, "num_inference_steps": 4, "sampler": "euler"}
    first = torch.from_dlpack(emoji("a fox", denoising_end=0.5, output_type="latent-dlpack", **call).images)
    assert first.shape == (1, 4, 16, 16)
    expected = emoji("a fox", denoising_end=0.5, output_type="latent", **call).images
    np.testing.assert_array_equal(first.numpy(), expected)
    second = emoji("a fox", denoising_start=0.5, image=first, output_type="latent", **call).images
    np.testing.assert_array_equal(
        second, emoji("a fox", denoising_start=0.5, image=expected, output_type="latent", **call).images
    )


def test_large_pictures_for_other_libraries_are_decoded_in_tiles(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"seed": 3, "num_inference_steps": 2, "tile_size": 64}
    pictures = torch.from_dlpack(emoji("a fox", output_type="dlpack", **call).images)
    np.testing.assert_array_equal(pictures.numpy(), np.stack(emoji("a fox", **call).images))


def test_noise_may_be_a_tensor(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    given = emoji("a fox", latents=noise, **call).images
    np.testing.assert_array_equal(given, emoji("a fox", latents=noise.numpy(), **call).images)


def test_pictures_may_be_tensors(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"seed": 5, "num_inference_steps": 2, "output_type": "latent", "strength": 0.8}
    picture = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    mask = np.zeros((128, 128), np.uint8)
    mask[:64] = 255
    expected = emoji("a fox", image=picture, mask_image=mask, **call).images
    given = emoji("a fox", image=[torch.from_numpy(picture)], mask_image=torch.from_numpy(mask), **call).images
    np.testing.assert_array_equal(given, expected)
    with pytest.raises(RequestError, match=r"image \| received: a tensor: .* \| expected: one that numpy can read"):
        emoji("a fox", image=torch.zeros(128, 128, 3, requires_grad=True), **call)


def test_noise_on_another_device_is_refused(emoji: Pipeline) -> None:
    class OnAGpu:
        shape, dtype = (1, 4, 16, 16), np.dtype(np.float32)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    with pytest.raises(RequestError, match=r"latents \| received: on CUDA \| expected: on the host"):
        emoji("a fox", latents=OnAGpu(), num_inference_steps=1)  # type: ignore[arg-type]
