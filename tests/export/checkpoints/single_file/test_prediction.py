"""What a file was trained to predict: told by marks, metadata and the caller, or guessed from one bias of SD2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.runtime.errors import CheckpointError

from .conftest import Saved

SD2_BIAS = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.norm1.bias"


@pytest.fixture
def changed(saved: Saved, tmp_path: Path) -> Any:
    """``changed(family, tensors, metadata, prediction_type)``: a tiny checkpoint with more tensors in its file."""

    def get(
        family: str, tensors: dict[str, Any], metadata: dict[str, str] | None = None, chosen: str | None = None
    ) -> Checkpoint:
        state = load_file(saved(family)[1])
        save_file({**state, **tensors}, tmp_path / "model.safetensors", metadata)
        return read_checkpoint(tmp_path / "model.safetensors", prediction_type=chosen)

    return get


def predicts(checkpoint: Checkpoint) -> Any:
    return checkpoint.scheduler_config["prediction_type"]


def test_marks_of_v_prediction_and_zero_terminal_snr(changed: Any) -> None:
    mark = torch.tensor([])
    assert predicts(changed("sdxl", {})) == "epsilon"
    assert predicts(changed("sdxl", {"v_pred": mark})) == "v_prediction"
    assert "rescale_betas_zero_snr" not in changed("sdxl", {"v_pred": mark}).scheduler_config
    config = changed("sdxl", {"v_pred": mark, "ztsnr": mark}).scheduler_config
    assert (config["prediction_type"], config["_class_name"]) == ("v_prediction", "EulerDiscreteScheduler")
    assert config["rescale_betas_zero_snr"] is True
    assert config["timestep_spacing"] == "trailing"


def test_zero_terminal_snr_takes_a_scheduler_that_knows_it(changed: Any) -> None:
    import diffusers

    config = changed("sd1", {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}).scheduler_config
    scheduler = diffusers.DDIMScheduler.from_config(dict(config))
    assert config["_class_name"] == "DDIMScheduler"
    assert scheduler.alphas_cumprod[-1] == 0
    assert not scheduler.config.clip_sample


@pytest.mark.parametrize(("stated", "expected"), [("v", "v_prediction"), ("epsilon", "epsilon")])
def test_modelspec_says_it(changed: Any, stated: str, expected: str) -> None:
    assert predicts(changed("sdxl", {}, {"modelspec.prediction_type": stated})) == expected
    assert predicts(changed("sd2", {}, {"modelspec.prediction_type": stated})) == expected


def test_modelspec_says_something_else(changed: Any) -> None:
    metadata = {"modelspec.prediction_type": "x0"}
    with pytest.raises(CheckpointError, match=r"modelspec\.prediction_type \| received: x0.*--prediction-type"):
        changed("sdxl", {}, metadata)
    assert predicts(changed("sdxl", {}, metadata, chosen="epsilon")) == "epsilon"
    assert changed("sd3", {}, metadata).scheduler_config["shift"] == 3.0


def test_the_caller_knows_better(changed: Any) -> None:
    assert predicts(changed("sdxl", {"v_pred": torch.zeros(1)}, chosen="epsilon")) == "epsilon"
    assert predicts(changed("sd1", {}, chosen="v_prediction")) == "v_prediction"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("deviation", "expected"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_sd2_by_the_deviation_of_a_bias(changed: Any, dtype: torch.dtype, deviation: float, expected: str) -> None:
    bias = torch.linspace(-1, 1, 64)
    bias = (bias / bias.std() * deviation).to(dtype)
    checkpoint = changed("sd2", {SD2_BIAS: bias})
    assert predicts(checkpoint) == expected
    assert checkpoint.configs["unet"]["sample_size"] == (96 if expected == "v_prediction" else 64)


def test_sd2_with_more_channels_predicts_epsilon(changed: Any, saved: Saved) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    first = load_file(saved("sd2")[1])[name]
    wide = torch.cat([first, first, first[:, :1]], dim=1)
    checkpoint = changed("sd2", {name: wide, SD2_BIAS: torch.linspace(-1, 1, 64)})
    assert predicts(checkpoint) == "epsilon"
    assert checkpoint.configs["unet"]["in_channels"] == 9
