"""What a choice of sampler costs: building its table, and the update of the state on the host after each evaluation.

The update is measured beside two others on the same tensors with one thread: a plain numpy copy of the bytes that it
must touch, which is the least that any implementation takes, and diffusers' guidance and ``scheduler.step``. Each of
them in two states of the machine: ``warm``, right after the same work, so that what fits is in the processor's caches;
and ``cold``, after 64 MB were written elsewhere, as a denoiser does between two updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import diffusers
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ..kernels.slots import Route, denoise_slots, empty_slots
from ..kernels.table_rows import HISTORY, Column, table_rows
from ..runtime.samplers import build_table, model_schedule_from_config, sampler_names
from ..runtime.samplers.registry import BY_NAME
from .machine import machine
from .statistics import Estimate, median, paired_ratio

Array = NDArray[np.float32]

#: Inference steps of the tables that are built, and of the runs that are updated.
BUILT_STEPS, RUN_STEPS = 50, 20

#: ``[images, C, h, w]``: eight pictures of 1024x1024 pixels.
STATE = (8, 4, 128, 128)

GUIDANCE_SCALE = 5.0

#: One checkpoint of each kind of model that samplers are made for.
CONFIGS: dict[str, dict[str, object]] = {
    "trained": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "edm": {"_class_name": "EDMEulerScheduler"},
    "angular": {"_class_name": "IPNDMScheduler"},
}

#: Samplers whose update is measured: first order, two to four stored outputs, a corrector. All of them without noise,
#: which diffusers would draw inside its step.
UPDATED = ("euler", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "lms")


class Building(msgspec.Struct, frozen=True):
    """Seconds to build a table of ``BUILT_STEPS`` steps (median, and the slowest), and to get it from the cache."""

    built: Estimate
    slowest: float
    cached: Estimate


class Updating(msgspec.Struct, frozen=True):
    """Seconds of one update, of the copy and of diffusers (medians), and the ratios of neighbouring runs."""

    update: Estimate
    copy: Estimate
    diffusers: Estimate
    update_to_copy: Estimate
    diffusers_to_update: Estimate


class Updates(msgspec.Struct, frozen=True):
    """One sampler's update, and the bytes that it must touch."""

    bytes_touched: int
    warm: Updating
    cold: Updating


class SamplerCosts(msgspec.Struct, frozen=True):
    """The result: what was measured, by sampler, and on what."""

    machine: dict[str, str]
    versions: dict[str, str]
    runs: int
    built_steps: int
    state: tuple[int, ...]
    tables: dict[str, Building]
    updates: dict[str, Updates]


def measure_samplers(runs: int = 15, progress: Callable[[str], None] = lambda text: None) -> SamplerCosts:
    """Measure the tables of all samplers and the updates of some."""
    torch.set_num_threads(1)
    tables = {}
    for name in sampler_names():
        progress(f"building {name}")
        tables[name] = building(name, runs)
    updates = {}
    for name in UPDATED:
        progress(f"updating with {name}")
        updates[name] = updating(name, runs)
    versions = {"numpy": np.__version__, "torch": str(torch.__version__), "diffusers": diffusers.__version__}
    return SamplerCosts(machine(), versions, runs, BUILT_STEPS, STATE, tables, updates)


def building(name: str, runs: int) -> Building:
    """Build tables that differ in their guidance, so that none of them is in the cache; then get one again."""
    model = model_schedule_from_config(CONFIGS[BY_NAME[name].kinds[0]])
    build_table(name, None, BUILT_STEPS, model)  # reads the checkpoint's betas, once per checkpoint
    build = partial(build_table, name, None, BUILT_STEPS, model)
    built = [seconds(partial(build, guidance_scale=2.0 + i)) for i in range(runs)]
    cached = [seconds(build) for _ in range(10 * runs)]
    return Building(median(built), max(built), median(cached))


def updating(name: str, runs: int) -> Updates:
    """One update in the middle of a guided run, the copy and diffusers in turn."""
    model = model_schedule_from_config(CONFIGS["trained"])
    table = build_table(name, None, RUN_STEPS, model, guidance_scale=GUIDANCE_SCALE)
    rows, position = table_rows(table), 1 + RUN_STEPS // 2  # the first row makes the input of the first evaluation
    source = np.random.default_rng(0)
    noise, outputs = normal(source, *STATE), normal(source, 2 * STATE[0], *STATE[1:])
    images, area = STATE[0], STATE[2] * STATE[3]
    slots = empty_slots(images, STATE[1] * area, area, rows)
    slots.history[...] = noise.reshape(images, 1, -1)
    model_input, timesteps = np.empty((2 * images, STATE[1] * area), np.float32), np.empty(2 * images, np.float32)
    touched = registers_touched(rows[position])
    # A copy reads one half of the bytes and writes the other: of an odd number, the last array is copied by half.
    sizes = [noise.size] * (touched // 2) + [noise.size // 2] * (touched % 2)
    copies = [(np.empty(size, np.float32), np.ones(size, np.float32)) for size in sizes]
    steps = diffusers_updates(name, torch.from_numpy(noise), torch.from_numpy(outputs))
    routes, flat_outputs = routes_of(images), outputs.reshape(2 * images, -1)
    scratch = np.empty((2, slots.state.shape[1]), np.float32)

    def update() -> None:
        slots.position[...] = position
        denoise_slots(slots, routes, flat_outputs, model_input, timesteps, scratch)

    def copy() -> None:
        for copied, original in copies:
            np.copyto(copied, original)

    def reference() -> None:
        next(steps)()

    elsewhere = np.zeros(1 << 24, np.float32)
    times: dict[str, list[tuple[float, float, float]]] = {"warm": [], "cold": []}
    for _ in range(runs):
        for state in times:
            row = []
            for work in (update, copy, reference):
                np.copyto(slots.state, noise.reshape(images, -1))
                if state == "warm":
                    work()
                else:
                    np.add(elsewhere, 1, out=elsewhere)
                row.append(seconds(work))
            times[state].append((row[0], row[1], row[2]))
    return Updates(touched * noise.nbytes, summary(times["warm"]), summary(times["cold"]))


def summary(times: Sequence[tuple[float, float, float]]) -> Updating:
    """Update, copy and diffusers over all runs."""
    updates, copies, references = zip(*times, strict=True)
    return Updating(
        median(updates),
        median(copies),
        median(references),
        update_to_copy=paired_ratio(copies, updates),
        diffusers_to_update=paired_ratio(updates, references),
    )


def routes_of(images: int) -> NDArray[np.int32]:
    """Each image in a slot of its own: the conditional rows of all, then the unconditional ones."""
    routes = np.zeros((images, len(Route)), np.int32)
    rows = np.arange(images)
    routes[:, Route.SLOT] = routes[:, Route.CONDITIONAL_OUTPUT] = routes[:, Route.CONDITIONAL_INPUT] = rows
    routes[:, Route.UNCONDITIONAL_OUTPUT] = routes[:, Route.UNCONDITIONAL_INPUT] = images + rows
    return routes


def registers_touched(row: Array) -> int:
    """How many arrays of the state's size a guided update without noise reads or writes, each counted once; ``row`` is
    one of ``table_rows``.

    Read: both outputs, the state, the older stored outputs that have a weight. Written: the state, both rows of the
    next input, the new stored output if a later update reads it.
    """
    older = row[Column.HISTORY_WEIGHTS + 1 : Column.HISTORY_WEIGHTS + HISTORY]
    read = 3 + int(np.count_nonzero(older))
    written = 3 + int(row[Column.KEEPS_STORED])
    return read + written


def diffusers_updates(name: str, x: torch.Tensor, outputs: torch.Tensor) -> Iterator[Callable[[], object]]:
    """diffusers' guidance and step, one call after another from the middle of a run, begun again where it ends.

    Less than our update does: the input of the next evaluation is left out.
    """
    sampler = BY_NAME[name]
    scheduler_class = getattr(diffusers, sampler.diffusers_class)
    fields = {key: value for key, value in CONFIGS["trained"].items() if key != "_class_name"}
    while True:
        scheduler = scheduler_class.from_config({**fields, **dict(sampler.fixed)})
        scheduler.set_timesteps(RUN_STEPS)
        scheduler.set_begin_index(0)
        for i, timestep in enumerate(scheduler.timesteps[:-2]):

            def update(scheduler: Any = scheduler, timestep: torch.Tensor = timestep) -> object:
                unconditional, conditional = outputs.chunk(2)
                guided = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
                return scheduler.step(guided, timestep, x, return_dict=False)

            scheduler.scale_model_input(x, timestep)
            if i < 5:
                update()
            else:
                yield update


def normal(source: np.random.Generator, *shape: int) -> Array:
    """Standard normal values."""
    return source.standard_normal(shape, dtype=np.float32)


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
