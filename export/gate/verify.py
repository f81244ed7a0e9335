"""The gate: what a graph or an engine computes, against its fp32 reference, at the sizes that its profile spans.

The reference is PyTorch where a checkpoint is built, and the portable graph where engines are built from a bundle: this
file imports neither torch nor a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundles.manifest import Component, GateRecord
from ...runtime.bundles.spec import Profile
from ...runtime.errors import GateError
from .examples import Array

#: Precision -> (cosine distance, max-abs error as a fraction of the reference's largest value) that may be.
LIMITS: dict[str, tuple[float, float]] = {"fp32": (1e-6, 1e-3), "fp16": (1e-3, 5e-2), "bf16": (5e-3, 1e-1)}

#: Arithmetic (two for each multiply-add) that all runs of one side of a comparison may take together: some three
#: minutes on two processors. SDXL takes 13.5e12 (denoiser) and 21e12 (decoder) at 1024x1024, 5e12 and 8e12 at 640x640.
WORK_LIMIT = 32e12

_ROWS = 2  # enough to see that rows do not leak into each other, and affordable at the largest size

#: Computes outputs from inputs, both by name.
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

#: Gives a component's inputs at sizes of its axes; other ones for another seed.
MakeInputs = Callable[[dict[str, int], int], Mapping[str, Array]]


@dataclass(frozen=True)
class Sample:
    """Inputs of a component at one set of axis sizes, and what its reference makes of them."""

    sizes: dict[str, int]
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]


def samples(reference: Run, inputs: MakeInputs, compared: Sequence[dict[str, int]]) -> tuple[Sample, ...]:
    """What a reference makes of its inputs at each of the sizes to compare at."""
    taken = []
    for seed, sizes in enumerate(compared):
        given = inputs(sizes, seed)
        taken.append(Sample(sizes, given, reference(given)))
    return tuple(taken)


def compared_sizes(profile: Profile, work: Callable[[dict[str, int]], float]) -> tuple[dict[str, int], ...]:
    """The opt, the smallest and the largest size of a profile, and the widest of the lowest: the others are often all
    square. ``work(sizes)`` is the arithmetic that one run takes: sizes go as far as ``WORK_LIMIT`` does, in this order,
    and the smallest is always among them.
    """
    candidates = tuple(_sizes(profile))
    if len(candidates) * work(_picked(profile, "max", "max")) <= WORK_LIMIT:  # of small components, all at once
        return candidates
    smallest = _picked(profile, "min", "min")
    left, chosen = WORK_LIMIT - work(smallest), []
    for sizes in candidates:
        if sizes == smallest:
            chosen.append(sizes)
        elif (needed := work(sizes)) <= left:
            chosen.append(sizes)
            left -= needed
    return tuple(chosen)


def gate(
    component: str,
    record: Component,
    samples: Sequence[Sample],
    run: Run,
    overflow: Callable[[Sample], str] = lambda sample: "",
) -> tuple[GateRecord, ...]:
    """Compare a graph or an engine with samples of its reference.

    ``overflow`` names the node that gave the first value which is not finite, where that can be found out.

    Raises:
        GateError: an output beyond its limit, of another shape, or not finite; with the component's name and figures.
    """
    records = []
    for sample in samples:
        outputs = run(sample.inputs)
        for spec in record.outputs:
            figures = compare(component, spec.name, sample.sizes, outputs[spec.name], sample.expected[spec.name])
            if not _is_within(record.precision, figures):
                raise _differs(component, record.precision, figures, overflow(sample) if figures.non_finite else "")
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
        bad = expected.size - np.isfinite(expected).sum()
        raise GateError(
            f"{component}: the checkpoint's own network does not compute numbers, before anything was compiled",
            received=f"{bad} of {expected.size} values of {output} are NaN or infinite in fp32, at {_text(sizes)}",
            expected="finite values",
            remedy="its weights are damaged, or belong to another config: get the checkpoint again",
        )
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


def _is_within(precision: str, record: GateRecord) -> bool:
    cosine_limit, relative_limit = LIMITS[precision]
    small = record.cosine_distance <= cosine_limit and _relative(record) <= relative_limit
    return small and record.non_finite == 0


def _relative(record: GateRecord) -> float:
    return record.max_abs / max(record.reference_max_abs, 1e-12)


def _differs(component: str, precision: str, record: GateRecord, overflow: str) -> GateError:
    cosine_limit, relative_limit = LIMITS[precision]
    first = f", the first from {overflow}" if overflow else ""
    wider = "bf16 or fp32" if precision == "fp16" else "fp32"
    return GateError(
        f"{component}: {record.output} differs from the reference at {_text(record.sizes)}",
        received=f"cosine distance {record.cosine_distance:.2e}, max-abs {record.max_abs:.2e} "
        f"({_relative(record):.1e} of the largest value), {record.non_finite} values not finite{first}",
        expected=f"cosine distance <= {cosine_limit:.0e}, max-abs <= {relative_limit:.0e} of the largest value",
        remedy=f"build it in {wider}" if precision != "fp32" else "report it, with the checkpoint's name",
    )


def _text(sizes: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def _sizes(profile: Profile) -> Iterator[dict[str, int]]:
    seen: list[dict[str, int]] = []
    for pick, pick_height in (("opt", "opt"), ("min", "min"), ("max", "max"), ("max", "min")):
        sizes = _picked(profile, pick, pick_height)
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _picked(profile: Profile, pick: str, pick_height: str) -> dict[str, int]:
    """An end of every range; batch axes stay at two rows, within the profile."""
    sizes = {}
    for axis, allowed in profile.items():
        if axis in ("rows", "images", "texts"):
            sizes[axis] = min(max(_ROWS, allowed.min), allowed.max)
        else:
            sizes[axis] = int(getattr(allowed, pick_height if axis == "height" else pick))
    return sizes
