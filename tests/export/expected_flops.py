"""The arithmetic of the networks by their configs: two for each multiply-add of a convolution, product or attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


@dataclass
class Count:
    """A running sum over ``rows``."""

    rows: int
    flops: int = 0

    def conv(self, wide_in: int, wide_out: int, kernel: int, pixels: int) -> None:
        """``pixels`` of the output."""
        self.flops += 2 * self.rows * wide_in * wide_out * kernel**2 * pixels

    def linear(self, tokens: int, wide_in: int, wide_out: int) -> None:
        self.flops += 2 * self.rows * tokens * wide_in * wide_out

    def attention(self, queries: int, keys: int, width: int) -> None:
        """Scores and sums of all heads together."""
        self.flops += 4 * self.rows * queries * keys * width

    def resnet(self, wide_in: int, wide_out: int, pixels: int, time: int = 0) -> None:
        self.conv(wide_in, wide_out, 3, pixels)
        self.conv(wide_out, wide_out, 3, pixels)
        self.linear(1, time, wide_out)
        if wide_in != wide_out:
            self.conv(wide_in, wide_out, 1, pixels)

    def transformer(self, width: int, pixels: int, depth: int, text: int, tokens: int) -> None:
        self.linear(pixels, width, 2 * width)  # in and out
        for _ in range(depth):
            self.linear(pixels, width, 4 * width)  # queries, keys, values and output of self-attention
            self.attention(pixels, pixels, width)
            self.linear(pixels, width, 2 * width)
            self.linear(tokens, text, 2 * width)
            self.attention(pixels, tokens, width)
            self.linear(pixels, width, 8 * width)  # GEGLU
            self.linear(pixels, 4 * width, width)


def unet_flops(config: Config, *, rows: int, height: int, width: int, tokens: int) -> int:
    """A UNet whose sides are multiples of its stride."""
    count, widths, layers = Count(rows), list(config["block_out_channels"]), config["layers_per_block"]
    time, text, pixels = 4 * widths[0], config["cross_attention_dim"], height * width
    given = config.get("transformer_layers_per_block", 1)
    levels = given if isinstance(given, list) else [given] * len(widths)
    depths = [
        depth if "CrossAttn" in kind else 0 for depth, kind in zip(levels, config["down_block_types"], strict=True)
    ]
    count.linear(1, widths[0] + time, time)
    if config.get("addition_embed_type"):
        count.linear(1, config["projection_class_embeddings_input_dim"] + time, time)
    count.conv(config["in_channels"], widths[0], 3, pixels)
    skips, channels = [widths[0]], widths[0]
    for level, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(layers):
            count.resnet(channels, wide, pixels, time)
            channels = wide
            if depth:
                count.transformer(wide, pixels, depth, text, tokens)
            skips.append(wide)
        if level < len(widths) - 1:
            pixels //= 4
            count.conv(wide, wide, 3, pixels)
            skips.append(wide)
    count.resnet(channels, channels, pixels, time)
    count.transformer(channels, pixels, levels[-1], text, tokens)
    count.resnet(channels, channels, pixels, time)
    for level in reversed(range(len(widths))):
        for _ in range(layers + 1):
            count.resnet(channels + skips.pop(), widths[level], pixels, time)
            channels = widths[level]
            if depths[level]:
                count.transformer(channels, pixels, depths[level], text, tokens)
        if level > 0:
            pixels *= 4
            count.conv(channels, channels, 3, pixels)
    count.conv(channels, config["out_channels"], 3, pixels)
    return count.flops


def mmdit_flops(config: Config, *, rows: int, height: int, width: int, tokens: int) -> int:
    """Stable Diffusion 3's transformer."""
    count, wide = Count(rows), config["num_attention_heads"] * config["attention_head_dim"]
    patch, layers = config["patch_size"], config["num_layers"]
    pixels = height * width // patch**2
    count.conv(config["in_channels"], wide, patch, pixels)
    count.linear(1, 256 + wide, wide)  # timestep
    count.linear(1, config["pooled_projection_dim"] + wide, wide)
    count.linear(tokens, config["joint_attention_dim"], wide)
    for layer in range(layers):
        dual, last = layer in config.get("dual_attention_layers", ()), layer == layers - 1
        count.linear(1, wide, (9 if dual else 6) * wide + (2 if last else 6) * wide)  # modulations
        count.linear(pixels + tokens, wide, 3 * wide)
        count.attention(pixels + tokens, pixels + tokens, wide)
        count.linear(pixels, wide, wide)
        if dual:
            count.linear(pixels, wide, 4 * wide)
            count.attention(pixels, pixels, wide)
        for length in (pixels,) if last else (pixels, tokens):
            count.linear(length, wide, 8 * wide)
        if not last:
            count.linear(tokens, wide, wide)
    count.linear(1, wide, 2 * wide)
    count.linear(pixels, wide, patch**2 * config["out_channels"])
    return count.flops


def decoder_flops(config: Config, *, images: int, height: int, width: int) -> int:
    """An autoencoder's decoder; sides in latent pixels."""
    count, pixels, latents = Count(images), height * width, config["latent_channels"]
    widths = list(reversed(config["block_out_channels"]))
    if config.get("use_post_quant_conv", True):
        count.conv(latents, latents, 1, pixels)
    count.conv(latents, widths[0], 3, pixels)
    count.resnet(widths[0], widths[0], pixels)
    count.linear(pixels, widths[0], 4 * widths[0])
    count.attention(pixels, pixels, widths[0])
    count.resnet(widths[0], widths[0], pixels)
    channels = widths[0]
    for level, wide in enumerate(widths):
        for _ in range(config["layers_per_block"] + 1):
            count.resnet(channels, wide, pixels)
            channels = wide
        if level < len(widths) - 1:
            pixels *= 4
            count.conv(wide, wide, 3, pixels)
    count.conv(channels, config["out_channels"], 3, pixels)
    return count.flops
