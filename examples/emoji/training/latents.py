"""The latents of all training pictures (stage 2), and the batches drawn from them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL

from architecture import SCALING_FACTOR
from optimization import autocast, seed_all
from rendering import Kind, render, sample_plan
from settings import Settings
from tensors import tensor_from_images
from vocabulary import SIZES

Size = tuple[int, int]  # height, width of the picture in pixels
ENCODE_BATCH = 32


@dataclass(frozen=True)
class LatentRow:
    """What is known about one picture of the data set."""

    name: str
    color: str
    kind: Kind
    time_ids: tuple[int, ...]


@dataclass(frozen=True)
class LatentDataset:
    """For each picture size: the autoencoder's posterior means [pictures, 4, height/8, width/8], and as many rows.

    The latents are in the autoencoder's scale: times `SCALING_FACTOR` they have unit variance.
    """

    latents: dict[Size, torch.Tensor]
    rows: dict[Size, list[LatentRow]]

    def save(self, work: Path) -> None:
        """Write `latents.pt`."""
        rows = {size: [astuple(row) for row in rows] for size, rows in self.rows.items()}
        torch.save({"latents": self.latents, "rows": rows}, work / "latents.pt")

    @classmethod
    def load(cls, work: Path) -> LatentDataset:
        """Read `latents.pt`."""
        stored = torch.load(work / "latents.pt", weights_only=True)
        rows = {size: [LatentRow(*row) for row in rows] for size, rows in stored["rows"].items()}
        return cls(stored["latents"], rows)

    @cached_property
    def by_name_and_kind(self) -> dict[tuple[Size, str, str], list[int]]:
        """(size, name, kind) -> positions of its pictures."""
        index: dict[tuple[Size, str, str], list[int]] = {}
        for size, rows in self.rows.items():
            for i, row in enumerate(rows):
                index.setdefault((size, row.name, row.kind), []).append(i)
        return index


class LatentBatch(NamedTuple):
    """Pictures of one size. `silent`: the caption must not mention the background colour."""

    x0: torch.Tensor  # [rows, 4, height/8, width/8], unit variance
    rows: list[LatentRow]
    time_ids: torch.Tensor  # float32 [rows, 6]
    silent: list[bool]


def draw_batch(dataset: LatentDataset, names: Sequence[str], count: int, rng: random.Random) -> LatentBatch:
    """A random batch of one size: 80 % centred pictures in the native size, only those in the others."""
    size = rng.choices(SIZES, (70, 15, 15))[0]
    chosen, times, silent = [], [], []
    for _ in range(count):
        name = rng.choice(names)
        kind = "canonical"
        if size == SIZES[0]:
            kind = rng.choices(("canonical", "jitter", "crop", "lowres"), (80, 6, 10, 4))[0]
        mute = rng.random() < 0.35
        options = dataset.by_name_and_kind[size, name, kind]
        if mute and kind == "canonical" and rng.random() < 0.85:  # no colour in the prompt mostly means white
            options = [i for i in options if dataset.rows[size][i].color == "white"]
        choice = rng.choice(options)
        time_ids = list(dataset.rows[size][choice].time_ids)
        if kind == "canonical" and rng.random() < 0.15:  # a sharp picture may come from any larger original
            factor = rng.choice((2, 4, 8))
            time_ids[:2] = time_ids[0] * factor, time_ids[1] * factor
        chosen.append(choice)
        times.append(time_ids)
        silent.append(mute)
    rows = [dataset.rows[size][i] for i in chosen]
    x0 = dataset.latents[size][chosen] * SCALING_FACTOR
    return LatentBatch(x0, rows, torch.tensor(times, dtype=torch.float32), silent)


def encode_latents(settings: Settings) -> None:
    """Stage 2: render and encode every picture once, and give the latents SDXL's scale.

    Writes `latents.pt` and `vae_scaled/` in the work folder.
    """
    seed_all(settings.seed)
    rng = random.Random(settings.seed + 1)
    vae = AutoencoderKL.from_pretrained(settings.work / "vae").eval()
    plan = sample_plan(settings.names, settings.seed)
    means: dict[Size, torch.Tensor] = {}
    rows: dict[Size, list[LatentRow]] = {}
    start = time.monotonic()
    for size in SIZES:
        variants = [variant for variant in plan if variant.size == size]
        parts, rows[size] = [], []
        for i in range(0, len(variants), ENCODE_BATCH):
            part = variants[i : i + ENCODE_BATCH]
            samples = [render(variant, rng) for variant in part]
            with torch.no_grad(), autocast(settings.bf16):
                x = tensor_from_images([sample.image for sample in samples])
                parts.append(vae.encode(x).latent_dist.mean.float())
            rows[size] += [
                LatentRow(variant.name, variant.color, variant.kind, sample.time_ids)
                for variant, sample in zip(part, samples, strict=True)
            ]
        means[size] = torch.cat(parts)
        print(f"latents {size}: {tuple(means[size].shape)} {time.monotonic() - start:.0f} s", flush=True)
    everything = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 4) for x in means.values()])  # [latent pixels, 4]
    shift = everything.mean(0)
    gain = 1 / SCALING_FACTOR / (everything - shift).square().mean().sqrt().item()
    print(f"latents mean {shift.tolist()} standard deviation {everything.std(0).tolist()} gain {gain:.4f}", flush=True)
    rescale_latents(vae, shift, gain)
    vae.register_to_config(scaling_factor=SCALING_FACTOR, force_upcast=False)
    vae.save_pretrained(settings.work / "vae_scaled")
    LatentDataset({size: (x - shift.view(1, 4, 1, 1)) * gain for size, x in means.items()}, rows).save(settings.work)


@torch.no_grad()
def rescale_latents(vae: AutoencoderKL, shift: torch.Tensor, gain: float) -> None:
    """Fold z' = (z - shift) * gain into the 1 x 1 convolutions around the latents; reconstructions do not change."""
    vae.quant_conv.weight[:4].mul_(gain)
    vae.quant_conv.bias[:4].sub_(shift).mul_(gain)
    vae.quant_conv.bias[4:].add_(2 * math.log(gain))  # the log variance
    vae.post_quant_conv.bias.add_(vae.post_quant_conv.weight[:, :, 0, 0] @ shift)
    vae.post_quant_conv.weight.div_(gain)
