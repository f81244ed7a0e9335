"""CLIP and T5 text encoders, wrapped so that they give exactly what the denoiser is shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import CheckpointError
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.families import TextEncoderRecord
from ..graphs.precision import plan_for
from .components import SourceComponent, component


class _TextEncoder(nn.Module):
    """``input_ids [texts, tokens]`` -> ``hidden_states [texts, tokens, D]`` and, if used, the pooled text."""

    def __init__(self, model: nn.Module, record: TextEncoderRecord):
        super().__init__()
        self.model = model
        self.penultimate = record.hidden_state == "penultimate"
        self.pooled = record.pooled

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(input_ids, output_hidden_states=self.penultimate)
        hidden = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        return (hidden, output.text_embeds) if self.pooled else (hidden,)


@dataclass(frozen=True)
class _Architecture:
    """A kind of text encoder: its class, and what its config calls the width of its hidden states."""

    network: str
    width: str


#: By ``model_type`` of a config, and whether the projection of the pooled text is wanted.
_ARCHITECTURES = {
    ("clip_text_model", False): _Architecture("transformers.CLIPTextModel", "hidden_size"),
    ("clip_text_model", True): _Architecture("transformers.CLIPTextModelWithProjection", "hidden_size"),
    ("t5", False): _Architecture("transformers.T5EncoderModel", "d_model"),
}


def text_encoder(checkpoint: Checkpoint, record: TextEncoderRecord, precision: str) -> SourceComponent:
    """A text encoder. Its ids have a fixed length, or the axis ``prompt_tokens`` where the record gives a range.

    Raises:
        CheckpointError: neither CLIP nor T5, or a config that lacks a number.
    """
    folder = record.component
    config = checkpoint.configs[folder]
    architecture = _architecture(checkpoint, record)
    plan = plan_for(folder, precision, config, force_upcast=False)
    fixed = record.tokens.min == record.tokens.max
    tokens = record.tokens.opt if fixed else "prompt_tokens"
    outputs = [TensorSpec("hidden_states", plan.io, ("texts", tokens, checkpoint.number(folder, architecture.width)))]
    if record.pooled:
        outputs.append(TensorSpec("text_embeds", plan.io, ("texts", checkpoint.number(folder, "projection_dim"))))
    return component(
        checkpoint,
        folder,
        folder,
        architecture.network,
        lambda model: _TextEncoder(model, record),
        plan=plan,
        inputs=(TensorSpec("input_ids", "int64", ("texts", tokens)),),
        outputs=tuple(outputs),
        vocabulary=checkpoint.number(folder, "vocab_size"),
        settings={"hidden state": record.hidden_state, "pooled": str(record.pooled)},
    )


def _architecture(checkpoint: Checkpoint, record: TextEncoderRecord) -> _Architecture:
    config = checkpoint.configs[record.component]
    subject = checkpoint.setting(record.component, "model_type")
    try:
        architecture = _ARCHITECTURES[str(config.get("model_type")), record.pooled]
    except KeyError:
        expected = " or ".join(dict.fromkeys(kind for kind, pooled in _ARCHITECTURES if pooled == record.pooled))
        raise CheckpointError(subject, received=config.get("model_type"), expected=expected) from None
    if config.get("use_attention_mask"):
        raise CheckpointError(
            checkpoint.setting(record.component, "use_attention_mask"),
            received=True,
            expected="a text encoder that sees its padding, as those of Stable Diffusion do",
        )
    return architecture
