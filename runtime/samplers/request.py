"""The arguments that a table was built from."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError
from .model_schedule import ModelSchedule, Value, literal


@dataclass(frozen=True, repr=False)
class TableRequest:
    """What ``build_table`` was called with; its ``repr`` is that call."""

    sampler: str | None
    schedule: str | None
    num_inference_steps: int | None
    model_schedule: ModelSchedule
    guidance_scale: Value
    guidance_interval: Value
    options: tuple[tuple[str, Value], ...]

    def __repr__(self) -> str:
        arguments = [
            repr(self.sampler),
            repr(self.schedule),
            repr(self.num_inference_steps),
            repr(self.model_schedule),
            f"guidance_scale={self.guidance_scale!r}",
            f"guidance_interval={self.guidance_interval!r}",
            *(f"{name}={literal(value)}" for name, value in self.options),
        ]
        return f"build_table({', '.join(arguments)})"

    @property
    def steps(self) -> int:
        """Inference steps asked for: a number, or as many as an explicit list of timesteps or sigmas has.

        Raises:
            RequestError: neither, or both and they differ.
        """
        given = [(name, value) for name, value in self.options if name in ("timesteps", "sigmas") and value is not None]
        steps = self.num_inference_steps
        if len(given) > 1 or (given and steps is not None):
            raise RequestError(
                "num_inference_steps, timesteps and sigmas exclude each other",
                received=" and ".join([*(["num_inference_steps"] if steps is not None else []), *dict(given)]),
                expected="one of them",
            )
        if given:
            value = given[0][1]
            if not isinstance(value, tuple):
                raise RequestError(f"{given[0][0]} is not a list of numbers", received=repr(value))
            return max(len(value) - (given[0][0] == "sigmas"), 1)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise RequestError("num_inference_steps must be a whole number", received=repr(steps), expected="1 or more")
        return steps
