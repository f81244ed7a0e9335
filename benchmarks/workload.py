"""What the driver of a benchmark and the processes it measures say to one another."""

from __future__ import annotations

from typing import Literal

import msgspec


class Workload(msgspec.Struct, frozen=True):
    """One call: the same prompt, size, steps, guidance, seed and number of pictures on every side."""

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    images: int = 1

    @property
    def label(self) -> str:
        """What distinguishes this call from others of a report."""
        pictures = "" if self.images == 1 else f", {self.images} pictures"
        return (
            f"{self.width}x{self.height}, {self.num_inference_steps} steps, guidance {self.guidance_scale:g}{pictures}"
        )


class Start(msgspec.Struct, frozen=True):
    """What a side is started with: a bundle or a checkpoint, its options, and a folder to keep its own export in.

    ``workload`` is the first that it will be asked for, so that sides with fixed shapes can be made for it.
    """

    source: str
    threads: int
    workload: Workload
    cache: str
    options: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True):
    """What a side says once it is loaded.

    ``seconds`` from the start of its code (the interpreter is running by then) to being loaded, without
    ``preparing_seconds``, which its own export of the checkpoint took if it was not there from an earlier run.
    ``device_bytes``: of GPU memory in use, what was not when the process started. ``concurrent``: whether several
    threads may call it at once.
    """

    seconds: float
    preparing_seconds: float
    resident_bytes: int
    device_bytes: int
    concurrent: bool
    versions: dict[str, str]
    settings: dict[str, str]


class Ask(msgspec.Struct, frozen=True, tag="draw"):
    """One call. ``noise`` says where the initial latents come from: the seed, by whatever generator the side has, or
    ``numpy.random.default_rng(seed)``, which is the same for all. ``give``: what the reply carries. ``watch``: GPU
    memory is asked for all the time, which costs some."""

    workload: Workload
    noise: Literal["seed", "numpy"] = "seed"
    give: Literal["nothing", "pictures", "latents"] = "nothing"
    watch: bool = False


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Many calls for ``seconds``: ``concurrency`` callers that each wait for their picture (closed loop), or arrivals
    at ``rate`` a second whatever becomes of them (open loop; Poisson, from ``seed``), served by that many threads."""

    workload: Workload
    seconds: float
    concurrency: int
    rate: float | None = None
    seed: int = 0


class Account(msgspec.Struct, frozen=True, tag="account"):
    """One call of LatentRT's, for what it takes outside of its engines. ``traced``: memory is traced (``tracemalloc``),
    which slows the call down."""

    workload: Workload
    traced: bool = False


class Profile(msgspec.Struct, frozen=True, tag="profile"):
    """Two calls under a profiler that differ in their steps alone: what the longer one has more of is that of steps."""

    workload: Workload
    fewer: int = 2
    more: int = 6


class OperationsTask(msgspec.Struct, frozen=True):
    """Operations to time on their own: those of pictures with latents ``[channels, height, width]`` of a family, with
    LatentRT's kernels for one and for ``many`` pictures at once, and by each of these providers."""

    device: Literal["cpu", "cuda"]
    family: str
    channels: int
    height: int
    width: int
    many: int
    providers: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, tag="draw"):
    """One call's outcome. ``seconds`` until the pictures are in memory; ``stages`` in seconds, with ``encode`` for the
    PNG files, which comes on top; ``peak_bytes``: the most host memory since the process started; ``device_bytes``: the
    most GPU memory, if it was watched; ``pictures``: base64 of PNGs; ``latents``: base64 of an .npy file."""

    seconds: float
    stages: dict[str, float]
    peak_bytes: int
    device_bytes: int = 0
    pictures: tuple[str, ...] = ()
    latents: str = ""


class Served(msgspec.Struct, frozen=True, tag="load"):
    """Requests of a load that were finished: (arrival, start, end) in seconds since the load began."""

    requests: tuple[tuple[float, float, float], ...]
    seconds: float


class Accounted(msgspec.Struct, frozen=True, tag="account"):
    """One call's costs: seconds in all and outside of the engines, buffers taken from the device, how often the host
    waited for it, and, if it was traced, the most host memory that any step took on top of what it found."""

    seconds: float
    outside_engines_seconds: float
    allocations: int
    synchronizations: int
    step_bytes: int = 0


class Kernel(msgspec.Struct, frozen=True):
    """A kernel, or a copy, by its name: how often it runs in one step, and how long in all."""

    name: str
    calls: float
    seconds: float


class Profiled(msgspec.Struct, frozen=True, tag="profile"):
    """One step on the GPU: its kernels, the longest first, and the time from one step to the next; what is not spent
    in kernels, the GPU waits."""

    kernels: tuple[Kernel, ...]
    seconds: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A call or a load that was not done; the process is there for the next one."""

    reason: str


#: What a side's process can be asked for, and what it replies if nothing fails.
Request = Ask | Load | Account | Profile
Reply = Done | Served | Accounted | Profiled
