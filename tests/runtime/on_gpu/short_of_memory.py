"""What a pipeline does on a GPU whose memory somebody else has taken.

``python short_of_memory.py BUNDLE PROVIDER`` prints a line of JSON with what came of each thing that was tried: a
process of its own, since a library that does not survive it would take the others' tests with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from latentrt.runtime import Pipeline, load
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.device.interface import Device
from latentrt.runtime.errors import DeviceMemoryError
from latentrt.runtime.providers import import_provider

#: Pixels of a side, and how many pictures: the second call needs some thirty times the memory of the first.
SMALL, LARGE = (64, 1), (192, 8)

#: What the driver gives out at once.
_LEAST = 2 << 20


@contextmanager
def nothing_left(device: Device) -> Iterator[None]:
    """All memory that there is, in pieces: the largest first."""
    taken, size = [], device.memory()[0]
    while size >= _LEAST:
        try:
            with device.active():
                taken.append(device.allocate((size,), np.uint8))
        except DeviceMemoryError:
            size //= 2
    try:
        yield
    finally:
        with device.active():
            for buffer in taken:
                buffer.close()


def draw(pipe: Pipeline, call: tuple[int, int]) -> Any:
    """Latents of a call of that size."""
    side, images = call
    arguments: dict[str, Any] = {"seed": 3, "num_inference_steps": 3, "output_type": "latent"}
    return pipe("a rocket", width=side, height=side, num_images_per_prompt=images, **arguments).images


def tried(work: Callable[[], Any]) -> tuple[Any, str]:
    """What it gave, and the name and the text of the error if it raised one."""
    try:
        return work(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def main() -> None:
    """Load and draw with all memory taken, and again with all of it there."""
    path, provider = sys.argv[1:]
    told: dict[str, Any] = {}
    other = import_provider(provider).open_device(open_bundle(path, verify=False))

    with nothing_left(other):
        loaded, told["loading without memory"] = tried(lambda: load(path, provider=provider, verify=False))
        if loaded is not None:
            loaded.close()
    with load(path, provider=provider, verify=False) as pipe:
        expected = draw(pipe, SMALL)
        with nothing_left(other):
            _, told["a large call without memory"] = tried(lambda: draw(pipe, LARGE))
            small, told["a small call after it"] = tried(lambda: draw(pipe, SMALL))
        told["the small call gives the same"] = small is not None and bool(np.array_equal(small, expected))
        large, told["a large call with memory"] = tried(lambda: draw(pipe, LARGE))
        told["the large call is finite"] = large is not None and bool(np.isfinite(large).all())
        again, told["a small call at the end"] = tried(lambda: draw(pipe, SMALL))
        told["the last call gives the same"] = again is not None and bool(np.array_equal(again, expected))
    other.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
