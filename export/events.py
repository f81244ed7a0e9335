"""Progress of a build, as events that whoever asked for it may show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Reasons: what was taken over from the previous bundle as it was, and what was built although no part of its key
#: changed. All others name the parts of the key that did.
REUSED = "reused"
NEW = "new"
FORCED = "forced"
DAMAGED = "its files were damaged"


@dataclass(frozen=True)
class BuildEvent:
    """A component enters a stage (``check``, ``export``, ``compile``, ``gate``) or is done, with the seconds it took.

    ``detail`` is what a stage is doing and ``fraction`` how much of that is done, where the library at work tells.
    A component that is done has the ``reason`` why it was built, or that it was reused, and what the builder of its
    engine said of itself: the peak of its memory in bytes, and its warnings. The stage ``drop`` says in ``detail``
    what the previous bundle held of a component that this one does not, and why; of no component, why all is dropped.

    Of no component there are three stages: ``wait`` says that another build of the same bundle has to end first,
    ``profiles`` (in ``detail``) for which sizes it builds, and ``check`` is about the build as a whole.
    """

    component: str
    stage: str
    seconds: float = 0.0
    reason: str = ""
    detail: str = ""
    fraction: float | None = None
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()


Report = Callable[[BuildEvent], None]
