"""The KL autoencoder of Latent Diffusion (``diffusionmodules/model.py``) as diffusers' ``AutoencoderKL``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from .converted import ConvertedWeights, Source, linear
from .names import Names, layers, sources
from .section import Section

_RESNET = ("norm1", "conv1", "norm2", "conv2")
_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_QUANTIZATION = ("quant_conv", "post_quant_conv")


def vae(section: Section, template: Mapping[str, Any]) -> tuple[dict[str, Any], ConvertedWeights]:
    """The config and the weights of an autoencoder; ``template`` is what shapes do not tell.

    Raises:
        CheckpointError: the tensors are not those of such an autoencoder.
    """
    widths = _widths(section)
    resnets = section.count(r"encoder\.down\.0\.block\.(\d+)\.")
    quantization = {name: f"{name}.weight" in section for name in _QUANTIZATION}
    config = {
        **template,
        "in_channels": section.size("encoder.conv_in.weight", 1),
        "out_channels": section.size("decoder.conv_out.weight"),
        "latent_channels": section.size("decoder.conv_in.weight", 1),
        "block_out_channels": widths,
        "layers_per_block": resnets,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "use_quant_conv": quantization["quant_conv"],
        "use_post_quant_conv": quantization["post_quant_conv"],
    }
    names = sources(
        [
            *_encoder(widths, resnets),
            *_decoder(widths, resnets + 1),
            *(layers({name: name}) for name in _QUANTIZATION if quantization[name]),
        ]
    )
    return config, section.converted(names, ignored=_is_no_weight)


def _is_no_weight(key: str) -> bool:
    return key.startswith(("loss.", "model_ema."))


def _widths(section: Section) -> list[int]:
    widths = [section.size("encoder.down.0.block.0.conv1.weight")]
    for level in count(1):
        if f"encoder.down.{level}.block.0.conv1.weight" not in section:
            break
        widths.append(section.size(f"encoder.down.{level}.block.0.conv1.weight"))
    return widths


def _encoder(widths: list[int], resnets: int) -> Iterator[Names]:
    yield layers({"encoder.conv_in": "encoder.conv_in", "encoder.conv_out": "encoder.conv_out"})
    yield layers({"encoder.conv_norm_out": "encoder.norm_out"})
    previous = widths[0]
    for level, width in enumerate(widths):
        for layer in range(resnets):
            ours, theirs = f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}"
            yield _resnet(ours, theirs, shortcut=previous != width)
            previous = width
        if level != len(widths) - 1:
            down = f"encoder.down_blocks.{level}.downsamplers.0.conv"
            yield layers({down: f"encoder.down.{level}.downsample.conv"})
    yield from _middle("encoder")


def _decoder(widths: list[int], resnets: int) -> Iterator[Names]:
    """The original counts the decoder's levels from the image, diffusers from the latents."""
    yield layers({"decoder.conv_in": "decoder.conv_in", "decoder.conv_out": "decoder.conv_out"})
    yield layers({"decoder.conv_norm_out": "decoder.norm_out"})
    yield from _middle("decoder")
    previous = widths[-1]
    for number, level in enumerate(reversed(range(len(widths)))):
        for layer in range(resnets):
            ours, theirs = f"decoder.up_blocks.{number}.resnets.{layer}", f"decoder.up.{level}.block.{layer}"
            yield _resnet(ours, theirs, shortcut=previous != widths[level])
            previous = widths[level]
        if level:
            yield layers({f"decoder.up_blocks.{number}.upsamplers.0.conv": f"decoder.up.{level}.upsample.conv"})


def _middle(side: str) -> Iterator[Names]:
    for number in (0, 1):
        yield _resnet(f"{side}.mid_block.resnets.{number}", f"{side}.mid.block_{number + 1}", shortcut=False)
    ours, theirs = f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1"
    yield layers({f"{ours}.group_norm": f"{theirs}.norm"})
    for name, other in _ATTENTION.items():
        yield {
            f"{ours}.{name}.weight": Source(f"{theirs}.{other}.weight", linear),
            f"{ours}.{name}.bias": Source(f"{theirs}.{other}.bias"),
        }


def _resnet(ours: str, theirs: str, *, shortcut: bool) -> Names:
    names = layers({f"{ours}.{name}": f"{theirs}.{name}" for name in _RESNET})
    return names | layers({f"{ours}.conv_shortcut": f"{theirs}.nin_shortcut"}) if shortcut else names
