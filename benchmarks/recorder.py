"""What has been measured so far, kept whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from .results import Failure, Record

#: Seconds between two copies on disk. A crash loses at most so much; writing after every call would disturb the next.
_PERIOD = 5.0


class Recorder:
    """Records as they come. ``seen`` is shown each; ``keep`` is given all of them and what is going on, at the
    beginning of everything that is measured and every few seconds in between."""

    def __init__(
        self,
        seen: Callable[[Record], None] = lambda record: None,
        keep: Callable[[list[Record], str], None] = lambda records, during: None,
    ) -> None:
        self.records: list[Record] = []
        self.during = "starting"
        self._seen = seen
        self._keep = keep
        self._kept = 0.0

    @property
    def failures(self) -> list[Failure]:
        """What could not be measured."""
        return [record for record in self.records if isinstance(record, Failure)]

    def extend(self, during: str, records: Iterable[Record]) -> None:
        """Measure something. What breaks it is recorded, and does not keep others from being measured."""
        self.during = during
        self._save()
        try:
            for record in records:
                self._add(record)
        except Exception as error:
            self._add(Failure("", during, f"{type(error).__name__}: {error}"))

    def _add(self, record: Record) -> None:
        self.records.append(record)
        self._seen(record)
        if time.monotonic() > self._kept + _PERIOD:
            self._save()

    def _save(self) -> None:
        self._keep(self.records, self.during)
        self._kept = time.monotonic()
