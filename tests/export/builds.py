"""Builds that tests make: why each component was built, or how the build failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.export.events import BuildEvent
from latentrt.runtime.errors import LatentRTError

NAMES = ["text_encoder", "text_encoder_2", "vae_encoder", "denoiser", "vae_decoder"]
TEXT = BuildOptions(components=("text_encoder",))


def build(checkpoint: Path, out: Path, options: BuildOptions | None = None) -> dict[str, str]:
    """Build; returns why each component was built, or that it was reused."""
    events: list[BuildEvent] = []
    bundle_from_checkpoint(checkpoint, out, options, events.append)
    return {event.component: event.reason for event in events if event.stage == "done"}


def fails(error: type[LatentRTError], checkpoint: Path, out: Path, options: BuildOptions | None = None) -> str:
    with pytest.raises(error) as caught:
        bundle_from_checkpoint(checkpoint, out, options)
    return str(caught.value)


def change_weight(checkpoint: Path, value: float = 0.5) -> None:
    """Change one value of the first text encoder."""
    path = checkpoint / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    weights[sorted(weights)[0]].view(-1)[0] = value
    save_file(weights, path, metadata={"format": "pt"})
