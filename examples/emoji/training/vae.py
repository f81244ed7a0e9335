"""The autoencoder: train it (stage 1), then sharpen its decoder once the latents are fixed (stage 4)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import architecture
from glyphs import glyph
from latents import LatentDataset
from optimization import Meter, autocast, descend, parameter_count, scheduled_steps, seed_all
from rendering import compose, picture
from settings import Settings
from tensors import tensor_from_images
from vocabulary import COLORS, SIZES

DECODER_BATCH = 10


def random_crops(names: Sequence[str], count: int, side: int, rng: random.Random) -> torch.Tensor:
    """Crops around an emoji, of the sizes that pictures have, on palette or random colours: [count, 3, side, side]."""
    images = []
    for _ in range(count):
        name = rng.choice(names)
        color = rng.choice(list(COLORS.values())) if rng.random() < 0.8 else [rng.randint(0, 255) for _ in range(3)]
        size = rng.choice((110, 110, 110, 82, 96, 120))
        room = max(8, abs(side - size) // 2 + 4)
        dy, dx = rng.randint(-room, room), rng.randint(-room, room)
        images.append(compose(glyph(name, size), color, side, side, dy, dx))
    return tensor_from_images(images)


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 at three scales, L1 of the image gradients (crisp edges), and a squared error that settles colours early."""
    d = y - x
    loss = d.abs().mean() + 2 * d.square().mean()
    loss = loss + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    for scale in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(d, scale).abs().mean()
    return loss


def train_vae(settings: Settings) -> None:
    """Stage 1: writes `vae/` in the work folder."""
    seed_all(settings.seed)
    rng = random.Random(settings.seed)
    vae = AutoencoderKL(**architecture.VAE)
    with torch.no_grad():  # start nearly deterministic: posterior standard deviation 0.05, not 1
        vae.quant_conv.weight[4:].zero_()
        vae.quant_conv.bias[4:].fill_(-6)
    print(f"VAE: {parameter_count(vae)}", flush=True)
    parameters = list(vae.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.vae_lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    meter = Meter(decay=0.98)
    schedule = scheduled_steps(optimizer, settings.vae_lr, settings.vae_steps, settings.vae_minutes, warmup=100)
    for step, progress in schedule:
        # many small crops first (the number of steps matters), whole pictures last
        count, side = (16, 64) if progress < 0.4 else (12, 96) if progress < 0.8 else (8, 128)
        x = random_crops(settings.names, count, side, rng)
        with autocast(settings.bf16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = reconstruction_loss(y.float(), x) + settings.kl * kl
        descend(loss, optimizer, parameters)
        meter.update((y.float() - x).abs().mean().item(), count)
        if step % 100 == 0:
            print(
                f"vae step {step} side {side} l1 {meter.mean:.4f} loss {loss.item():.4f} kl {kl.item():.2f} "
                f"{meter.speed()}",
                flush=True,
            )
        if step % 500 == 0:
            vae.save_pretrained(settings.work / "vae")
    vae.save_pretrained(settings.work / "vae")


def tune_decoder(settings: Settings) -> None:
    """Stage 4: sharpen the decoder alone, on the pictures that prompts ask for; writes `vae_tuned/`.

    The encoder and the latents, and so the UNet, stay as they are.
    """
    seed_all(settings.seed)
    rng = random.Random(settings.seed + 3)
    vae = AutoencoderKL.from_pretrained(settings.work / "vae_scaled")
    dataset = LatentDataset.load(settings.work)
    canonical = {
        size: [i for i, row in enumerate(rows) if row.kind == "canonical"] for size, rows in dataset.rows.items()
    }
    parameters = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.decoder_lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    meter = Meter(decay=0.98)
    schedule = scheduled_steps(
        optimizer, settings.decoder_lr, settings.decoder_steps, settings.decoder_minutes, warmup=50
    )
    for step, _ in schedule:
        size = rng.choices(SIZES, (70, 15, 15))[0]
        chosen = [rng.choice(canonical[size]) for _ in range(DECODER_BATCH)]
        rows = [dataset.rows[size][i] for i in chosen]
        x = tensor_from_images([picture(row.name, row.color, *size) for row in rows])
        z = dataset.latents[size][chosen]
        # the UNet is not exact either: noise of up to 0.08 standard deviations
        z = z + torch.rand(len(z), 1, 1, 1) * 0.08 / architecture.SCALING_FACTOR * torch.randn_like(z)
        with autocast(settings.bf16):
            y = vae.decode(z).sample
        loss = reconstruction_loss(y.float(), x)
        descend(loss, optimizer, parameters)
        meter.update((y.float() - x).abs().mean().item(), len(x))
        if step % 50 == 0:
            print(f"decoder step {step} l1 {meter.mean:.4f} loss {loss.item():.4f} {meter.speed()}", flush=True)
        if step % 200 == 0:
            vae.save_pretrained(settings.work / "vae_tuned")
    vae.save_pretrained(settings.work / "vae_tuned")
