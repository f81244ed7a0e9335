"""The kernels of a bundle: compiled for the GPUs of its engines, or taken over from the previous bundle."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from ...kernels.launch import INDEX_NAME, PTX
from ...runtime.bundles.kernels import KERNEL_FOLDER, kernels_of
from ...runtime.bundles.manifest import EngineRecord, Manifest
from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import BundleError, ExportError, MissingDependencyError, OutputError
from ...runtime.providers import PROVIDERS
from ..events import FORCED, REUSED, BuildEvent, Report
from ..keys import reason_to_build
from ..store import BundleWriter

#: What events call the kernels, which belong to no component.
KERNELS = "kernels"

#: Element types of engines' tensors that kernels are compiled for.
_DTYPES = ("float16", "bfloat16", "float32")


class HasTensors(Protocol):
    """A component, before it is built or in a manifest."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What its engine takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What its engine gives."""


def add_kernels(
    writer: BundleWriter,
    components: Iterable[HasTensors],
    engines: Iterable[EngineRecord],
    report: Report,
    *,
    force: bool = False,
) -> None:
    """Put the kernels that engines for GPUs run with into the bundle under construction.

    They are compiled for the types of the components' tensors and for the engines' GPUs; for all that kernels are
    written for, where an engine runs on any.

    Args:
        writer: the bundle.
        components: the records of its components.
        engines: the records of its engines; none of them for a GPU: there is nothing to do.
        report: told what is done, as of a component ``kernels``.
        force: take nothing over.

    Raises:
        MissingDependencyError: Triton is not installed.
        OutputError: there is no room for them.
        ExportError: a kernel cannot be compiled.
    """
    gpus = gpus_of(engines)
    if not gpus:
        return
    start = time.perf_counter()
    compiled_for, dtypes = _wanted(gpus, components)
    reason = _changes(writer, compiled_for, dtypes, force=force)
    if reason:
        report(BuildEvent(KERNELS, "compile", detail=f"for {', '.join(compiled_for)}"))
        _compile(writer, compiled_for, dtypes)
    else:
        writer.take_over(_held(writer))
    report(BuildEvent(KERNELS, "done", time.perf_counter() - start, reason or REUSED))


def planned_kernels(
    writer: BundleWriter, components: Iterable[HasTensors], gpus: Sequence[tuple[str, ...]], *, force: bool
) -> dict[str, str]:
    """Why ``add_kernels`` would compile the kernels, or that it would take them over, by what events call them; empty
    without engines for GPUs. ``gpus`` are those of ``gpus_of``."""
    if not gpus:
        return {}
    return {KERNELS: _changes(writer, *_wanted(gpus, components), force=force) or REUSED}


def gpus_of(engines: Iterable[EngineRecord]) -> list[tuple[str, ...]]:
    """The targets of each engine for GPUs; none: it runs on any."""
    return [engine.targets for engine in engines if PROVIDERS[engine.provider].needs_gpu]


def _wanted(gpus: Sequence[tuple[str, ...]], components: Iterable[HasTensors]) -> tuple[tuple[str, ...], list[str]]:
    """What kernels are compiled for: targets and types."""
    check_triton()
    from ...kernels.gpu.aot import TARGETS

    targets = {target for of_engine in gpus for target in (of_engine or TARGETS)}
    found = {tensor.dtype for record in components for tensor in (*record.inputs, *record.outputs)}
    # PTX beside the cubins: GPUs that are newer than every target compile it for themselves.
    compiled_for = (*sorted(targets, key=lambda target: int(target.removeprefix("sm"))), PTX)
    return compiled_for, [dtype for dtype in _DTYPES if dtype in found]


def check_triton() -> None:
    """Check that kernels can be compiled, before hours are spent on the engines that run with them.

    Raises:
        MissingDependencyError: Triton is not installed.
    """
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        subject = "engines for GPUs need triton, for the kernels beside them"
        raise MissingDependencyError(subject, remedy="install it: pip install 'latentrt[export]'") from None


def kernel_files(manifest: Manifest) -> list[str]:
    """The files of a bundle that are its kernels."""
    return [name for name in manifest.files if name.startswith(f"{KERNEL_FOLDER}/")]


def _changes(writer: BundleWriter, targets: tuple[str, ...], dtypes: list[str], *, force: bool) -> str:
    """Why the previous bundle's kernels cannot be taken over; empty if they can."""
    from ...kernels.gpu.aot import kernels_key

    try:
        held = None if writer.previous is None else kernels_of(writer.previous)
    except BundleError as error:
        return FORCED if force else error.subject
    return reason_to_build(
        None if held is None else held.index.key, lambda: kernels_key(targets, dtypes),
        force=force, intact=lambda: writer.intact(_held(writer)),
    )  # fmt: skip


def _held(writer: BundleWriter) -> list[str]:
    return [] if writer.previous is None else kernel_files(writer.previous.manifest)


def _compile(writer: BundleWriter, targets: Sequence[str], dtypes: Sequence[str]) -> None:
    """In a process of its own: in one that interprets kernels they cannot be compiled."""
    folder = writer.folder / KERNEL_FOLDER
    options = [f"--target={target}" for target in targets] + [f"--dtype={dtype}" for dtype in dtypes]
    command = [sys.executable, "-P", "-m", "latentrt.kernels.gpu.aot", str(folder), *options]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / INDEX_NAME).is_file():
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if os.strerror(errno.ENOSPC) in reason:
            remedy = "make room or choose another --out"
            raise OutputError(f"{writer.out}: cannot be written", received=reason, remedy=remedy)
        raise ExportError("the kernels cannot be compiled", received=reason, expected=f"code for {', '.join(targets)}")
    for path in sorted(folder.iterdir()):
        writer.add(f"{KERNEL_FOLDER}/{path.name}")
