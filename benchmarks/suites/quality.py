"""``quality``: every side beside the reference, from identical initial latents; and, for a checkpoint that comes with a
judge, how many pictures show what their prompts say.
"""

from __future__ import annotations

import base64
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from ...runtime.errors import RequestError, RunError
from ..baselines import REFERENCE
from ..compare_pictures import Latents, Pixels, cosine_distance, lpips, psnr, ssim
from ..plan import Plan
from ..results import Difference, Failure, Picture, Recognition
from ..turns import Worker, alive, failure
from ..workload import Ask, Workload

#: Pixels of a side of the pictures that results keep: of whole ones in full size they would be tens of megabytes.
KEPT_SIDE = 256


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Difference | Picture | Failure]:
    """Each prompt at the headline's size, the first of them at every other size too."""
    replace = msgspec.structs.replace
    calls = [replace(plan.workload, prompt=prompt) for prompt in plan.prompts]
    calls += [
        replace(plan.workload, width=width, height=height)
        for width, height in plan.sizes
        if (width, height) != (plan.workload.width, plan.workload.height)
    ]
    for work in calls:
        yield from _beside_reference(plan, workers, work)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return (len(plan.prompts) + max(0, len(plan.sizes) - 1)) * len(plan.sides)


def _beside_reference(
    plan: Plan, workers: Sequence[Worker], work: Workload
) -> Iterator[Difference | Picture | Failure]:
    drawn: dict[str, list[tuple[Latents, Pixels]]] = {}
    for worker in alive(workers):
        plan.progress(f"{worker.side.name}: {work.prompt}, {work.width}x{work.height}")
        try:
            latents = worker.draw(Ask(work, noise="numpy", give="latents")).latents
            pictures = worker.draw(Ask(work, noise="numpy", give="pictures")).pictures
        except RunError as error:
            yield failure(worker, f"{work.prompt}, {work.label}", error)
            continue
        for i, png in enumerate(pictures):
            yield Picture(worker.side.name, work.label, work.prompt, middle(png), i)
        array = np.load(io.BytesIO(base64.b64decode(latents)))
        drawn[worker.side.name] = [(one, pixels_from_png(png)) for one, png in zip(array, pictures, strict=True)]
    if REFERENCE not in drawn:
        return
    for name, of_side in drawn.items():
        if name != REFERENCE:
            for i, (ours, theirs) in enumerate(zip(of_side, drawn[REFERENCE], strict=True)):
                yield _difference(name, work, i, *ours, *theirs)


def _difference(
    side: str, work: Workload, image: int, latents: Latents, pixels: Pixels, expected: Latents, picture: Pixels
) -> Difference:
    return Difference(
        side=side,
        case=work.label,
        prompt=work.prompt,
        latents_max_abs=float(np.abs(latents - expected).max()),
        latents_cosine_distance=cosine_distance(latents, expected),
        pixels_max=int(np.abs(pixels.astype(np.int16) - picture.astype(np.int16)).max()),
        psnr=psnr(pixels, picture),
        ssim=ssim(pixels, picture),
        lpips=lpips(pixels, picture),
        image=image,
    )


def recognition(plan: Plan, workers: Sequence[Worker]) -> Iterator[Recognition | Failure]:
    """All names that the judge knows, each on one of its colours, judged by it."""
    judge, words = _judge(plan)
    palette = list(words.COLORS)
    colors = [palette[(7 * i) % len(palette)] for i in range(len(words.NAMES))]  # 7: all colours, neighbours differ
    for worker in alive(workers):
        pictures = []
        try:
            for i, (name, color) in enumerate(zip(words.NAMES, colors, strict=True)):
                plan.progress(f"{worker.side.name}: {name}")
                work = msgspec.structs.replace(plan.workload, prompt=words.prompt(name, color), seed=i, images=1)
                (png,) = worker.draw(Ask(work, give="pictures")).pictures
                pictures.append(pixels_from_png(png))
        except RunError as error:
            yield failure(worker, "recognition", error)
        else:
            found = judge.measure(pictures, words.NAMES, colors)
            shares = (found["top1"], found["top5"], found["background_accuracy"])
            yield Recognition(worker.side.name, found["prompts"], *shares)


def amount_of_recognition(plan: Plan) -> int:
    """How often ``recognition`` reports progress."""
    _, words = _judge(plan)
    return len(plan.sides) * len(words.NAMES)


def _judge(plan: Plan) -> tuple[Any, Any]:
    """The judge's modules ``retrieval`` (what a picture shows) and ``vocabulary`` (what there is).

    Raises:
        RequestError: it lacks them.
    """
    assert plan.judge is not None  # prepare has checked
    sys.path.insert(0, str(plan.judge))
    try:
        return importlib.import_module("retrieval"), importlib.import_module("vocabulary")
    except ModuleNotFoundError as error:
        raise RequestError("--judge", received=f"{plan.judge}: {error}") from None
    finally:
        sys.path.remove(str(plan.judge))


def middle(png: str) -> str:
    """A base64 PNG, or the middle of it where it is larger than what results keep."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        width, height = (min(side, KEPT_SIDE) for side in picture.size)
        if (width, height) == picture.size:
            return png
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        buffer = io.BytesIO()
        picture.crop((left, top, left + width, top + height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pixels_from_png(png: str) -> Pixels:
    """``[H, W, 3]`` of a base64 PNG."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
