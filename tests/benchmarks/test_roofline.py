"""Bounds of the emoji checkpoint, whose arithmetic is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks.results import Peaks
from latentrt.benchmarks.roofline import bounds
from latentrt.runtime.bundles.bundle import open_bundle

from .small_results import WORKLOAD

PEAKS = Peaks(1e11, "numpy", 1e10, 1)


def test_arithmetic_bounds_the_denoiser_and_the_decoder(emoji_bundle: Path) -> None:
    text, denoise, decode = bounds(open_bundle(emoji_bundle, verify=False), WORKLOAD, PEAKS)
    assert [bound.stage for bound in (text, denoise, decode)] == ["text", "denoise", "decode"]
    assert (text.calls, denoise.calls, decode.calls) == (2, 20, 1)
    assert denoise.flops == pytest.approx(20 * 1.06e9, rel=0.01)
    assert decode.flops == pytest.approx(4.09e9, rel=0.01)
    assert denoise.seconds == pytest.approx(denoise.flops / PEAKS.matmul)


def test_reading_weights_bounds_the_text_encoders(emoji_bundle: Path) -> None:
    text = bounds(open_bundle(emoji_bundle, verify=False), WORKLOAD, PEAKS)[0]
    assert text.bytes > 1.6e7  # both encoders' weights
    assert text.seconds == pytest.approx(text.bytes / PEAKS.copy)


@pytest.mark.parametrize("guidance_scale", [1.0, 0.5, 0.0])
def test_without_guidance_a_step_is_half_the_work(guidance_scale: float, emoji_bundle: Path) -> None:
    bundle = open_bundle(emoji_bundle, verify=False)
    alone = bounds(bundle, msgspec.structs.replace(WORKLOAD, guidance_scale=guidance_scale), PEAKS)[1]
    assert alone.flops == pytest.approx(bounds(bundle, WORKLOAD, PEAKS)[1].flops / 2, rel=0.01)
