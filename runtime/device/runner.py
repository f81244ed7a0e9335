"""A device at work: whose turn it is, the memory that runs share, and what is kept for the next one."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, DeviceMemoryError, EngineError
from ..owner import Owner
from .interface import Buffer, Device, DeviceEngine
from .memory import gigabytes
from .turns import Turns

logger = logging.getLogger(__name__)

#: The share of a device's memory that plans may keep: buffers and recorded graphs, not weights.
PLANS_SHARE = 1 / 8


class Plan(Protocol):
    """Buffers and graphs for runs of one size."""

    @property
    def nbytes(self) -> int: ...
    def close(self) -> None: ...


#: What a plan is of, an engine or the name of a kernel, and what makes it differ from other plans of that.
PlanKey = tuple[object, ...]
AnyPlan = TypeVar("AnyPlan", bound=Plan)
T = TypeVar("T")


class DeviceRunner(Owner):
    """Owns a device and everything on it; engines' weights belong to ``Engines``.

    Calls from many threads take turns, in the order in which they come. The turn also covers the one workspace that all
    executions compute in. Plans are kept, the least recently used of them dropped when they hold more than ``limit``
    bytes or when memory is short; when it still is, so is the workspace. ``dropped`` counts both.
    """

    def __init__(self, device: Device, limit: int | None = None):
        self.device = device
        self.capture_refused = False  # at least once
        self.dropped = 0
        self._limit = int(device.memory()[1] * PLANS_SHARE) if limit is None else limit
        self._turns = Turns()
        self._plans: OrderedDict[tuple[PlanKey, int], Plan] = OrderedDict()
        self._in_use: Counter[tuple[PlanKey, int]] = Counter()
        self._workspace: Buffer | None = None
        self._engines: list[Callable[[], None]] = []
        self._failure: DeviceError | None = None
        self._closed = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The device for the calling thread alone, once those that came before have finished.

        Raises:
            EngineError: the device failed in an earlier turn, or the runner is closed.
        """
        with self._turns.turn():
            if self._failure is not None:
                subject = f"the pipeline is broken since an earlier call: {self._failure.subject}"
                raise EngineError(subject, remedy="load the bundle again, in a new process")
            if self._closed:
                raise EngineError(f"{self.device.name}: the pipeline is closed", remedy="load the bundle again")
            try:
                with self.device.active():
                    yield
            except DeviceError as error:
                self._failure = error
                raise

    def fetch(self, name: str, tensor: Any) -> NDArray[Any]:
        """Another library's tensor on the device as an array of the host; ``name`` is what a caller knows it by.

        Raises:
            RequestError: it is on another device, not contiguous, or of a dtype that numpy does not have.
        """
        with self.turn():
            buffer = self.device.from_dlpack(tensor, name)
            array = np.empty(buffer.shape, buffer.dtype)
            self.device.stream.download(buffer, array)
            self.device.stream.synchronize()
        return array

    def send(self, array: NDArray[Any]) -> Buffer:
        """An array of the host in memory of the device, which belongs to whoever asked.

        Raises:
            DeviceMemoryError: not enough memory, even without plans.
        """
        with self.turn():
            buffer = self.with_room(lambda: self.device.allocate(array.shape, array.dtype))
            self.device.stream.upload(buffer, np.ascontiguousarray(array))
            self.device.stream.synchronize()
        return buffer

    @contextmanager
    def plan(self, key: PlanKey, make: Callable[[], AnyPlan]) -> Iterator[AnyPlan]:
        """The plan of that key for one run; made where there is none. Inside of a turn.

        A call from within another one's step may need the plan that the other is using: then it gets a second one.

        Raises:
            DeviceMemoryError: not enough memory, even without the other plans.
        """
        number = 0
        while self._in_use[key, number]:
            number += 1
        full = (key, number)
        if full not in self._plans:
            self._plans[full] = self.with_room(make)
        self._plans.move_to_end(full)
        self._in_use[full] += 1
        try:
            self._drop_down_to(self._limit)
            yield self._plans[full]  # type: ignore[misc]  # made by the same function
        finally:
            self._in_use[full] -= 1

    def workspace(self, nbytes: int) -> Buffer | None:
        """The memory that executions compute in, of at least that size, or None for none; it moves when it has to grow.

        Raises:
            DeviceMemoryError: it cannot grow that far.
        """
        if nbytes == 0:
            return None
        if self._workspace is not None and self._workspace.nbytes >= nbytes:
            return self._workspace
        if self._workspace is not None:
            self.device.stream.synchronize()
            self._workspace.close()
            self._workspace = None
        self._workspace = self.with_room(lambda: self.device.allocate((nbytes,), "uint8"))
        return self._workspace

    def release(self, engine: DeviceEngine) -> None:
        """Drop the plans of an engine, before it is closed."""
        with self.turn():
            self.device.stream.synchronize()
            for key in [key for key in self._plans if key[0][0] is engine]:
                del self._in_use[key]
                self._plans.pop(key).close()

    def before_close(self, close_engines: Callable[[], None]) -> None:
        """Engines on the device, which ``close`` closes when nothing runs them any more, and before the device."""
        self._engines.append(close_engines)

    def close(self) -> None:
        """Free everything, once the turns that have been asked for are over.

        Raises:
            EngineError: the calling thread is in the middle of a run.
        """
        with self._turns.turn():
            if self._closed:
                return
            if any(self._in_use.values()):
                subject = f"{self.device.name}: the pipeline cannot be closed in the middle of a call"
                raise EngineError(subject, remedy="return False from the callback, and close it after the call")
            self._closed = True
            buffers = () if self._workspace is None else (self._workspace.close,)
            with contextlib.ExitStack() as closing:  # what comes after one that fails is closed all the same
                for close in (
                    self.device.close,
                    *self._engines,
                    *buffers,
                    *(plan.close for plan in self._plans.values()),
                ):
                    closing.callback(self._free, close)
            self._plans.clear()

    def with_room(self, maker: Callable[[], T]) -> T:
        """What ``maker`` makes of memory, for which plans and then the workspace are dropped until there is enough.

        Raises:
            DeviceMemoryError: there is not, with nothing left to drop.
        """
        while True:
            try:
                return maker()
            except DeviceMemoryError:
                if not self._drop_one() and not self._drop_workspace():
                    raise

    def _drop_down_to(self, limit: int) -> None:
        while sum(plan.nbytes for plan in self._plans.values()) > limit and self._drop_one():
            pass

    def _drop_one(self) -> bool:
        """Drop the plan that was used least recently; False if all are in use."""
        for key, plan in self._plans.items():
            if not self._in_use[key]:
                logger.info("dropped %s, %s", plan, gigabytes(plan.nbytes))
                del self._plans[key]
                del self._in_use[key]
                self.dropped += 1
                self.device.stream.synchronize()
                plan.close()
                return True
        return False

    def _drop_workspace(self) -> bool:
        """Free the workspace; False if there is none, or plans in use may compute in it."""
        if self._workspace is None or any(self._in_use.values()):
            return False
        logger.info("dropped the workspace, %s", gigabytes(self._workspace.nbytes))
        self.dropped += 1
        self.device.stream.synchronize()
        self._workspace.close()
        self._workspace = None
        return True

    def _free(self, close: Callable[[], None]) -> None:
        freed = contextlib.nullcontext() if self._failure is None else contextlib.suppress(DeviceError)
        with freed, self.device.active():  # a failed device refuses to free what is lost anyway
            close()
