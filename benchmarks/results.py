"""``results.json``: every measurement of a run in the order it was made, and what it was made on.

No sample is discarded; figures are computed from the samples when a report is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ..runtime.errors import RequestError
from .results_kernels import Operated, StepKernels
from .workload import Workload

SCHEMA_VERSION = 2

#: Version 1 is version 2 without failures, GPUs, and more than one picture a call: all of its files are read.
_READ = (1, SCHEMA_VERSION)

#: ``first`` is the first call after loading; ``warm-up`` calls follow it; both are kept and shown, not summarised with
#: the ``measured`` ones. A ``switch`` is a call of another size than the one before it.
Phase = Literal["first", "warm-up", "measured", "switch"]


class Present(msgspec.Struct, frozen=True, tag=True):
    """A side that took part, and exactly how it was set up."""

    side: str
    title: str
    versions: dict[str, str]
    settings: dict[str, str]


class Absent(msgspec.Struct, frozen=True, tag=True):
    """A side that did not take part."""

    side: str
    title: str
    reason: str


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Something that was asked for and could not be measured: ``what`` of a side, or a whole suite (no ``side``)."""

    side: str
    what: str
    reason: str


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """A side's load. ``preparing_seconds``: its own export of the checkpoint, 0 if it was there from an earlier run."""

    side: str
    seconds: float
    preparing_seconds: float
    resident_bytes: int


class Run(msgspec.Struct, frozen=True, tag=True):
    """One call. Runs of the same case and round are neighbours in time; ``order`` says which came first."""

    side: str
    case: str
    phase: Phase
    round: int
    order: int
    seconds: float
    stages: dict[str, float]
    peak_bytes: int


class ColdStart(msgspec.Struct, frozen=True, tag=True):
    """From the start of a process to a PNG on disk."""

    side: str
    round: int
    order: int
    seconds: float


class LoadRun(msgspec.Struct, frozen=True, tag=True):
    """A closed loop (``rate`` is None) or an open one. ``requests``: (arrival, start, end) in seconds."""

    side: str
    concurrency: int
    rate: float | None
    seconds: float
    requests: tuple[tuple[float, float, float], ...]


class Memory(msgspec.Struct, frozen=True, tag=True):
    """Host memory of a process: resident after loading, and the most that it has had from its start to the end of a
    call, once it is warm. Of the GPU what it has after loading, and the most during that call."""

    side: str
    loaded_bytes: int
    peak_bytes: int
    device_loaded_bytes: int = 0
    device_peak_bytes: int = 0


class Size(msgspec.Struct, frozen=True, tag=True):
    """Bytes on disk."""

    what: str
    bytes: int


class Overhead(msgspec.Struct, frozen=True, tag=True):
    """One LatentRT call: seconds outside the engines, and the most host memory that any step takes on top of what it
    found (numpy's and Python's allocations; the provider's own are not seen). ``allocations`` are buffers taken from
    the device during the call, ``synchronizations`` how often the host waited for it."""

    round: int
    steps: int
    seconds: float
    outside_engines_seconds: float
    step_bytes: int
    allocations: int | None = None
    synchronizations: int | None = None


class Peaks(msgspec.Struct, frozen=True, tag=True):
    """What this machine does at best: products or convolutions in FLOP/s (``matmul``, and by what) in a ``precision``,
    copying in bytes read and written a second. Of the ``device`` that the engines run on."""

    matmul: float
    matmul_by: str
    copy: float
    threads: int
    precision: str = "fp32"
    device: str = "cpu"


class Bound(msgspec.Struct, frozen=True, tag=True):
    """The least time a stage can take: all its calls' arithmetic at the matmul peak, or reading its weights, inputs and
    outputs once per call at the copy bandwidth, whichever is longer."""

    case: str
    stage: str
    calls: int
    flops: float
    bytes: float
    seconds: float


class Difference(msgspec.Struct, frozen=True, tag=True):
    """A side's picture beside the reference's, from identical initial latents. ``pixels_max`` in 0..255, ``psnr`` in dB
    (None for equal pictures); ``ssim`` and ``lpips`` are None where their package is not installed. ``image`` counts
    the pictures of one call."""

    side: str
    case: str
    prompt: str
    latents_max_abs: float
    latents_cosine_distance: float
    pixels_max: int
    psnr: float | None
    ssim: float | None
    lpips: float | None
    image: int = 0


class Picture(msgspec.Struct, frozen=True, tag=True):
    """What a side drew, or the middle of it: base64 of a PNG; ``image`` counts the pictures of one call."""

    side: str
    case: str
    prompt: str
    png: str
    image: int = 0


class Recognition(msgspec.Struct, frozen=True, tag=True):
    """How many pictures of a side show what their prompt names, nearest and among the five nearest, and how many have
    the background colour that it names."""

    side: str
    prompts: int
    top1: float
    top5: float
    background: float


class Build(msgspec.Struct, frozen=True, tag=True):
    """One ``build-engines``: ``cold`` into an empty folder, ``warm`` again with nothing changed. Seconds of the whole
    command, of each component, and of each stage of all of them (export, compile, gate). ``peak_bytes`` is what all
    processes of it had together, asked ten times a second."""

    kind: Literal["cold", "warm"]
    seconds: float
    components: dict[str, float]
    peak_bytes: int
    bundle_bytes: int
    stages: dict[str, float] = {}


Record = (
    Present
    | Absent
    | Failure
    | Loaded
    | Run
    | ColdStart
    | LoadRun
    | Memory
    | Size
    | Overhead
    | Peaks
    | Bound
    | Difference
    | Picture
    | Recognition
    | Build
    | StepKernels
    | Operated
)
R = TypeVar("R", bound=msgspec.Struct)


class Subject(msgspec.Struct, frozen=True):
    """What was measured: a bundle, by name and hash, and whether its weights are those of the reference."""

    bundle: str
    bundle_hash: str
    family: str
    precision: str
    provider: str
    same_weights: bool


class Results(msgspec.Struct, frozen=True):
    """A whole run. ``partial`` says during what it stopped if it did not come to its end, or is not there yet;
    ``command`` reproduces it."""

    schema_version: int
    started: str
    command: tuple[str, ...]
    partial: str | None
    suites: tuple[str, ...]
    subject: Subject
    workload: Workload
    threads: int
    machine: dict[str, str]
    records: tuple[Record, ...]

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind, in the order they were made."""
        return [record for record in self.records if isinstance(record, kind)]


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def encode_results(results: Results) -> bytes:
    """The bytes of ``results.json``."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"


def write_results(results: Results, path: Path) -> None:
    """Write ``results.json`` whole or not at all: who reads it meanwhile, or after a crash, finds one or the other."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_bytes(encode_results(results))
    unfinished.replace(path)


def read_results(path: Path) -> Results:
    """Read ``results.json``, or the one in a report's folder.

    Raises:
        RequestError: no such file, not JSON, or another schema.
    """
    file = path / "results.json" if path.is_dir() else path
    expected = f"results of schema version {' or '.join(map(str, _READ))}"
    remedy = "measure again: latentrt bench BUNDLE --reference CHECKPOINT --out REPORT"
    try:
        data = file.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version in _READ:
            return msgspec.json.decode(data, type=Results)
    except OSError as error:
        raise RequestError(f"{file}: cannot be read", received=error.strerror, expected=expected) from None
    except msgspec.MsgspecError as error:
        raise RequestError(f"{file}: not a result", received=str(error), expected=expected, remedy=remedy) from None
    raise RequestError(f"{file}: another schema", received=f"version {version}", expected=expected, remedy=remedy)
