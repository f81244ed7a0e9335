"""What every way to a bundle begins and ends with: the components asked for, room for what is built, the manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from ..runtime.bundles.manifest import Component, EngineRecord, Manifest
from ..runtime.errors import RequestError
from .engines.engine_from_onnx import Compiler
from .engines.kernels_in_bundle import add_kernels
from .estimates import check_disk
from .record import BuildRecord
from .store import RECORD_NAME, BundleWriter


def chosen(known: Collection[str], names: Collection[str]) -> frozenset[str]:
    """The components that ``names`` stands for: all that are known, if it is empty.

    Raises:
        RequestError: a name that is not known.
    """
    for name in names:
        if name not in known:
            raise RequestError("--component", received=name, expected=", ".join(known))
    return frozenset(names or known)


def check_resources(
    writer: BundleWriter, compiler: Compiler | None, files: Mapping[str, int], weights: Mapping[str, int]
) -> None:
    """Refuse what this machine has no room for before anything is built, which may take hours.

    Args:
        writer: the bundle.
        compiler: what engines are built with; None: none are.
        files: bytes of the files that are written beside engines, by what they belong to.
        weights: bytes of weights of each component whose engine is built.

    Raises:
        OutputError: not enough disk.
        RunError: not enough memory.
    """
    needed = dict(files)
    if compiler is not None:
        for component, size in weights.items():
            compiler.check_memory(component, size)
            needed[component] = needed.get(component, 0) + compiler.engine_size(size)
    check_disk(writer.folder, needed)


def finish(
    writer: BundleWriter,
    draft: Manifest,
    components: Mapping[str, Component],
    engines: Sequence[EngineRecord],
    record: BuildRecord,
    *,
    force: bool,
) -> Manifest:
    """Put kernels beside the engines, and the bundle in its place; its manifest is ``draft`` with what was built."""
    add_kernels(writer, components.values(), engines, record.event, force=force)
    manifest = msgspec.structs.replace(
        draft, components=dict(components), engines=tuple(engines), files=dict(sorted(writer.files.items()))
    )
    writer.write_unlisted(RECORD_NAME, record.encode(manifest))
    writer.commit(manifest)
    return manifest
