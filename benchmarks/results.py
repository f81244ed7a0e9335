"""``results.json``: every measurement of a run in the order it was made, and what it was made on.

No sample is discarded; figures are computed from the samples when a report is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ..runtime.errors import RequestError
from .workload import Workload

SCHEMA_VERSION = 1

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
    """A side that did not take part, or that failed on the way."""

    side: str
    title: str
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
    """Host memory of a fresh process: resident after loading, and the largest during one call."""

    side: str
    loaded_bytes: int
    peak_bytes: int


class Size(msgspec.Struct, frozen=True, tag=True):
    """Bytes on disk."""

    what: str
    bytes: int


class Overhead(msgspec.Struct, frozen=True, tag=True):
    """One LatentRT call: seconds outside the engines, and the most host memory that any step takes on top of what it
    found (numpy's and Python's allocations; the provider's own are not seen)."""

    round: int
    steps: int
    seconds: float
    outside_engines_seconds: float
    step_bytes: int


class Peaks(msgspec.Struct, frozen=True, tag=True):
    """What this machine does at best: fp32 products or convolutions in FLOP/s (``matmul``, and by what), copying in
    bytes read and written a second."""

    matmul: float
    matmul_by: str
    copy: float
    threads: int


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
    """A side beside the reference, from identical initial latents. ``pixels_max`` in 0..255, ``psnr`` in dB (infinite
    for equal pictures); ``ssim`` and ``lpips`` are None where their package is not installed."""

    side: str
    case: str
    prompt: str
    latents_max_abs: float
    latents_cosine_distance: float
    pixels_max: int
    psnr: float | None
    ssim: float | None
    lpips: float | None


class Picture(msgspec.Struct, frozen=True, tag=True):
    """What a side drew: base64 of a PNG."""

    side: str
    case: str
    prompt: str
    png: str


class Recognition(msgspec.Struct, frozen=True, tag=True):
    """How many pictures of a side show what their prompt names, nearest and among the five nearest, and how many have
    the background colour that it names."""

    side: str
    prompts: int
    top1: float
    top5: float
    background: float


class Build(msgspec.Struct, frozen=True, tag=True):
    """One ``build-engines``: ``cold`` into an empty folder, ``warm`` again with nothing changed."""

    kind: Literal["cold", "warm"]
    seconds: float
    components: dict[str, float]
    peak_bytes: int
    bundle_bytes: int


Record = (
    Present
    | Absent
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
    """A whole run. ``partial`` says where it stopped if it did not come to its end; ``command`` reproduces it."""

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


def read_results(path: Path) -> Results:
    """Read ``results.json``, or the one in a report's folder.

    Raises:
        RequestError: no such file, not JSON, or another schema.
    """
    file = path / "results.json" if path.is_dir() else path
    expected = f"results of schema version {SCHEMA_VERSION}"
    remedy = "measure again: latentrt bench BUNDLE --reference CHECKPOINT --out REPORT"
    try:
        data = file.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=Results)
    except OSError as error:
        raise RequestError(f"{file}: cannot be read", received=error.strerror, expected=expected) from None
    except msgspec.MsgspecError as error:
        raise RequestError(f"{file}: not a result", received=str(error), expected=expected, remedy=remedy) from None
    raise RequestError(f"{file}: another schema", received=f"version {version}", expected=expected, remedy=remedy)
