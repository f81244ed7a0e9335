"""The gate: every engine against its fp32 PyTorch reference, on seeded inputs, at the sizes that its profile spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..runtime.errors import GateError
from ..runtime.manifest import GateRecord
from ..runtime.providers import Engine
from ..runtime.spec import Profile
from .components import Component
from .onnx_from_torch import example_inputs

#: Precision -> (cosine distance, max-abs error as a fraction of the reference's largest value) that an engine may have.
LIMITS: dict[str, tuple[float, float]] = {"fp32": (1e-6, 1e-3), "fp16": (1e-3, 5e-2), "bf16": (5e-3, 1e-1)}

_ROWS = 2  # enough to see that rows do not leak into each other, and affordable at the largest size


def gate(component: Component, reference: nn.Module, engine: Engine, profile: Profile) -> tuple[GateRecord, ...]:
    """Compare an engine with its reference.

    Raises:
        GateError: an output beyond its limit, of another shape, or not finite; with the component's name and figures.
    """
    records = []
    for seed, sizes in enumerate(_sizes(profile)):
        inputs = example_inputs(component, sizes, seed)
        with torch.inference_mode():
            expected = reference(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs))
        expected = expected if isinstance(expected, tuple) else (expected,)
        outputs = engine.run({spec.name: tensor.numpy() for spec, tensor in zip(component.inputs, inputs, strict=True)})
        for spec, tensor in zip(component.outputs, expected, strict=True):
            record = compare(component.name, spec.name, sizes, outputs[spec.name], tensor.numpy())
            _check(component, record)
            records.append(record)
    return tuple(records)


def compare(
    component: str,
    output: str,
    sizes: dict[str, int],
    received: NDArray[np.generic],
    expected: NDArray[np.float32],
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
        raise GateError(subject, received="values that are not finite, from PyTorch itself", remedy=remedy)
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


def _check(component: Component, record: GateRecord) -> None:
    cosine_limit, relative_limit = LIMITS[component.precision]
    relative = record.max_abs / max(record.reference_max_abs, 1e-12)
    if record.non_finite == 0 and record.cosine_distance <= cosine_limit and relative <= relative_limit:
        return
    raise GateError(
        f"{component.name}: {record.output} differs from the PyTorch reference at {_text(record.sizes)}",
        received=f"cosine distance {record.cosine_distance:.2e}, max-abs {record.max_abs:.2e} "
        f"({relative:.1e} of the largest value), {record.non_finite} values not finite",
        expected=f"cosine distance <= {cosine_limit:.0e}, max-abs <= {relative_limit:.0e} of the largest value",
        remedy="build it in fp32" if component.precision != "fp32" else "report it, with the checkpoint's name",
    )


def _text(sizes: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def _sizes(profile: Profile) -> Iterator[dict[str, int]]:
    """The opt, the smallest and the largest size, and the widest of the lowest: the others are often all square.

    Batch axes stay at two rows, within the profile.
    """
    seen: list[dict[str, int]] = []
    for pick, pick_height in (("opt", "opt"), ("min", "min"), ("max", "max"), ("max", "min")):
        sizes = {}
        for axis, allowed in profile.items():
            if axis in ("rows", "images", "texts"):
                sizes[axis] = min(max(_ROWS, allowed.min), allowed.max)
            else:
                sizes[axis] = int(getattr(allowed, pick_height if axis == "height" else pick))
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def worst(records: Sequence[GateRecord]) -> GateRecord:
    """The comparison with the largest cosine distance."""
    return max(records, key=lambda record: record.cosine_distance)
