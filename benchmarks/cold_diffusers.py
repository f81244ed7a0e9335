"""From a process's start to a PNG on disk with diffusers: the reference for the cold start of ``latentrt generate``.

``python -P -m latentrt.benchmarks.cold_diffusers CHECKPOINT WORKLOAD OUT.png``
"""

from __future__ import annotations

import sys

import msgspec

from .worker import diffusers_side
from .workload import Workload


def main() -> None:
    """Load, draw once, write the file."""
    checkpoint, encoded, out = sys.argv[1:]
    draw, _ = diffusers_side(checkpoint, msgspec.json.decode(encoded, type=Workload))
    draw()[0].save(out)


if __name__ == "__main__":
    main()
