"""The gate's inputs are what components get when a picture is drawn: in every family, and the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.gate.gate_inputs import PROMPTS, GateInputs, pictures
from latentrt.export.networks.components import SourceComponent
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.spec import resolve_shape

SIZES = {"rows": 3, "images": 3, "texts": 2, "height": 12, "width": 20, "tokens": 154, "prompt_tokens": 77}


@pytest.fixture(scope="module")
def tiny_inputs(tiny_bundle: Path) -> GateInputs:
    return inputs_of(tiny_bundle)


@pytest.fixture(scope="module")
def tiny_components(tiny_checkpoint: Path) -> dict[str, SourceComponent]:
    """The PyTorch references."""
    return {c.name: c for c in components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")}


def inputs_of(bundle: Path, *without: str) -> GateInputs:
    """The inputs of a bundle that lacks some of its components."""
    manifest = open_bundle(bundle, verify=False).manifest
    records = {name: record for name, record in manifest.components.items() if name not in without}
    return GateInputs(manifest, bundle, records)


def of(inputs: GateInputs, component: str, seed: int = 0, **sizes: int) -> dict[str, Any]:
    record = inputs.manifest.components[component]
    return inputs.of(component, record, {**SIZES, **sizes}, seed)


def run(component: SourceComponent, *arrays: Any) -> Any:
    with torch.inference_mode():
        outputs = component.load()(*(torch.from_numpy(array) for array in arrays))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.parametrize("family", ["sd1-inpainting", "sd1-edit", "sd1-lcm", "sd2-depth", "sdxl-refiner", "sd3"])
def test_every_component_of_every_family_gets_what_its_contract_says(
    family: str, family_bundle: Callable[[str], Path]
) -> None:
    inputs = inputs_of(family_bundle(family))
    again = inputs_of(family_bundle(family))
    for name, record in inputs.manifest.components.items():
        for seed in (0, 1):
            arrays = of(inputs, name, seed)
            assert list(arrays) == [spec.name for spec in record.inputs]
            for spec in record.inputs:
                array = arrays[spec.name]
                assert (array.shape, array.dtype) == (resolve_shape(spec, SIZES), spec.dtype)
                assert np.isfinite(array).all()
                np.testing.assert_array_equal(array, of(again, name, seed)[spec.name])
        first = record.inputs[0].name
        assert first == "latents" or (of(inputs, name, 0)[first] != of(inputs, name, 1)[first]).any()


def test_texts_are_prompts_in_the_components_own_tokens(tiny_inputs: GateInputs) -> None:
    encoding = tiny_inputs.manifest.text_encodings[1]
    (ids,) = of(tiny_inputs, encoding.component).values()
    assert (ids[:, 0] == encoding.bos_token_id).all()
    lengths = (ids == encoding.eos_token_id).argmax(axis=1)
    assert lengths[0] > 8
    assert lengths[1] == 1
    assert PROMPTS[1] == ""


def test_the_denoiser_sees_encoded_prompts(
    tiny_inputs: GateInputs, tiny_components: dict[str, SourceComponent]
) -> None:
    arrays = of(tiny_inputs, "denoiser")
    states, pooled = [], []
    for name in ("text_encoder", "text_encoder_2"):
        (ids,) = of(tiny_inputs, name, texts=len(PROMPTS)).values()
        outputs = run(tiny_components[name], ids)
        states.append(outputs[0])
        pooled = outputs[1:]
    expected = np.concatenate(states, axis=-1)
    np.testing.assert_allclose(arrays["encoder_hidden_states"][0, :77], expected[0], atol=1e-4)
    np.testing.assert_allclose(arrays["encoder_hidden_states"][2, 77:], expected[3], atol=1e-4)
    np.testing.assert_allclose(arrays["text_embeds"], pooled[0][:3], atol=1e-4)
    side = tiny_inputs.manifest.latent_space.scale
    np.testing.assert_array_equal(
        arrays["time_ids"][0], np.array([12, 20, 0, 0, 12, 20]) * [side, side, 1, 1, side, side]
    )


def test_latents_are_those_of_a_picture_and_its_mirror_images(
    tiny_inputs: GateInputs, tiny_components: dict[str, SourceComponent]
) -> None:
    scale = tiny_inputs.manifest.latent_space.scale
    (latents,) = of(tiny_inputs, "vae_decoder", images=2, height=32, width=40).values()
    mean, _ = run(tiny_components["vae_encoder"], pictures(2, 32 * scale, 32 * scale, 0).astype(np.float32))
    np.testing.assert_allclose(latents[..., :32], mean, atol=1e-4)
    np.testing.assert_array_equal(latents[..., 32:], latents[..., 31:23:-1])


def test_noise_is_little_all_and_in_between_by_the_checkpoints_schedule(emoji_bundle: Path) -> None:
    inputs = inputs_of(emoji_bundle)
    arrays = of(inputs, "denoiser", height=32, width=32)
    (clean,) = of(inputs, "vae_decoder", height=32, width=32).values()
    little, most, middle = arrays["timestep"]
    assert little < 60 < 400 < middle < 600 < 950 < most
    shares = [
        np.corrcoef(row.ravel(), of_row.ravel())[0, 1] for row, of_row in zip(arrays["sample"], clean, strict=True)
    ]
    assert shares[0] > 0.9 > shares[2] > 0.3 > shares[1]
    assert all(0.9 < row.std() < 1.1 for row in arrays["sample"]), "the model's inputs have unit variance"
    turns = [timestep for seed in (0, 1) for timestep in of(inputs, "denoiser", seed, rows=2)["timestep"]]
    assert turns == [little, most, middle, little]


def test_pictures_have_edges_and_differ() -> None:
    drawn = pictures(2, 48, 64, seed=0)
    assert drawn.shape == (2, 3, 48, 64)
    assert np.abs(drawn).max() <= 1
    assert np.abs(np.diff(drawn, axis=-1)).max() > 0.2
    assert (drawn[0] != drawn[1]).any()


def test_normal_values_take_the_place_of_encoders_that_a_bundle_lacks(tiny_bundle: Path) -> None:
    inputs = inputs_of(tiny_bundle, "text_encoder", "vae_encoder")
    arrays = of(inputs, "denoiser")
    for spec in inputs.records["denoiser"].inputs:
        assert arrays[spec.name].shape == resolve_shape(spec, SIZES)
    assert 0.9 < arrays["encoder_hidden_states"].std() < 1.1
    assert 0.5 < arrays["text_embeds"].std() < 2


def test_an_encoder_that_models_do_without_gives_zeros(family_bundle: Callable[[str], Path]) -> None:
    arrays = of(inputs_of(family_bundle("sd3"), "text_encoder_3"), "denoiser")
    states = arrays["encoder_hidden_states"]  # CLIP's tokens, then T5's
    assert (states[:, :77] != 0).any(axis=(1, 2)).all()
    assert not states[:, 77:].any()
