"""The gate: what a graph or an engine computes, against its fp32 reference, at the sizes that its profile spans.

The reference is PyTorch where a checkpoint is built, and the portable graph where engines are built from a bundle: this
file imports neither torch nor a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import GateError
from ..runtime.manifest import Component, GateRecord
from ..runtime.spec import Profile
from .examples import Array, example_arrays

#: Precision -> (cosine distance, max-abs error as a fraction of the reference's largest value) that may be.
LIMITS: dict[str, tuple[float, float]] = {"fp32": (1e-6, 1e-3), "fp16": (1e-3, 5e-2), "bf16": (5e-3, 1e-1)}

#: Bytes of weights from which on a component is compared at one size only: others would take minutes.
LARGE_COMPONENT = 1 << 30

_ROWS = 2  # enough to see that rows do not leak into each other, and affordable at the largest size

#: Computes outputs from inputs, both by name.
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Sample:
    """Inputs of a component at one set of axis sizes, and what its reference makes of them."""

    sizes: dict[str, int]
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]


def samples(record: Component, reference: Run, *, vocabulary: int, large: bool) -> tuple[Sample, ...]:
    """What a reference computes from seeded inputs at the sizes to compare at; of a large component, at one."""
    taken: list[Sample] = []
    for sizes in [_smallest(record.profile)] if large else _sizes(record.profile):
        inputs = example_arrays(record.inputs, sizes, vocabulary=vocabulary, seed=len(taken))
        taken.append(Sample(sizes, inputs, reference(inputs)))
    return tuple(taken)


def gate(component: str, record: Component, samples: Sequence[Sample], run: Run) -> tuple[GateRecord, ...]:
    """Compare a graph or an engine with samples of its reference.

    Raises:
        GateError: an output beyond its limit, of another shape, or not finite; with the component's name and figures.
    """
    records = []
    for sample in samples:
        outputs = run(sample.inputs)
        for spec in record.outputs:
            figures = compare(component, spec.name, sample.sizes, outputs[spec.name], sample.expected[spec.name])
            _check(component, record.precision, figures)
            records.append(figures)
    return tuple(records)


def compare(
    component: str, output: str, sizes: dict[str, int], received: Array, expected: NDArray[np.floating]
) -> GateRecord:
    """Figures of one output against its reference, computed in float64 over the values that are finite.

    Raises:
        GateError: there is nothing to compare: another shape, or a reference that is not finite itself.
    """
    subject = f"{component}: {output} at {_text(sizes)}"
    if received.shape != expected.shape:
        raise GateError(subject, received=f"shape {list(received.shape)}", expected=f"{list(expected.shape)}")
    if not np.isfinite(expected).all():
        remedy = "the checkpoint's weights are damaged, or cannot be used with its config"
        raise GateError(subject, received="values that are not finite, from the reference itself", remedy=remedy)
    finite = np.isfinite(received)
    a, b = received[finite].astype(np.float64), expected[finite].astype(np.float64)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return GateRecord(
        sizes=sizes,
        output=output,
        cosine_distance=max(0.0, 1 - float(a @ b) / norm) if norm > 0 else float(np.any(a != b)),
        max_abs=float(np.abs(a - b).max(initial=0.0)),
        reference_max_abs=float(np.abs(expected).max()),
        non_finite=int(finite.size - finite.sum()),
    )


def _check(component: str, precision: str, record: GateRecord) -> None:
    cosine_limit, relative_limit = LIMITS[precision]
    relative = record.max_abs / max(record.reference_max_abs, 1e-12)
    if record.non_finite == 0 and record.cosine_distance <= cosine_limit and relative <= relative_limit:
        return
    raise GateError(
        f"{component}: {record.output} differs from the reference at {_text(record.sizes)}",
        received=f"cosine distance {record.cosine_distance:.2e}, max-abs {record.max_abs:.2e} "
        f"({relative:.1e} of the largest value), {record.non_finite} values not finite",
        expected=f"cosine distance <= {cosine_limit:.0e}, max-abs <= {relative_limit:.0e} of the largest value",
        remedy="build it in fp32" if precision != "fp32" else "report it, with the checkpoint's name",
    )


def _text(sizes: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def _sizes(profile: Profile) -> Iterator[dict[str, int]]:
    """The opt, the smallest and the largest size, and the widest of the lowest: the others are often all square."""
    seen: list[dict[str, int]] = []
    for pick, pick_height in (("opt", "opt"), ("min", "min"), ("max", "max"), ("max", "min")):
        sizes = _picked(profile, pick, pick_height)
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _smallest(profile: Profile) -> dict[str, int]:
    return _picked(profile, "min", "min")


def _picked(profile: Profile, pick: str, pick_height: str) -> dict[str, int]:
    """An end of every range; batch axes stay at two rows, within the profile."""
    sizes = {}
    for axis, allowed in profile.items():
        if axis in ("rows", "images", "texts"):
            sizes[axis] = min(max(_ROWS, allowed.min), allowed.max)
        else:
            sizes[axis] = int(getattr(allowed, pick_height if axis == "height" else pick))
    return sizes


def worst(records: Sequence[GateRecord]) -> GateRecord:
    """The comparison with the largest cosine distance."""
    return max(records, key=lambda record: record.cosine_distance)
