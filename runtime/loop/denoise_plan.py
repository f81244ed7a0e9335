"""Everything on the device that a run of one size needs: slots, the denoiser's rows, and its steps.

Rows of the denoiser are laid out in groups of one row per image: the conditional rows, then the unconditional ones,
then the third ones where there are any. An evaluation runs as many groups from the first one on as it needs, so all of
them share these buffers, and a slot's rows are the same in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kernels.slots import ROW_KINDS, Route, Slots, slot_tensors
from ...kernels.table_rows import DRAWS, NextRows
from ..bundles.manifest import Component
from ..bundles.spec import axis_and_factor, resolve_shape
from ..device.interface import Buffer, DeviceEngine, Event, Launch
from ..device.memory import Memory
from ..device.runner import DeviceRunner
from ..device.steps import Step, parts_of
from ..noise.philox import philox_launch, seed_words
from ..timing import Timings
from .guidance import RowGroup

Array = NDArray[np.float32]

#: Rows of a table that plans have room for; longer tables get a plan of the next power of two.
TABLE_ROWS = 256


@dataclass(frozen=True)
class PlanSize:
    """What makes two runs take the same plan. ``height`` and ``width`` are those of the latents."""

    images: int
    groups: tuple[NextRows, ...]
    height: int
    width: int
    tokens: int
    table_rows: int = TABLE_ROWS

    def __str__(self) -> str:
        rows = len(self.groups) * self.images
        return f"latents of {self.width}x{self.height}, {rows} rows for {self.images} at a time"


class DenoisePlan:
    """The buffers of a run and its steps. What changes from run to run is uploaded; addresses never change."""

    def __init__(self, runner: DeviceRunner, engine: DeviceEngine, contract: Component, size: PlanSize):
        self.size = size
        self._runner = runner
        self._engine = engine
        self._contract = contract
        self._device, self._stream = runner.device, runner.device.stream
        self._memory = Memory(self._device)
        self._steps: dict[int, Step] = {}
        specs = {spec.name: spec for spec in (*contract.inputs, *contract.outputs)}
        rows_axis = axis_and_factor(str(specs["sample"].shape[0]))[0]
        rows = size.images * len(size.groups)
        axes = {rows_axis: rows, "height": size.height, "width": size.width, "tokens": size.tokens}
        self._limit = contract.profile[rows_axis].max
        with self._memory.filled():
            sizes = {name: (resolve_shape(spec, axes), spec.dtype) for name, spec in specs.items()}
            made = {name: self._memory.buffer(*sizes[name]) for name in ("sample", "timestep")}
            self._model_output = self._memory.staged(*sizes["model_output"])
            self._conditioning = {
                spec.name: self._memory.staged(*sizes[spec.name]) for spec in contract.inputs if spec.name not in made
            }
            self._inputs = made | {name: staged.buffer for name, staged in self._conditioning.items()}
            self._make_slots(sizes["model_output"][0][1])
            self._bind_kernels(specs["sample"].dtype)
            for tensor in self._inputs.values():  # rows that nothing is written to are read all the same
                self._stream.fill_zero(tensor)

    def __str__(self) -> str:
        return f"the plan for {self.size}"

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes + sum(step.nbytes for step in self._steps.values())

    def begin(
        self,
        table: NDArray[np.float32],
        state: Array,
        groups: Sequence[RowGroup],
        kept: tuple[Array, Array, Array] | None,
        extra_channels: Array | None,
        seeds: Sequence[int] = (),
    ) -> None:
        """Start a run, after which the first evaluation's input is there.

        Args:
            table: rows of ``kernels.table_rows``, one run's.
            state: the first state ``[images, C, h, w]``.
            groups: the rows of the denoiser.
            kept: of a masked run: latents and noise ``[images, C, h, w]``, mask ``[images, 1, h, w]``.
            extra_channels: ``[images, E, h, w]``, behind the latents in every row that sees the picture.
            seeds: of the images, where the table has draws that the device makes.
        """
        stream = self._stream
        self._table.upload(table, slice(0, len(table)))
        self._state.upload(state)
        self._position.upload(0)
        stream.fill_zero(self._slots.arrived)
        if kept is not None:
            latents, noise, mask = kept
            self._kept.upload(np.stack([latents, noise], axis=1))  # [images, 2, C, h, w]
            self._mask.upload(mask)
        for group in groups:
            first = self.size.groups.index(group.rows) * self.size.images
            own = slice(first, first + self.size.images)
            for name, values in group.conditioning.items():
                self._conditioning[name].upload(values, own)
            if "skip_layers" in self._conditioning:
                self._conditioning["skip_layers"].upload(group.skips_layers, own)
            if self._pack is not None:
                self._sources.array[own] = np.arange(self.size.images) if group.sees_picture else -1
        if self._pack is not None:
            assert extra_channels is not None
            self._extra.upload(extra_channels)
            self._sources.upload(self._sources.array)
            stream.launch(self._pack)
        if seeds:
            self._seeds.upload(seed_words(seeds))
        for launch in self._update:
            stream.launch(launch)

    def draw(self, number: int, values: Sequence[Array]) -> None:
        """Bring the images' draws of that number to where the next step looks for them."""
        ring = number % DRAWS
        self._drawn[ring].synchronize()
        for i, value in enumerate(values):
            row = DRAWS * i + ring
            self._noise.upload(value, slice(row, row + 1))
        self._stream.record(self._drawn[ring])

    def mark(self, step: int, timings: Timings) -> Callable[[], None]:
        """What waits until the device has done all that it was given so far; good for this step and the next."""
        event = self._done[step % len(self._done)]
        self._stream.record(event)

        def wait() -> None:
            with timings.engine():
                event.synchronize()

        return wait

    def step(self, groups: int) -> Step:
        """One evaluation of the first ``groups`` rows of every image, and the update after it."""
        if groups not in self._steps:
            rows = groups * self.size.images
            inputs = {name: buffer[0:rows] for name, buffer in self._inputs.items()}
            outputs = {"model_output": self._model_output.buffer[0:rows]}
            parts = self._runner.with_room(lambda: parts_of(self._engine, inputs, outputs, self._limit, self._memory))
            rescaling = [self._statistics] if groups > 1 else []  # without guidance nothing is rescaled
            self._steps[groups] = Step(self._runner, f"a step of {self.size}", parts, [*rescaling, *self._update])
        return self._steps[groups]

    def replace(self, state: Array, row: NDArray[np.float32], position: int) -> None:
        """Go on from another state: ``row`` makes its input, ``position`` is the row of the next step."""
        self._stream.synchronize()  # what is staged may still be on its way
        last = self.size.table_rows - 1
        self._state.upload(state)
        self._table.upload(row, slice(last, last + 1))
        self._stream.upload(self._slots.position, self._at_last_row)
        self._stream.launch(self._update[0])  # the draw of the next step is there
        self._position.upload(position)

    def latents(self, timings: Timings) -> Array:
        """The state now, a new array ``[images, C, h, w]``."""
        state = self._state.download()
        with timings.engine():
            self._stream.synchronize()
        return state.reshape(self.size.images, -1, self.size.height, self.size.width).copy()

    def model_output(self, groups: int, timings: Timings) -> Array:
        """What the denoiser gave last for the first groups: ``[groups, images, C, h, w]``."""
        output = self._model_output.download(slice(0, groups * self.size.images))
        with timings.engine():
            self._stream.synchronize()
        return output.reshape(groups, self.size.images, *output.shape[1:]).astype(np.float32)

    def warm(self) -> None:
        """Record every step, by runs that change nothing."""
        self._table.upload(0, slice(0, 1))  # a row of a run that is over
        self._stream.upload(self._slots.draws, self._no_draws)
        self._position.upload(0)
        for groups in range(1, len(self.size.groups) + 1):
            self.step(groups).warm()
        self._stream.synchronize()

    def close(self) -> None:
        """Free the buffers, graphs and executions."""
        with ExitStack() as closing:  # what comes after one that fails is closed all the same
            closing.callback(self._memory.close)
            for step in self._steps.values():
                closing.callback(step.close)

    def _make_slots(self, channels: int) -> None:
        size, memory = self.size, self._memory
        images, area = size.images, size.height * size.width
        elements = channels * area
        tensors = slot_tensors(images, elements, area, size.table_rows)
        self._state, self._kept, self._mask, self._table, self._position = (
            memory.staged(*tensors.pop(name)) for name in ("state", "kept", "mask", "table", "position")
        )
        noise_shape, noise_dtype = tensors.pop("noise")
        self._noise = memory.staged((images * DRAWS, elements), noise_dtype)
        self._slots: Slots[Buffer] = Slots(
            state=self._state.buffer,
            noise=self._noise.buffer.view(noise_shape),
            kept=self._kept.buffer,
            mask=self._mask.buffer,
            table=self._table.buffer,
            position=self._position.buffer,
            **{name: memory.buffer(*tensor) for name, tensor in tensors.items()},
        )
        self._seeds = memory.staged((images,), np.int64)
        self._at_last_row = memory.staging((images,), np.int32)
        self._at_last_row[...] = size.table_rows - 1
        self._no_draws = memory.staging((images,), np.int32)
        self._no_draws[...] = -1
        self._drawn: list[Event] = [self._device.event() for _ in range(DRAWS)]
        self._done: list[Event] = [self._device.event() for _ in range(2)]

    def _bind_kernels(self, dtype: str) -> None:
        """``guidance_statistics``; the update, ``denoise_step`` and the noise it asks for; ``pack_rows`` if needed."""
        images, elements = self._slots.state.shape
        sample = self._inputs["sample"]
        rows, stride = sample.shape[0], int(np.prod(sample.shape[1:]))
        model_input = sample.view((rows, stride))
        routes = self._memory.buffer((images, len(Route)), np.int32)
        self._stream.upload(routes, self._routes())
        of_statistics: dict[str, Buffer | int] = {
            "table": self._slots.table,
            "position": self._slots.position,
            "statistics": self._slots.statistics,
            "routes": routes,
            "outputs": self._model_output.buffer.view((rows, elements)),
            "elements": elements,
        }
        of_step = {
            **vars(self._slots),
            **of_statistics,
            "model_input": model_input,
            "timesteps": self._inputs["timestep"],
            "area": self._slots.mask.shape[1],
            "input_stride": stride,
        }
        self._pack: Launch | None = None
        if stride > elements:
            self._extra = self._memory.staged((images, stride - elements), np.float32)
            self._sources = self._memory.staged((rows,), np.int32)
            self._sources.array[...] = -1
            of_pack: dict[str, Buffer | int] = {
                "extra": self._extra.buffer,
                "sources": self._sources.buffer,
                "model_input": model_input,
                "first": elements,
                "elements": stride - elements,
                "input_stride": stride,
            }
            self._pack = self._device.bind("pack_rows", of_pack, elements=stride - elements, outer=rows, dtype=dtype)
        self._statistics, step = (
            self._device.bind(name, arguments, elements=elements, outer=images, dtype=dtype)
            for name, arguments in (("guidance_statistics", of_statistics), ("denoise_step", of_step))
        )
        self._update = [step, philox_launch(self._device, self._slots.noise, self._seeds.buffer, self._slots.draws)]

    def _routes(self) -> NDArray[np.int32]:
        """``[images, len(Route)]``: the rows of every slot; 0 for groups that no table here gives a weight."""
        routes = np.zeros((self.size.images, len(Route)), np.int32)
        images = np.arange(self.size.images)
        routes[:, Route.SLOT] = images
        for kind in ROW_KINDS:
            if kind.rows in self.size.groups:
                rows = self.size.groups.index(kind.rows) * self.size.images + images
                routes[:, kind.output] = routes[:, kind.input] = rows
        return routes
