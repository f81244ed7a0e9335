"""Networks without weights take no memory for them; with weights they are what diffusers and transformers load."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from latentrt.export.checkpoints.lazy_weights import LazyWeight, weights_from_safetensors
from latentrt.export.networks.skeleton import fitting_weights, materialize, skeleton
from latentrt.runtime.errors import CheckpointError

CLIP: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 9, "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "float16",
}  # fmt: skip
MMDIT: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 6,
    "num_attention_heads": 2, "joint_attention_dim": 10, "caption_projection_dim": 12, "pooled_projection_dim": 8,
    "pos_embed_max_size": 6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"), [(transformers.CLIPTextModel, CLIP), (diffusers.SD3Transformer2DModel, MMDIT)]
)
def test_parameters_are_on_meta_in_fp32_and_what_is_computed_is_real(kind: Any, config: dict[str, Any]) -> None:
    network = skeleton(kind, config)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not network.training
    buffers = dict(network.named_buffers())
    real = kind(kind.config_class.from_dict(config)) if hasattr(kind, "config_class") else kind(**config)
    for name, buffer in real.named_buffers():
        torch.testing.assert_close(buffers[name], buffer)
    assert buffers


def test_a_network_of_gigabytes_takes_megabytes() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = skeleton(transformers.CLIPTextModel, {**CLIP, "hidden_size": 4096, "intermediate_size": 65536})
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_weights_come_from_several_files_one_by_one_and_unchanged(tmp_path: Path) -> None:
    first = {"a": torch.arange(6, dtype=torch.float16).reshape(2, 3)}
    second = {"b": torch.tensor(2.5, dtype=torch.bfloat16), "ids": torch.arange(4)}
    save_file(first, tmp_path / "1.safetensors", metadata={"format": "pt"})
    save_file(second, tmp_path / "2.safetensors")
    weights = weights_from_safetensors([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
    assert set(weights) == {"a", "b", "ids"}
    for name, expected in {**first, **second}.items():
        assert (weights[name].shape, weights[name].dtype) == (tuple(expected.shape), expected.dtype)
        torch.testing.assert_close(weights[name].read(), expected)
    weights["a"].read().zero_()
    torch.testing.assert_close(weights["a"].read(), first["a"])  # a copy, not the file


def test_a_network_with_its_weights_is_the_one_that_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(3)
    saved = diffusers.SD3Transformer2DModel(**MMDIT).half()
    saved.pos_embed.pos_embed += 0.25  # a buffer that the file has wins over the computed one
    saved.save_pretrained(tmp_path)
    weights = weights_from_safetensors([tmp_path / "diffusion_pytorch_model.safetensors"])
    network = materialize(skeleton(diffusers.SD3Transformer2DModel, MMDIT), weights, "transformer")
    expected = saved.state_dict()
    assert network.state_dict().keys() == expected.keys()
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, expected[name].float())


def fit(**changes: torch.Tensor | None) -> dict[str, LazyWeight]:
    """The weights of a CLIP text model, some of them changed or missing, fitted to it."""
    network = skeleton(transformers.CLIPTextModel, CLIP)
    tensors = {name: torch.empty(tensor.shape) for name, tensor in network.state_dict().items()} | changes
    weights = {
        name: LazyWeight(tuple(tensor.shape), tensor.dtype, tensor.clone)
        for name, tensor in tensors.items()
        if tensor is not None
    }
    return fitting_weights(network, weights, "here")


@pytest.mark.parametrize("name", ["text_model.embeddings.position_ids", "vision_model.post_layernorm.bias"])
def test_what_files_hold_beside_a_text_encoder_is_left_alone(name: str) -> None:
    assert name not in fit(**{name: torch.arange(9)})


@pytest.mark.parametrize(
    ("tensor", "count", "expected"),
    [
        (None, 0, r"received: nothing for [^,|]+(, [^,|]+){4}, and \d+ more \| expected"),
        (torch.empty(3), 7, "received: unexpected x0, x1, x2, x3, x4, and 2 more"),
    ],
)
def test_weights_that_do_not_fit_are_named(tensor: torch.Tensor | None, count: int, expected: str) -> None:
    changes = {f"x{number}": tensor for number in range(count)} or dict.fromkeys(
        skeleton(transformers.CLIPTextModel, CLIP).state_dict()
    )
    with pytest.raises(CheckpointError, match=f"here: its weights do not fit .* {expected}"):
        fit(**changes)


def test_weights_that_are_integers_are_not_taken_for_floats() -> None:
    name = next(name for name in skeleton(transformers.CLIPTextModel, CLIP).state_dict() if "q_proj.weight" in name)
    with pytest.raises(CheckpointError, match=f"here: quantized weights.* received: {name} in torch.int32"):
        fit(**{name: torch.ones((12, 12), dtype=torch.int32)})
