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


def test_an_estimate_is_the_prediction_of_the_model(emoji: Pipeline) -> None:
    """After one deterministic step of order 1, x0 = x - sigma eps of the state before the step."""
    inputs: list[NDArray[np.float32]] = []
    outputs: list[NDArray[np.float32]] = []
    run = emoji.engines.run

    def record(component: str, values: Any, timings: Any) -> Any:
        result = run(component, values, timings)
        if component == "denoiser":
            inputs.append(values["sample"].copy())
            outputs.append(result["model_output"].copy())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji.engines, "run", record)
        seen, _ = estimates(emoji, sampler="euler", num_inference_steps=5, guidance_scale=3.0)
    table = emoji.table(emoji.request("a fox", sampler="euler", num_inference_steps=5))
    for k in range(5):
        unconditional, conditional = outputs[k][:1], outputs[k][1:]
        eps = unconditional + 3 * (conditional - unconditional)
        x = inputs[k][:1] / table.input_scale[k]
        np.testing.assert_allclose(seen[k], x - table.state_noise[k] * eps, atol=2e-4)


def test_other_names_are_not_in_the_state(emoji: Pipeline) -> None:
    def look(pipe: Pipeline, index: int, timestep: float, state: State) -> None:
        assert list(state) == ["latents"]
        with pytest.raises(KeyError, match="prompt_embeds"):
            state["prompt_embeds"]

    emoji("a fox", num_inference_steps=1, callback_on_step_end=look)
