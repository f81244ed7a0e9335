"""Names of weights on both sides: diffusers' name -> where the original file has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .converted import Source, View

Names = dict[str, Source]


def layers(pairs: Mapping[str, str], view: View | None = None) -> Names:
    """The weight and the bias of each layer of ``{diffusers' name: original name}``. A view is of both alike."""
    return {
        f"{ours}.{kind}": Source(f"{theirs}.{kind}", view)
        for ours, theirs in pairs.items()
        for kind in ("weight", "bias")
    }


def layers_without_bias(pairs: Mapping[str, str], view: View | None = None) -> Names:
    """The weight of each layer of ``{diffusers' name: original name}``."""
    return {f"{ours}.weight": Source(f"{theirs}.weight", view) for ours, theirs in pairs.items()}


def sources(parts: Iterable[Names]) -> Names:
    """All names in one."""
    return {ours: source for names in parts for ours, source in names.items()}
