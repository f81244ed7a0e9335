"""A component's contract at the sizes of one run: axes, shapes, buffers, and the profile that suits them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..bundles.manifest import Component
from ..bundles.spec import Profile, axis_and_factor, resolve_shape
from ..device.interface import Buffer
from ..errors import EngineError


def axis_sizes(component: str, record: Component, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The size of each symbolic axis that the shapes of a component's inputs stand for.

    Raises:
        EngineError: the shapes are not those of the contract's inputs.
    """
    sizes: dict[str, int] = {}
    fitting = shapes.keys() == {spec.name for spec in record.inputs}
    for spec in record.inputs if fitting else ():
        shape = shapes[spec.name]
        fitting &= len(shape) == len(spec.shape)
        for dimension, size in zip(spec.shape, shape, strict=False):
            if isinstance(dimension, str):
                axis, factor = axis_and_factor(dimension)
                fitting &= sizes.setdefault(axis, size // factor) * factor == size
            else:
                fitting &= size == dimension
    if not fitting:
        received = ", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())
        expected = ", ".join(str(spec) for spec in record.inputs)
        raise EngineError(f"{component}: the shapes of its inputs", received=received, expected=expected)
    return sizes


def output_shapes(
    record: Component, sizes: Mapping[str, int]
) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    """Shape and dtype of each output at the sizes of the axes."""
    return {spec.name: (resolve_shape(spec, dict(sizes)), np.dtype(spec.dtype)) for spec in record.outputs}


def check_buffers(component: str, record: Component, sizes: Mapping[str, int], buffers: Mapping[str, Buffer]) -> None:
    """Raise EngineError unless there is a buffer of the right shape and dtype for every input and output."""
    for spec in (*record.inputs, *record.outputs):
        shape = resolve_shape(spec, dict(sizes))
        buffer = buffers.get(spec.name)
        if buffer is None or buffer.shape != shape or buffer.dtype != np.dtype(spec.dtype):
            received = "nothing" if buffer is None else f"{buffer.dtype}{list(buffer.shape)}"
            subject = f"{component}: the buffer of {spec.name}"
            raise EngineError(subject, received=received, expected=f"{spec.dtype}{list(shape)}")


def profile_for(component: str, profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int:
    """The number of the profile that is tuned for the sizes nearest to those given: of the smallest ratio to them.

    Raises:
        EngineError: a size that no profile allows.
    """
    allowed = [i for i, profile in enumerate(profiles) if all(size in profile[axis] for axis, size in sizes.items())]
    if not allowed:
        raise EngineError(
            f"{component}: no profile of its engine allows these sizes",
            received=_listed(sizes.items()),
            expected=" or ".join(_listed(profile.items()) for profile in profiles),
            remedy="build the bundle for more sizes: latentrt build-engines --aspects WxH,... --batch MIN:OPT:MAX",
        )
    return min(allowed, key=lambda i: _distance(profiles[i], sizes))


def _distance(profile: Profile, sizes: Mapping[str, int]) -> float:
    return sum(abs(math.log(size / profile[axis].opt)) for axis, size in sizes.items())


def _listed(values: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in values)
