"""What a callback sees after a step, and what its answer means for the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import numbers, shown
from ..errors import RequestError
from .denoise import DenoiseStep

Array = NDArray[np.float32]

#: ``callback(pipeline, step_index, timestep, state)`` with the pipeline that was called and a ``StepState``, which
#: tells what its answers mean.
StepCallback = Callable[[Any, int, float, "StepState"], Mapping[str, Any] | bool | None]

#: A callback with all that it wants to know beside the step.
Observer = Callable[[DenoiseStep], "Answer"]


class StepState(MutableMapping[str, Array]):
    """``latents`` and ``denoised`` after a step, ``[images, C, h, w]``, each made when a callback first asks for it.

    Both are the callback's own: writing into them changes nothing unless it returns them. They have to be asked for
    while it runs, since the run goes on after it; what was asked for stays. ``latents`` still have their noise;
    ``pipeline.preview(state["denoised"])`` shows the picture that becomes of them.

    The run goes on after a callback that returns None or True, goes on from other latents after a mapping that has
    ``latents`` (the state itself, as with diffusers, or a new one), and stops after False: what is there then is
    decoded and returned.
    """

    def __init__(self, step: DenoiseStep):
        self._make: dict[str, Callable[[], Array]] = {"latents": step.latents, "denoised": step.denoised}
        self._unasked = set(self._make)

    def __getitem__(self, name: str) -> Array:
        self[name] = value = self._make[name]()
        return value

    def __setitem__(self, name: str, value: Array) -> None:
        self._make[name] = lambda: value
        self._unasked.discard(name)

    def __delitem__(self, name: str) -> None:
        del self._make[name]
        self._unasked.discard(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)

    def end(self) -> None:
        """The run goes on: what nobody has asked for is not there any more."""
        for name in self._unasked:
            self._make[name] = partial(_too_late, name)


@dataclass(frozen=True)
class Answer:
    """Whether the run goes on, and the latents to go on from where they are not those of the step."""

    go_on: bool
    latents: Array | None


def observer_of(callback: StepCallback | None, pipeline: object, steps_before: int = 0) -> Observer | None:
    """What a run of ``pipeline`` asks after every step, if anything; ``steps_before`` came before its first one.

    Raises:
        RequestError: something that cannot be called.
    """
    if callback is None:
        return None
    if not callable(callback):
        expected = "a function of (pipeline, step_index, timestep, state)"
        raise RequestError("callback_on_step_end", received=shown(callback), expected=expected)

    def ask(step: DenoiseStep) -> Answer:
        state = StepState(step)
        try:
            return _answer_of(callback(pipeline, steps_before + step.index, step.timestep, state), step.shape)
        finally:
            state.end()

    return ask


def _answer_of(answer: Any, shape: tuple[int, ...]) -> Answer:
    if isinstance(answer, Mapping):
        ignored = answer.keys() - ({"latents", "denoised"} if "latents" in answer else ())
        if ignored:
            received = ", ".join(sorted(map(shown, ignored)))
            raise RequestError("the callback's answer", received=received, expected="latents, which it may replace")
        if "latents" not in answer:
            return Answer(True, None)
        return Answer(True, numbers("the callback's latents", answer["latents"], shape))
    if answer is not None and not isinstance(answer, bool | np.bool_):
        expected = "None or True, False to stop, or a mapping with other latents"
        raise RequestError("the callback's answer", received=shown(answer), expected=expected)
    return Answer(answer is None or bool(answer), None)


def _too_late(name: str) -> Array:
    expected = "asked for before the callback returns"
    raise RequestError(f"{name} of a step", received="asked for when it was over", expected=expected)
