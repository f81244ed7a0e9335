"""A single file gives the same components as the folder that it was converted from, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders import single_file_utils as diffusers_conversions
from safetensors.torch import load_file, save_file

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.checkpoints.lazy_weights import LazyWeight
from latentrt.export.checkpoints.pretrained import network_weights
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.export.networks.skeleton import fitting_weights

from . import tiny_families as tiny
from .conftest import Saved


def used(checkpoint: Checkpoint) -> dict[str, dict[str, LazyWeight]]:
    """The weights of every network by folder, by the network's own names."""
    return {
        component.folder: fitting_weights(component.network(), component.weights(), component.where)
        for component in components_from_checkpoint(checkpoint, "fp32")
    }


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_tensor_is_the_folders(family: str, saved: Saved) -> None:
    folder, file = (used(read_checkpoint(path)) for path in saved(family))
    assert folder.keys() == file.keys()
    for name, weights in folder.items():
        assert weights.keys() == file[name].keys()
        for key, weight in weights.items():
            other = file[name][key]
            assert (other.shape, other.dtype) == (weight.shape, weight.dtype), f"{name}: {key}"
            content = other.read()
            assert content.is_contiguous()
            assert content.shape == other.shape
            assert torch.equal(content, weight.read()), f"{name}: {key}"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_configs_are_the_folders(family: str, saved: Saved) -> None:
    folder, file = (read_checkpoint(path) for path in saved(family))
    assert (file.name, file.family.name) == ("model", folder.family.name)
    assert file.configs.keys() == folder.configs.keys()
    for name in file.weights:
        expected = folder.configs[name]
        assert {key: expected.get(key) for key in file.configs[name]} == file.configs[name], name


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl-refiner"])
def test_unets_and_autoencoders_are_what_diffusers_makes_of_the_file(family: str, saved: Saved) -> None:
    path = saved(family)[1]
    checkpoint = read_checkpoint(path)
    conversions = {
        "unet": diffusers_conversions.convert_ldm_unet_checkpoint,
        "vae": diffusers_conversions.convert_ldm_vae_checkpoint,
    }
    for folder, convert in conversions.items():
        assert_same_weights(checkpoint, folder, convert(load_file(path), checkpoint.configs[folder]))


@pytest.mark.parametrize("family", ["sd3", "sd3.5"])
def test_transformers_are_what_diffusers_makes_of_the_file(family: str, saved: Saved) -> None:
    path = saved(family)[1]
    state = {name: tensor for name, tensor in load_file(path).items() if "diffusion_model" in name}
    converted = diffusers_conversions.convert_sd3_transformer_checkpoint_to_diffusers(state)
    assert_same_weights(read_checkpoint(path), "transformer", converted)


def test_text_encoders_are_what_diffusers_makes_of_the_file(saved: Saved) -> None:
    path = saved("sdxl")[1]
    state, checkpoint = load_file(path), read_checkpoint(path)
    second = components_from_checkpoint(checkpoint, "fp32")[1].network()
    open_clip = diffusers_conversions.convert_open_clip_checkpoint(second, state, "conditioner.embedders.1.model.")
    # It takes the width of the projection for the width of the model, which bigG has in common; here they differ.
    matching = {name: tensor for name, tensor in open_clip.items() if "_proj." not in name or "out_proj" in name}
    assert_same_weights(checkpoint, "text_encoder_2", matching, whole=False)
    clip = diffusers_conversions.convert_ldm_clip_checkpoint(state)
    assert_same_weights(checkpoint, "text_encoder", clip, whole=False)
    path = saved("sd3")[1]
    t5 = diffusers_conversions.convert_sd3_t5_checkpoint_to_diffusers(load_file(path))
    assert_same_weights(read_checkpoint(path), "text_encoder_3", t5)


def assert_same_weights(
    checkpoint: Checkpoint, folder: str, expected: dict[str, torch.Tensor], *, whole: bool = True
) -> None:
    weights = network_weights(checkpoint, folder)
    expected = {name: tensor for name, tensor in expected.items() if not name.endswith("position_ids")}
    assert len(expected) > 10
    for name, tensor in expected.items():
        assert torch.equal(weights[name].read(), tensor), f"{folder}: {name}"
    if whole:
        assert len(expected) == len(checkpoint.weights[folder].sources)


def test_the_digest_is_of_the_tensors_that_a_component_uses(saved: Saved, tmp_path: Path) -> None:
    def digests(state: dict[str, torch.Tensor], name: str) -> dict[str, str]:
        save_file(state, tmp_path / name, {"written by": name})
        checkpoint = read_checkpoint(tmp_path / name)
        return {folder: checkpoint.digest(folder) for folder in checkpoint.weights}

    state = load_file(saved("sdxl")[1])
    before = digests(state, "before.safetensors")
    assert digests({**state, "another.tensor": torch.ones(2)}, "more.safetensors") == before
    key = "conditioner.embedders.1.model.ln_final.bias"
    after = digests({**state, key: state[key] + 1}, "after.safetensors")
    assert [folder for folder in before if after[folder] != before[folder]] == ["text_encoder_2"]
