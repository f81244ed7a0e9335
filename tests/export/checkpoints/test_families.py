"""What a checkpoint's configs say of its family, its task and its defaults."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentrt.export.buckets import SDXL_TRAINING_BUCKETS
from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.checkpoints.defaults import defaults_of, is_few_step
from latentrt.export.checkpoints.families import FAMILIES, SD1, SD2, SD3, SDXL
from latentrt.export.checkpoints.tasks import TASKS
from latentrt.export.networks.components import latent_stride, max_side, native_side, task_of, vae_scale
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.runtime.bundles.manifest import Defaults, ExtraChannels
from latentrt.runtime.errors import CheckpointError

SIZE = (64, 48)


def with_config(checkpoint: Checkpoint, folder: str, **changes: object) -> Checkpoint:
    """A checkpoint whose config of one component says something else."""
    configs = {**checkpoint.configs, folder: {**checkpoint.configs[folder], **changes}}
    return dataclasses.replace(checkpoint, configs=configs)


@pytest.mark.parametrize(
    ("name", "family", "task"),
    [
        ("sd1", "sd1", "text-to-image"),
        ("sd1-inpainting", "sd1", "inpainting"),
        ("sd1-edit", "sd1", "edit"),
        ("sd2", "sd2", "text-to-image"),
        ("sd2-depth", "sd2", "depth"),
        ("sdxl-lcm-inpainting", "sdxl", "inpainting"),
        ("sdxl-refiner", "sdxl-refiner", "text-to-image"),
        ("sd3", "sd3", "text-to-image"),
        ("sd3-without-t5", "sd3", "text-to-image"),
    ],
)
def test_family_and_task(family_checkpoint: Callable[[str], Path], name: str, family: str, task: str) -> None:
    checkpoint = read_checkpoint(family_checkpoint(name))
    assert checkpoint.family.name == family
    assert task_of(checkpoint).name == task


def test_extra_channels_lie_in_the_order_of_diffusers() -> None:
    channels = {task.name: task.extra_channels(4) for task in TASKS}
    assert channels == {
        "text-to-image": (),
        "inpainting": (ExtraChannels("mask", 1), ExtraChannels("masked_latents", 4)),
        "edit": (ExtraChannels("image_latents", 4),),
        "depth": (ExtraChannels("depth", 1),),
    }


def test_a_number_of_channels_that_no_task_has(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = with_config(read_checkpoint(family_checkpoint("sd1")), "unet", in_channels=7)
    with pytest.raises(CheckpointError, match=r"in_channels \| received: 7 \| expected: 4 \(text-to-image\) or 9"):
        task_of(checkpoint)


def test_sizes_that_a_transformer_implies(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = read_checkpoint(family_checkpoint("sd3"))
    assert (vae_scale(checkpoint), latent_stride(checkpoint), native_side(checkpoint)) == (2, 2, 24)
    assert max_side(checkpoint) == 44
    assert max_side(read_checkpoint(family_checkpoint("sd1"))) is None


# --- defaults ---------------------------------------------------------------------------------------------------------

TRAILING = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"_class_name": "EulerAncestralDiscreteScheduler", **TRAILING}, True),  # SDXL Turbo
        ({"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", **TRAILING}, True),  # Lightning
        ({"_class_name": "LCMScheduler", "timestep_spacing": "leading"}, True),
        ({"_class_name": "TCDScheduler"}, True),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}, False),  # SDXL base
        ({"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", **TRAILING}, False),
        ({"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": True, **TRAILING}, False),
        ({"_class_name": "DDIMScheduler", **TRAILING}, False),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, False),
    ],
)
def test_models_of_few_steps_are_told_by_their_scheduler(scheduler: dict[str, Any], expected: bool) -> None:
    assert is_few_step(scheduler) is expected


def test_defaults(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = read_checkpoint(family_checkpoint("sd1"))
    assert defaults_of(checkpoint, SIZE) == Defaults(64, 48, 50, 7.5, 0.8)
    turbo = with_config(checkpoint, "scheduler", **TRAILING)
    assert defaults_of(turbo, SIZE) == Defaults(64, 48, 4, 1.0, 0.8)
    assert defaults_of(read_checkpoint(family_checkpoint("sd1-lcm")), SIZE) == Defaults(64, 48, 4, 8.5, 0.8)
    assert defaults_of(read_checkpoint(family_checkpoint("sd2")), SIZE).num_inference_steps == 50
    assert defaults_of(read_checkpoint(family_checkpoint("sd3")), SIZE) == Defaults(64, 48, 28, 7.0, 0.6)


# --- records ----------------------------------------------------------------------------------------------------------


def test_every_bucket_of_every_family_suits_its_networks() -> None:
    for family in FAMILIES:
        for width, height in (*family.buckets, *family.training_buckets):
            assert width % 64 == height % 64 == 0
        assert (family.native_side, family.native_side) == family.buckets[0]


def test_sdxls_training_buckets_are_those_of_its_paper() -> None:
    assert len(SDXL_TRAINING_BUCKETS) == len(set(SDXL_TRAINING_BUCKETS)) == 40
    assert {width / height for width, height in SDXL_TRAINING_BUCKETS} >= {0.25, 1.0, 4.0}
    assert all(abs(width * height / 1024**2 - 1) <= 0.1 for width, height in SDXL_TRAINING_BUCKETS)
    assert {(1024, 1024), (1152, 896), (1344, 704), (1344, 768), (2048, 512), (512, 2048)} <= set(SDXL_TRAINING_BUCKETS)


def test_only_sdxl_was_published_with_its_training_buckets() -> None:
    assert [family.name for family in FAMILIES if family.training_buckets] == ["sdxl", "sdxl-refiner"]
    assert (SD1.native_side, SD2.native_side, SDXL.native_side, SD3.native_side) == (512, 768, 1024, 1024)


# --- components that do not belong together ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "changes", "expected"),
    [
        ("sd1", "vae", {"latent_channels": 16}, "the autoencoder is not this denoiser's | received: 16 latent chan"),
        ("sd1", "text_encoder", {"hidden_size": 24}, "not this denoiser's | received: text states of width 24"),
        ("sd3", "text_encoder_3", {"d_model": 40}, "not this denoiser's | received: text states of width 40"),
        ("sd3", "text_encoder_2", {"projection_dim": 12}, "not this denoiser's | received: a pooled text of width 24"),
        ("sdxl-refiner", "text_encoder_2", {"projection_dim": 30}, "received: a pooled text of width 30"),
        ("sd1", "vae", {"_class_name": "AsymmetricAutoencoderKL"}, "_class_name | received: AsymmetricAutoencoderKL |"),
        ("sd1", "unet", {"class_embed_type": "projection"}, "class_embed_type | received: projection"),
        ("sd1", "text_encoder", {"model_type": "xlm-roberta"}, "model_type | received: xlm-roberta | expected: clip"),
        ("sd1", "text_encoder", {"use_attention_mask": True}, "use_attention_mask | received: True"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    family_checkpoint: Callable[[str], Path], name: str, folder: str, changes: dict[str, Any], expected: str
) -> None:
    checkpoint = with_config(read_checkpoint(family_checkpoint(name)), folder, **changes)
    with pytest.raises(CheckpointError) as error:
        components_from_checkpoint(checkpoint, "fp32")
    assert expected in str(error.value)


def test_an_unlisted_component_is_not_looked_for(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(family_checkpoint("sd3"), tmp_path / "sd3"))
    shutil.rmtree(path / "text_encoder_3")
    with pytest.raises(CheckpointError, match=r"text_encoder_3/config.json: missing"):
        read_checkpoint(path)
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps({**index, "text_encoder_3": [None, None]}))
    names = [component.name for component in components_from_checkpoint(read_checkpoint(path), "fp32")]
    assert names == ["text_encoder", "text_encoder_2", "vae_encoder", "denoiser", "vae_decoder"]
