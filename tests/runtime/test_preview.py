"""What a callback can show while a picture is made."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime import Pipeline

State = dict[str, NDArray[np.float32]]


def estimates(emoji: Pipeline, **call: Any) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """The denoised latents after every step, and the final latents."""
    seen: list[NDArray[np.float32]] = []

    def look(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        seen.append(state["denoised"])

    final = emoji("a fox on a blue background", seed=1, output_type="latent", callback_on_step_end=look, **call).images
    return seen, final


@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m", "heun", "unipc", "euler_a"])
def test_the_denoised_latents_approach_the_final_ones(emoji: Pipeline, sampler: str) -> None:
    seen, final = estimates(emoji, sampler=sampler, num_inference_steps=12)
    distances = [float(np.abs(one - final).mean()) for one in seen]
    assert distances[-1] <= 1e-5, "the last state has no noise"
    assert distances[8] < 0.3 * distances[0]
    assert all(after < 1.05 * before for before, after in pairwise(distances[3:]))
