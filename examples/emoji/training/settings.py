"""The settings of a training run; `train.py` makes one command line option of each field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vocabulary import NAMES


@dataclass(frozen=True)
class Settings:
    """Learning-rate schedules end at their steps or minutes, whichever comes first."""

    bpe: Annotated[Path, "CLIP's byte-pair table (in the open_clip_torch wheel)"] = Path("bpe_simple_vocab_16e6.txt.gz")
    work: Annotated[Path, "folder that the stages share"] = Path("work")
    out: Annotated[Path, "folder of the finished checkpoint"] = Path("tiny-sdxl-emoji")
    seed: Annotated[int, "seeds the pictures, the initial weights and the noise"] = 0
    limit_names: Annotated[int, "train on the first N names only (0: all)"] = 0
    bf16: Annotated[bool, "bfloat16 autocast"] = True
    log: Annotated[int, "diffusion steps between two log lines"] = 100

    vae_steps: Annotated[int, "autoencoder: most optimizer steps"] = 12000
    vae_minutes: Annotated[float, "autoencoder: most minutes"] = 30.0
    vae_lr: Annotated[float, "autoencoder: peak learning rate"] = 1e-3
    kl: Annotated[float, "autoencoder: weight of the KL divergence from a unit normal"] = 3e-4

    steps: Annotated[int, "diffusion: most optimizer steps"] = 12000
    minutes: Annotated[float, "diffusion: most minutes"] = 48.0
    batch: Annotated[int, "diffusion: pictures a step"] = 32
    lr: Annotated[float, "diffusion: peak learning rate"] = 1e-3
    ema: Annotated[float, "diffusion: decay of the averaged weights"] = 0.998
    offset_noise: Annotated[float, "diffusion: size of the noise shared by all pixels of a channel"] = 0.12
    snr_gamma: Annotated[float, "diffusion: ceiling of the loss weight's signal-to-noise ratio"] = 5.0
    resume: Annotated[bool, "diffusion: continue from the averaged weights in the work folder"] = False

    decoder_steps: Annotated[int, "decoder tuning: most optimizer steps"] = 4000
    decoder_minutes: Annotated[float, "decoder tuning: most minutes"] = 9.0
    decoder_lr: Annotated[float, "decoder tuning: peak learning rate"] = 6e-4

    @property
    def names(self) -> tuple[str, ...]:
        """The names to train on."""
        return NAMES[: self.limit_names or None]
