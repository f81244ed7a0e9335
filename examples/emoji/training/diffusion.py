"""Train the UNet and both text encoders together, from random weights (stage 3)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

import architecture
from captions import CompactCaptions
from latents import LatentDataset, draw_batch
from optimization import Meter, autocast, descend, parameter_count, scheduled_steps, seed_all
from settings import Settings

TIMESTEPS: int = architecture.SCHEDULER["num_train_timesteps"]
CAPTION_DROPOUT = 0.1


def stratified_timesteps(rows: int) -> torch.Tensor:
    """One timestep for each row, spread evenly over the schedule, in random order: int64 [rows]."""
    t = (torch.arange(rows) + torch.rand(rows)) / rows
    return (t * TIMESTEPS).long().clamp(0, TIMESTEPS - 1)[torch.randperm(rows)]


def load_averaged(work: Path) -> dict[str, Any]:
    """The last `diffusion.pt`: `ema`, the averaged weights, and `step`."""
    return torch.load(work / "diffusion.pt", weights_only=True)


def train_diffusion(settings: Settings) -> None:
    """Stage 3: writes the averaged weights to `diffusion.pt` in the work folder.

    Predicts the noise; the loss is weighted with min-SNR (arXiv 2303.09556) and captions are dropped by zeroing both
    prompt embeddings, as SDXL does.
    """
    seed_all(settings.seed)
    rng = random.Random(settings.seed + 2)
    dataset = LatentDataset.load(settings.work)
    captions = CompactCaptions(settings.work / "tokenizers")
    models = architecture.diffusion_models(captions.size)
    averaged = architecture.diffusion_models(captions.size).requires_grad_(False)
    first_step = 0
    if settings.resume:  # from the averaged weights, with a fresh schedule
        stored = load_averaged(settings.work)
        models.load_state_dict(stored["ema"])
        first_step = stored["step"]
    averaged.load_state_dict(models.state_dict())
    for name, module in models.items():
        print(f"{name}: {parameter_count(module)} (compact vocabulary)", flush=True)

    parameters = list(models.parameters())
    averages: list[torch.Tensor] = [*averaged.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.99),
        fused=True,
    )
    alphas_cumprod = EulerDiscreteScheduler(**architecture.SCHEDULER).alphas_cumprod  # [TIMESTEPS]
    meter = Meter(decay=0.99)
    step = 0
    for step, _ in scheduled_steps(optimizer, settings.lr, settings.steps, settings.minutes, warmup=200):
        batch = draw_batch(dataset, settings.names, settings.batch, rng)
        words = [
            captions.random_words(row.name, row.color, silent, rng)
            for row, silent in zip(batch.rows, batch.silent, strict=True)
        ]
        ids = captions.batch(words)
        t = stratified_timesteps(settings.batch)
        noise = torch.randn_like(batch.x0)
        if settings.offset_noise:  # the mean of x_t must not give the background away; the caption should
            noise = noise + settings.offset_noise * torch.randn(settings.batch, 4, 1, 1)
        alpha = alphas_cumprod[t].view(-1, 1, 1, 1)
        x_t = alpha.sqrt() * batch.x0 + (1 - alpha).sqrt() * noise
        keep = (torch.rand(settings.batch) >= CAPTION_DROPOUT).float()
        with autocast(settings.bf16):
            context, pooled = architecture.encode_text(models, ids)
            conditions = {"text_embeds": pooled * keep.view(-1, 1), "time_ids": batch.time_ids}
            predicted = models["unet"](x_t, t, context * keep.view(-1, 1, 1), added_cond_kwargs=conditions).sample
        snr = alpha.view(-1) / (1 - alpha.view(-1))
        error = (predicted.float() - noise).pow(2).mean((1, 2, 3))
        loss = (error * snr.clamp(max=settings.snr_gamma) / snr).mean()
        descend(loss, optimizer, parameters)
        decay = min(settings.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [parameter.detach() for parameter in parameters], 1 - decay)
        meter.update(error.mean().item(), settings.batch)
        if step % settings.log == 0:
            print(
                f"diffusion step {first_step + step} mse {meter.mean:.4f} weighted {loss.item():.4f} {meter.speed()}",
                flush=True,
            )
        if step % 1000 == 0:
            torch.save({"ema": averaged.state_dict(), "step": first_step + step}, settings.work / "diffusion.pt")
    torch.save({"ema": averaged.state_dict(), "step": first_step + step}, settings.work / "diffusion.pt")
