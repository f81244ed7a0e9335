"""A base and a refiner as one call equal diffusers' two pipelines in fp32."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentrt.runtime import RefinedPipeline, load
from latentrt.runtime.bundles.bundle import Bundle
from latentrt.runtime.bundles.manifest import decode_manifest, encode_manifest
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import BundleError, RequestError
from latentrt.runtime.images.provenance import read_provenance
from latentrt.runtime.loop.callback import StepState
from latentrt.runtime.providers import onnxruntime
from latentrt.runtime.refiner import going_on

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4
IMAGE_LIMIT = 1e-3  # max-abs, on images in 0..1
SEED = 9


@pytest.fixture(scope="module")
def refiner_checkpoint(once: Callable[[str, Callable[[Path], object]], Path], tiny_checkpoint: Path) -> Path:
    """An untrained refiner with the second text encoder and the autoencoder of the untrained SDXL, as SDXL's has."""

    def save(path: Path) -> None:
        base = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_checkpoint)
        torch.manual_seed(13)
        config = {
            **base.unet.config, "block_out_channels": (24, 32), "layers_per_block": 1, "cross_attention_dim": 40,
            "transformer_layers_per_block": 1, "projection_class_embeddings_input_dim": 28 + 5 * 6,
        }  # fmt: skip
        diffusers.StableDiffusionXLImg2ImgPipeline(
            vae=base.vae, text_encoder=None, text_encoder_2=base.text_encoder_2, tokenizer=None,
            tokenizer_2=base.tokenizer_2, unet=diffusers.UNet2DConditionModel.from_config(config),
            scheduler=base.scheduler, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False,
            add_watermarker=False,
        ).save_pretrained(path)  # fmt: skip

    return once("tiny-sdxl-with-refiner", save)


@pytest.fixture(scope="module")
def refiner_bundle(once: Callable[[str, Callable[[Path], object]], Path], refiner_checkpoint: Path) -> Path:
    def build(path: Path) -> None:
        from latentrt.export.bundle_from_checkpoint import bundle_from_checkpoint

        bundle_from_checkpoint(refiner_checkpoint, path)

    return once("tiny-sdxl-with-refiner-bundle", build)


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path, refiner_bundle: Path) -> Iterator[RefinedPipeline]:
    with load(tiny_bundle, refiner=refiner_bundle) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def references(tiny_checkpoint: Path, refiner_checkpoint: Path) -> tuple[Any, Any]:
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_checkpoint, add_watermarker=False)
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner_checkpoint, add_watermarker=False)
    for one in (base, refiner):
        one.to(torch.float32).set_progress_bar_config(disable=True)
    return base, refiner


def of_diffusers(references: tuple[Any, Any], call: dict[str, Any], first: Any, second: Any, out: str) -> Any:
    """The two pipelines as diffusers documents them, with one generator for both."""
    generator = [torch.Generator("cpu").manual_seed(SEED)]
    latents = references[0](**call, **first, generator=generator, output_type="latent").images
    call = {name: value for name, value in call.items() if name not in ("width", "height")}
    return np.asarray(references[1](**call, **second, image=latents, generator=generator, output_type=out).images)


def with_scheduler(references: tuple[Any, Any], kind: str, **options: Any) -> tuple[Any, Any]:
    changed = []
    for pipe in references:
        scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **options)
        settings = {"force_zeros_for_empty_prompt": False, "add_watermarker": False}
        if "requires_aesthetics_score" in pipe.config:
            settings["requires_aesthetics_score"] = pipe.config.requires_aesthetics_score
        changed.append(type(pipe)(**{**pipe.components, "scheduler": scheduler}, **settings))
        changed[-1].set_progress_bar_config(disable=True)
    return changed[0], changed[1]


SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
}


@pytest.mark.parametrize("size", [(96, 96), (120, 72)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_handover_equals_diffusers(
    sampler: str, size: tuple[int, int], pipe: RefinedPipeline, references: tuple[Any, Any]
) -> None:
    kind, options = SAMPLERS[sampler]
    changed = with_scheduler(references, kind, **options)
    call: dict[str, Any] = {
        "prompt": "a fox on blue", "negative_prompt": "red", "num_inference_steps": 10, "guidance_scale": 5.0,
        "width": size[0], "height": size[1],
    }  # fmt: skip
    limits = {"latent": LATENT_LIMIT, **({"np": IMAGE_LIMIT} if sampler == "euler" else {})}
    for out, limit in limits.items():
        expected = of_diffusers(changed, call, {"denoising_end": 0.8}, {"denoising_start": 0.8}, out)
        received = pipe(**call, sampler=sampler, seed=SEED, output_type=out)
        assert np.abs(received.images - expected).max() <= limit
        # Where the switch falls between Heun's two evaluations, diffusers' refiner repeats the step.
        assert received.steps_done == (11 if sampler == "heun" else 10)


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m"])
def test_a_second_pass_equals_diffusers(sampler: str, pipe: RefinedPipeline, references: tuple[Any, Any]) -> None:
    kind, options = SAMPLERS[sampler]
    changed = with_scheduler(references, kind, **options)
    call: dict[str, Any] = {"prompt": "a fox on blue", "num_inference_steps": 6, "guidance_scale": 4.0}
    second = {"strength": 0.5, "aesthetic_score": 7.0, "negative_aesthetic_score": 1.5}
    expected = of_diffusers(changed, call, {}, second, "latent")
    received = pipe(
        **call, sampler=sampler, seed=SEED, output_type="latent", refiner_strength=0.5, aesthetic_score=7.0,
        negative_aesthetic_score=1.5,
    )  # fmt: skip
    assert np.abs(received.images - expected).max() <= LATENT_LIMIT
    assert received.steps_done == 6 + 3


def test_a_refiner_alone_is_image_to_image(refiner_bundle: Path, references: tuple[Any, Any]) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 24, 24), dtype=np.float32)
    call: dict[str, Any] = {"prompt": "a fox", "num_inference_steps": 6, "strength": 0.5, "guidance_scale": 4.0}
    generator = [torch.Generator("cpu").manual_seed(SEED)]
    expected = references[1](**call, image=torch.from_numpy(latents), generator=generator, output_type="np").images
    with load(refiner_bundle, verify=False) as refiner:
        received = refiner(**call, image=latents, seed=SEED, output_type="np").images
    assert np.abs(received - expected).max() <= IMAGE_LIMIT


def test_what_both_bundles_hold_is_loaded_once(pipe: RefinedPipeline) -> None:
    for component in ("text_encoder_2", "vae_decoder"):
        assert pipe.refiner.engines[component] is pipe.base.engines[component]
    assert pipe.refiner.engines["denoiser"] is not pipe.base.engines["denoiser"]
    # also where one of them is only loaded when a call needs it
    assert pipe.refiner.engines["vae_encoder"] is pipe.base.engines["vae_encoder"]


def test_a_text_is_encoded_once_for_both(pipe: RefinedPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = Engines.run

    def note(engines: Engines, component: str, *arguments: Any) -> dict[str, NDArray[Any]]:
        ran.append(component)
        return run(engines, component, *arguments)

    monkeypatch.setattr(Engines, "run", note)
    pipe("an owl at noon", num_inference_steps=5, guidance_scale=1.0, output_type="latent")
    assert ran == ["text_encoder", "text_encoder_2"]


def test_the_device_has_the_kernels_of_both(
    tiny_bundle: Path, refiner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need not be of the same types."""
    opened: list[Path] = []

    def open_device(*bundles: Bundle) -> HostDevice:
        opened.extend(bundle.path for bundle in bundles)
        return HostDevice()

    monkeypatch.setattr(onnxruntime, "open_device", open_device)
    load(tiny_bundle, refiner=refiner_bundle).close()
    assert opened == [tiny_bundle, refiner_bundle]


def test_offloaded_text_encoders_are_not_shared(tiny_bundle: Path, refiner_bundle: Path, pipe: RefinedPipeline) -> None:
    arguments: dict[str, Any] = {"seed": SEED, "num_inference_steps": 3, "output_type": "latent"}
    with load(tiny_bundle, refiner=refiner_bundle, offload="text", verify=False) as offloading:
        for prompt in ("a lighthouse", "a lighthouse", "a boat"):
            received, expected = offloading(prompt, **arguments).images, pipe(prompt, **arguments).images
            np.testing.assert_array_equal(received, expected)
        for half in (offloading.base, offloading.refiner):
            assert half.engines.get("text_encoder_2") is None
        offloading.warmup([(96, 96)])
        assert offloading.refiner.engines.get("vae_decoder") is None, "it is the base that decodes"


def test_a_seed_gives_the_same_picture_in_any_batch(pipe: RefinedPipeline) -> None:
    call: dict[str, Any] = {"num_inference_steps": 5, "sampler": "euler_a", "output_type": "np", "guidance_scale": 3.0}
    for way in ({"handover": 0.6}, {"refiner_strength": 0.4}):
        alone = pipe("a fox", seed=22, **call, **way).images[0]
        batch = pipe(["an owl", "a house", "a fox"], seed=20, **call, **way).images
        assert np.abs(batch[2] - alone).max() <= 1e-5


def test_samplers_with_other_states_hand_over(pipe: RefinedPipeline) -> None:
    """Euler's state grows with the noise and DDIM's has unit variance: what is handed over is the same picture."""
    call: dict[str, Any] = {"num_inference_steps": 10, "seed": SEED, "output_type": "latent", "guidance_scale": 1.0}
    first = pipe.base.request("a fox", denoising_end=0.8, sampler="euler", **call)
    second = pipe.refiner.request(
        "a fox", denoising_start=0.8, sampler="ddim", image=np.zeros((1, 4, 24, 24), np.float32), **call
    )
    tables = pipe.base.table(first), pipe.refiner.table(second)
    signal, noise = tables[0].state_signal[-1], tables[0].state_noise[-1]
    state = np.full((1, 4, 24, 24), signal * 3 + noise * 0.5, np.float32)  # latents of 3 under noise of 0.5
    handed = going_on(second, state, *tables).source.latents
    assert handed is not None
    expected = tables[1].start_signal * 3 + tables[1].start_noise * 0.5
    np.testing.assert_allclose(handed.of_images(), expected, rtol=1e-5)


def test_the_callback_sees_both_and_can_stop_either(pipe: RefinedPipeline) -> None:
    seen: list[int] = []

    for last, done in ((99, 10), (8, 9), (7, 8), (3, 4)):

        def look(of: RefinedPipeline, index: int, timestep: float, state: StepState, last: int = last) -> bool:
            assert of is pipe
            seen.append(index)
            return index < last

        seen.clear()
        output = pipe("a fox", num_inference_steps=10, guidance_scale=1.0, callback_on_step_end=look)
        assert output.steps_done == done
        assert seen == list(range(done)), "8 steps of the base, 2 of the refiner"
        made = output.provenance[0]
        assert made.stopped_after == (done if last < 9 else None)
        assert (made.refiner is None) == (done <= 8), "the refiner has not touched the picture"


def test_the_steps_of_both_can_be_shown(pipe: RefinedPipeline) -> None:
    shown: list[NDArray[np.float32]] = []

    def show(of: RefinedPipeline, index: int, timestep: float, state: StepState) -> None:
        shown.append(of.decode(state["denoised"]))

    final = pipe("a fox", num_inference_steps=5, callback_on_step_end=show, seed=1, output_type="np").images
    assert len(shown) == 5
    assert np.abs(shown[-1] - final).max() <= IMAGE_LIMIT


def test_a_refiner_needs_no_decoder_of_its_own(tiny_bundle: Path, refiner_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(refiner_bundle, tmp_path / "refiner")
    manifest = decode_manifest((refiner_bundle / "manifest.json").read_bytes(), where="")
    kept = msgspec.structs.replace(
        manifest,
        engines=tuple(engine for engine in manifest.engines if engine.component != "vae_decoder"),
        components={name: value for name, value in manifest.components.items() if name != "vae_decoder"},
    )
    (tmp_path / "refiner" / "manifest.json").write_bytes(encode_manifest(kept))
    with load(tiny_bundle, refiner=tmp_path / "refiner", verify=False) as pipe:
        output = pipe("a fox", num_inference_steps=5, tile_size=64, tile_overlap=0.3)
    assert output.images[0].size == (96, 96)


def test_pngs_name_the_refiner(pipe: RefinedPipeline, tmp_path: Path) -> None:
    output = pipe("a fox", num_inference_steps=5, guidance_scale=1.0, handover=0.6)
    made, parameters = read_provenance(output.save(tmp_path / "a.png")[0])
    assert made is not None
    assert made.refiner is not None
    assert made.refiner.bundle_hash == pipe.refiner.bundle.hash
    assert (made.refiner.handover, made.refiner.strength, made.denoising_end) == (0.6, None, 0.6)
    assert parameters is not None
    assert f"Refiner: {pipe.refiner.bundle.manifest.name} [{pipe.refiner.bundle.hash[:10]}]" in parameters
    assert "Refiner switch at: 0.6" in parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"handover": 0.8, "refiner_strength": 0.3}, "handover and refiner_strength exclude each other"),
        ({"handover": 1.5}, r"handover \| received: 1.5 \| expected: a number from 0 to 1"),
        ({"handover": 0.0}, r"handover \| received: 0.0 \| expected: a number between 0 and 1"),
        ({"handover": 1.0}, r"handover \| received: 1.0"),
        ({"handover": 0.01}, "denoising_end leaves no step to run"),
        ({"refiner_strength": "much"}, r"refiner_strength \| received: 'much'"),
        ({"refiner_strength": 0.01}, "strength leaves no step to run"),
        ({"denoising_end": 0.8}, "denoising_end with a refiner .* handover"),
        (
            {"image": np.zeros((1, 4, 24, 24), np.float32), "mask_image": np.ones((96, 96), np.float32)},
            "mask_image with a hand-over .* refiner_strength",
        ),
        ({"sampler": "eulr"}, "euler"),
        ({"decoder": "huge"}, r"decoder \| received: 'huge'"),
        ({"callback_on_step_end": 5}, r"callback_on_step_end \| received: 5"),
    ],
)
def test_calls_that_cannot_be_run(
    pipe: RefinedPipeline, arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an engine ran")

    monkeypatch.setattr(pipe.base.engines, "run", refuse)
    with pytest.raises(RequestError, match=message):
        pipe("a fox", num_inference_steps=10, **arguments)


def test_a_refiner_with_other_latents_is_refused(
    tiny_bundle: Path, emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "load_engine", None)  # nothing has been loaded by then
    with pytest.raises(RequestError, match="other latents"):
        load(tiny_bundle, refiner=emoji_bundle)


def test_a_refiner_that_is_not_there(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle here"):
        load(tiny_bundle, refiner=tmp_path / "none")
