"""What a loaded pipeline does besides drawing the right picture."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentrt.runtime import Pipeline, load
from latentrt.runtime.bundles.manifest import decode_manifest, encode_manifest
from latentrt.runtime.device.steps import Step
from latentrt.runtime.errors import BundleError, EngineError, RequestError
from latentrt.runtime.images.provenance import read_provenance
from latentrt.runtime.loop.denoise_plan import DenoisePlan

State = dict[str, NDArray[np.float32]]


def test_output_types_show_the_same_picture(emoji: Pipeline) -> None:
    pictures = emoji("a fox", seed=1, num_inference_steps=4).images
    arrays = emoji("a fox", seed=1, num_inference_steps=4, output_type="np").images
    latents = emoji("a fox", seed=1, num_inference_steps=4, output_type="latent").images
    assert isinstance(pictures[0], Image.Image)
    assert pictures[0].mode == "RGB"
    assert arrays.dtype == np.float32
    assert arrays.shape == (1, 128, 128, 3)
    assert 0 <= arrays.min() <= arrays.max() <= 1
    assert latents.shape == (1, 4, 16, 16)
    assert np.array_equal(np.asarray(pictures[0]), np.round(arrays[0] * 255).astype(np.uint8))


def test_stage_times_add_up_to_the_total(emoji: Pipeline) -> None:
    timings = emoji("a fox", num_inference_steps=4).timings
    stages = {name: seconds for name, seconds in timings.as_dict().items() if name not in ("total", "engines")}
    assert set(stages) == {"tokenize", "text", "encode", "prepare", "denoise", "decode", "postprocess"}
    assert all(seconds > 0 for name, seconds in stages.items() if name != "encode")
    assert stages["encode"] == 0
    assert sum(stages.values()) <= timings.total
    assert 0 < timings.engines < timings.total
    assert timings.overhead == pytest.approx(1 - timings.engines / timings.total)


def test_a_callback_sees_every_step_in_order(emoji: Pipeline) -> None:
    seen: list[tuple[int, float, tuple[int, ...]]] = []

    def look(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        assert pipe is emoji
        seen.append((index, timestep, state["latents"].shape))

    output = emoji("a fox", num_inference_steps=5, num_images_per_prompt=2, callback_on_step_end=look)
    assert [index for index, _, _ in seen] == [0, 1, 2, 3, 4]
    timesteps = [timestep for _, timestep, _ in seen]
    assert timesteps == sorted(timesteps, reverse=True)
    assert {shape for _, _, shape in seen} == {(2, 4, 16, 16)}
    assert output.steps_done == 5


def test_a_callback_can_stop_the_run_and_gets_what_is_there(emoji: Pipeline) -> None:
    kept: list[NDArray[np.float32]] = []

    def stop(pipe: Pipeline, index: int, timestep: float, state: State) -> bool:
        kept.append(state["latents"].copy())
        return index < 2

    output = emoji("a fox", seed=1, num_inference_steps=20, output_type="latent", callback_on_step_end=stop)
    assert len(kept) == 3
    assert output.steps_done == 3
    assert np.array_equal(output.images, kept[-1])


def test_a_callback_can_replace_the_latents(emoji: Pipeline) -> None:
    def replace(pipe: Pipeline, index: int, timestep: float, state: State) -> Mapping[str, object] | None:
        return {"latents": np.zeros_like(state["latents"])} if index == 3 else None

    output = emoji("a fox", num_inference_steps=4, output_type="latent", callback_on_step_end=replace)
    assert np.count_nonzero(output.images) == 0


def test_latents_of_a_wrong_shape_from_a_callback_are_refused(emoji: Pipeline) -> None:
    def replace(pipe: Pipeline, index: int, timestep: float, state: State) -> Mapping[str, object]:
        return {"latents": np.zeros((1, 2), np.float32)}

    with pytest.raises(RequestError, match="the callback's latents"):
        emoji("a fox", num_inference_steps=4, callback_on_step_end=replace)


def test_an_exception_in_a_callback_ends_the_call_and_not_the_pipeline(emoji: Pipeline) -> None:
    def fail(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        emoji("a fox", num_inference_steps=4, callback_on_step_end=fail)
    assert emoji("a fox", num_inference_steps=1).steps_done == 1


def test_injected_latents_are_not_changed(emoji: Pipeline) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 16, 16), dtype=np.float32)
    before = latents.copy()
    emoji("a fox", num_inference_steps=2, latents=latents)
    assert np.array_equal(latents, before)


def test_threads_share_a_pipeline_and_get_their_own_pictures(emoji: Pipeline) -> None:
    prompts = ["a fox", "an owl on a blue background", "a house", "a rocket"] * 2

    def draw(i: int) -> NDArray[np.float32]:
        sampler = ("euler", "dpmpp_2m", "euler_a")[i % 3]
        images: NDArray[np.float32] = emoji(
            prompts[i], seed=i, num_inference_steps=3 + i % 3, sampler=sampler, output_type="latent"
        ).images
        return images

    alone = [draw(i) for i in range(len(prompts))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(len(prompts))))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_closed_pipeline_says_so(emoji_bundle: Path) -> None:
    with load(emoji_bundle, verify=False) as pipe:
        pass
    with pytest.raises(EngineError, match="the pipeline is closed"):
        pipe("a fox", num_inference_steps=1)


def test_one_thread_draws_the_same_picture(emoji: Pipeline, emoji_bundle: Path) -> None:
    with load(emoji_bundle, threads=1, verify=False) as pipe:
        alone = pipe("a fox", seed=3, num_inference_steps=3, output_type="np").images
    assert np.abs(alone - emoji("a fox", seed=3, num_inference_steps=3, output_type="np").images).max() < 1e-5


def test_guidance_outside_its_interval_costs_one_row(emoji: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    step = DenoisePlan.step

    def count(plan: DenoisePlan, groups: int) -> Step:
        rows.append(groups)
        return step(plan, groups)

    monkeypatch.setattr(DenoisePlan, "step", count)
    emoji("a fox", num_inference_steps=10, guidance_scale=5.0, guidance_interval=(0.2, 0.6))
    assert rows == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]
    rows.clear()
    emoji("a fox", num_inference_steps=5, guidance_scale=[5.0, 1.0, 2.0, 0.5, -1.0])
    assert rows == [2, 1, 2, 1, 1], "a scale of 1 or less is no guidance"


def test_a_scale_below_1_in_a_list_is_no_guidance(emoji: Pipeline) -> None:
    def final(*scales: float) -> NDArray[np.float32]:
        images: NDArray[np.float32] = emoji(
            "a fox", seed=1, num_inference_steps=3, guidance_scale=scales, output_type="latent"
        ).images
        return images

    assert np.array_equal(final(5, 0.3, 0), final(5, 1, 1))


def test_numpy_values_are_recorded_as_plain_ones(emoji: Pipeline, tmp_path: Path) -> None:
    output = emoji(
        np.str_("a fox"), num_inference_steps=np.int64(3), guidance_scale=[np.float32(3), 2.0, np.float64(1.5)],
        guidance_interval=(np.float32(0), np.float64(1)), sampler="ddim", width=np.int32(128), seed=[np.uint32(5)],
        sampler_options={"eta": np.float32(0.25)},
    )  # fmt: skip
    made, _ = read_provenance(output.save(tmp_path / "a.png")[0])
    assert made is not None
    assert (made.guidance_scale, made.sampler_options, made.seed) == ((3.0, 2.0, 1.5), {"eta": 0.25}, 5)


def test_sampler_options_reach_the_table(emoji: Pipeline) -> None:
    timesteps = [901.0, 601.0, 301.0, 1.0]
    seen: list[float] = []

    def look(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        seen.append(timestep)

    output = emoji("a fox", seed=1, sampler_options={"timesteps": timesteps}, callback_on_step_end=look)
    assert seen == timesteps
    assert output.provenance[0].num_inference_steps == 4
    assert output.provenance[0].sampler_options == {"timesteps": tuple(timesteps)}
    with pytest.raises(RequestError, match="etta"):
        emoji("a fox", sampler="ddim", sampler_options={"etta": 0.5})


def test_brownian_noise_makes_runs_of_different_lengths_alike(emoji: Pipeline) -> None:
    def final(steps: int, noise: str) -> NDArray[np.float32]:
        images: NDArray[np.float32] = emoji(
            "a fox on a blue background", seed=5, num_inference_steps=steps, sampler="dpmpp_2m_sde",
            schedule="karras", sampler_options={"noise": noise}, output_type="latent",
        ).images  # fmt: skip
        return images

    brownian = np.abs(final(40, "brownian") - final(60, "brownian")).mean()
    gaussian = np.abs(final(40, "gaussian") - final(60, "gaussian")).mean()
    assert brownian < 0.5 * gaussian


def test_a_run_goes_on_from_replaced_latents(emoji: Pipeline) -> None:
    other = np.random.default_rng(1).standard_normal((1, 4, 16, 16), dtype=np.float32)
    inputs: list[NDArray[np.float32]] = []

    def replace(pipe: Pipeline, index: int, timestep: float, state: State) -> Mapping[str, object] | None:
        inputs.append(state["latents"].copy())
        return {"latents": other} if index == 0 else None

    def look(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        inputs.append(state["latents"].copy())

    emoji("a fox", seed=1, num_inference_steps=2, callback_on_step_end=replace)
    emoji("a fox", seed=1, num_inference_steps=2, callback_on_step_end=look)
    first, replaced_second, same_first, second = inputs
    assert np.array_equal(first, same_first)
    assert np.abs(replaced_second - second).max() > 0.1
    assert np.corrcoef(replaced_second.ravel(), other.ravel())[0, 1] > 0.5


def test_a_bundle_without_a_decoder_gives_latents_and_refuses_pictures_at_once(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(emoji_bundle, tmp_path / "bundle")
    manifest = decode_manifest((emoji_bundle / "manifest.json").read_bytes(), where="")
    engines = tuple(engine for engine in manifest.engines if engine.component != "vae_decoder")
    changed = encode_manifest(msgspec.structs.replace(manifest, engines=engines))
    (tmp_path / "bundle" / "manifest.json").write_bytes(changed)
    with load(tmp_path / "bundle", verify=False) as pipe:
        assert pipe("a fox", num_inference_steps=1, output_type="latent").images.shape == (1, 4, 16, 16)
        monkeypatch.setattr(pipe.engines, "run", None)
        with pytest.raises(BundleError, match="no engine for vae_decoder"):
            pipe("a fox", num_inference_steps=1)
