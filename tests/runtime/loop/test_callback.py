"""What a callback gets, and what its answer does to the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime import Pipeline
from latentrt.runtime.errors import RequestError
from latentrt.runtime.images.provenance import details_text, read_provenance
from latentrt.runtime.loop.callback import StepState

Callback = Callable[[Pipeline, int, float, StepState], Any]


def final_latents(emoji: Pipeline, callback: Callback | None = None) -> NDArray[np.float32]:
    latents: NDArray[np.float32] = emoji(
        "a fox", seed=1, num_inference_steps=3, output_type="latent", callback_on_step_end=callback
    ).images
    return latents


def test_looking_at_the_state_and_writing_into_it_changes_nothing(emoji: Pipeline) -> None:
    def scribble(pipe: Pipeline, index: int, timestep: float, state: StepState) -> None:
        state["latents"][:] = 0
        state["denoised"][:] = 0
        state["latents"] = np.ones_like(state["latents"])

    assert np.array_equal(final_latents(emoji, scribble), final_latents(emoji))


def test_latents_that_were_kept_stay_as_they_were(emoji: Pipeline) -> None:
    kept: list[NDArray[np.float32]] = []

    def keep(pipe: Pipeline, index: int, timestep: float, state: StepState) -> None:
        kept.append(state["latents"])
        assert state["latents"] is kept[-1], "made once"

    last = final_latents(emoji, keep)
    assert np.array_equal(kept[-1], last)
    assert np.abs(kept[0] - kept[1]).max() > 0.1


def test_what_was_not_asked_for_in_time_is_refused(emoji: Pipeline) -> None:
    kept: list[StepState] = []

    def keep(pipe: Pipeline, index: int, timestep: float, state: StepState) -> None:
        state.get("latents")
        kept.append(state)

    last = final_latents(emoji, keep)
    assert np.array_equal(kept[-1]["latents"], last)
    assert list(kept[0]) == ["latents", "denoised"]
    with pytest.raises(RequestError, match=r"denoised of a step \| received: asked for when it was over"):
        kept[0]["denoised"]


def test_a_state_that_is_returned_counts_as_with_diffusers(emoji: Pipeline) -> None:
    """``callback_kwargs["latents"] = ...; return callback_kwargs`` is how callbacks of diffusers are written."""

    def negate(pipe: Pipeline, index: int, timestep: float, state: StepState) -> StepState:
        state["latents"] = -state["latents"]
        return state

    def in_place(pipe: Pipeline, index: int, timestep: float, state: StepState) -> StepState:
        np.negative(state["latents"], out=state["latents"])
        return state

    def as_it_is(pipe: Pipeline, index: int, timestep: float, state: StepState) -> StepState:
        return state

    untouched = final_latents(emoji)
    assert np.array_equal(final_latents(emoji, as_it_is), untouched)
    assert np.array_equal(final_latents(emoji, negate), final_latents(emoji, in_place))
    assert np.abs(final_latents(emoji, negate) - untouched).max() > 0.1


def test_the_state_is_a_mapping(emoji: Pipeline) -> None:
    def look(pipe: Pipeline, index: int, timestep: float, state: StepState) -> None:
        assert list(state) == ["latents", "denoised"]
        assert state.get("prompt_embeds") is None
        assert state.pop("latents").shape == (1, 4, 16, 16)
        assert list(state) == ["denoised"]
        assert len(state) == 1
        seen.append(index)

    seen: list[int] = []
    final_latents(emoji, look)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("no", [False, np.False_])
def test_false_stops_the_run(emoji: Pipeline, no: Any, tmp_path: Path) -> None:
    output = emoji("a fox", num_inference_steps=6, callback_on_step_end=lambda pipe, index, *_: no if index else True)
    assert output.steps_done == 2
    made, _ = read_provenance(output.save(tmp_path / "a.png")[0])
    assert made is not None
    assert (made.num_inference_steps, made.stopped_after) == (6, 2)
    assert "Stopped after: 2 steps" in details_text(made)
    whole = emoji("a fox", num_inference_steps=2).provenance[0]
    assert whole.stopped_after is None


def test_a_stop_iteration_of_the_callback_comes_out(emoji: Pipeline) -> None:
    def stop(pipe: Pipeline, index: int, timestep: float, state: StepState) -> None:
        next(iter(()))

    with pytest.raises(StopIteration):
        final_latents(emoji, stop)


@pytest.mark.parametrize(
    "answer",
    [
        0,
        "stop",
        np.zeros((1, 4, 16, 16), np.float32),
        {"latents": None},
        {"latent": np.zeros((1, 4, 16, 16), np.float32)},
        {"denoised": np.zeros((1, 4, 16, 16), np.float32)},
        {"latents": np.zeros((1, 4, 16, 16), np.float32), "foo": 1},
        {"latents": np.zeros((1, 4, 16, 16), complex)},
        {"latents": np.zeros((1, 4, 16), np.float32)},
        {"latents": np.full((1, 4, 16, 16), np.nan, np.float32)},
        {"latents": np.full((1, 4, 16, 16), 1e300)},  # infinite in float32
    ],
)
def test_answers_that_mean_nothing(emoji: Pipeline, answer: Any) -> None:
    with pytest.raises(RequestError, match="the callback's"):
        final_latents(emoji, lambda *_: answer)


def test_an_answer_that_would_be_ignored_is_named(emoji: Pipeline) -> None:
    with pytest.raises(RequestError, match=r"the callback's answer \| received: 'foo', 'latent' \| expected: latents"):
        final_latents(emoji, lambda *_: {"latent": None, "foo": 1})
    expected = final_latents(emoji)
    assert np.array_equal(final_latents(emoji, lambda *_: {}), expected)
    assert np.array_equal(final_latents(emoji, lambda pipe, index, timestep, state: dict(state)), expected)


def test_what_cannot_be_called_is_refused_before_anything_runs(
    emoji: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji, "run", None)
    with pytest.raises(RequestError, match=r"callback_on_step_end \| received: 'print' \| expected: a function"):
        emoji("a fox", callback_on_step_end="print")
