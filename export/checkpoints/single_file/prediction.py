"""What a denoiser in a single file was trained to predict, and on which noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import CheckpointError, RequestError
from ..safetensors_header import SafetensorsHeader, TensorEntry
from .section import Section

#: Tensors that trainers add only as marks (NoobAI-XL, and those after it).
_V_PREDICTION_MARK, _ZERO_SNR_MARK = "v_pred", "ztsnr"

#: ModelSpec's words (https://github.com/Stability-AI/ModelSpec) and diffusers'.
_SPELLINGS = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}

#: SD 2.0 and 2.1 for v-prediction have a larger deviation of this bias than the base models. ComfyUI tells them apart
#: by it too (comfy/supported_models.py); diffusers takes v-prediction unless told otherwise.
_SD2_DEVIATION = 0.09


def prediction_type(denoiser: Section, chosen: str | None) -> str | None:
    """``epsilon`` or ``v_prediction``: the caller's choice, else the file's mark, else its ModelSpec metadata.

    None where nothing is said.

    Raises:
        RequestError, CheckpointError: a choice or a ModelSpec entry that is neither.
    """
    header = denoiser.header
    if chosen is not None:
        if chosen not in _SPELLINGS:
            raise RequestError("--prediction-type", received=chosen, expected="epsilon or v_prediction")
        return _SPELLINGS[chosen]
    if _V_PREDICTION_MARK in header.tensors:
        return "v_prediction"
    stated = header.metadata.get("modelspec.prediction_type")
    if stated is not None and stated not in _SPELLINGS:
        raise CheckpointError(
            f"{header.path}: its metadata modelspec.prediction_type",
            received=stated,
            expected="epsilon or v",
            remedy="give --prediction-type",
        )
    return None if stated is None else _SPELLINGS[stated]


def always_epsilon(denoiser: Section) -> str:
    """What the base models of most families predict."""
    return "epsilon"


def sd2_prediction_type(denoiser: Section) -> str:
    """What an SD2 denoiser predicts that does not say it: names and shapes of the two kinds are the same, so the
    deviation of one bias decides. Inpainting and depth models, by their input channels, all predict epsilon."""
    last = denoiser.count(r"output_blocks\.(\d+)\.") - 1
    bias = denoiser.tensors.get(f"output_blocks.{last}.1.transformer_blocks.0.norm1.bias")
    if bias is None or denoiser.size("input_blocks.0.0.weight", 1) != denoiser.size("out.2.weight"):
        return "epsilon"
    return "v_prediction" if _floats(denoiser.header, bias).std() > _SD2_DEVIATION else "epsilon"


def scheduler_config(template: Mapping[str, Any], prediction: str, header: SafetensorsHeader) -> dict[str, Any]:
    """A scheduler's config for a prediction type.

    A file trained to a terminal signal-to-noise ratio of zero has to start at the last timestep (arXiv:2305.08891),
    with a scheduler that knows it: DDIM in place of PNDM.
    """
    if "prediction_type" not in template:  # a flow, which has one kind of prediction
        return dict(template)
    config = {**template, "prediction_type": prediction}
    if _ZERO_SNR_MARK in header.tensors:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        if config["_class_name"] == "PNDMScheduler":
            del config["skip_prk_steps"]
            config["_class_name"] = "DDIMScheduler"
    return config


def _floats(header: SafetensorsHeader, entry: TensorEntry) -> NDArray[np.float32]:
    """A small tensor's values. bfloat16 is the upper half of float32, which numpy can hold."""
    with header.path.open("rb") as file:
        file.seek(entry.start)
        data = file.read(entry.stop - entry.start)
    if entry.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, {"F16": "<f2", "F64": "<f8"}.get(entry.dtype, "<f4")).astype(np.float32)
