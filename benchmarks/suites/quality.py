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
from ..results import Absent, Difference, Picture, Recognition
from ..turns import Worker, alive, failure
from ..workload import Ask, Workload


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Difference | Picture | Absent]:
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


def _beside_reference(plan: Plan, workers: Sequence[Worker], work: Workload) -> Iterator[Difference | Picture | Absent]:
    drawn: dict[str, tuple[Latents, Pixels]] = {}
    for worker in alive(workers):
        plan.progress(f"{worker.side.name}: {work.prompt}, {work.width}x{work.height}")
        try:
            latents = worker.draw(Ask(work, noise="numpy", give="latents")).latents
            (png,) = worker.draw(Ask(work, noise="numpy", give="pictures")).pictures
        except RunError as error:
            yield failure(worker, error)
            continue
        yield Picture(worker.side.name, work.label, work.prompt, png)
        drawn[worker.side.name] = (np.load(io.BytesIO(base64.b64decode(latents))), pixels_from_png(png))
    if REFERENCE not in drawn:
        return
    expected, picture = drawn[REFERENCE]
    for name, (latents_drawn, pixels) in drawn.items():
        if name != REFERENCE:
            yield Difference(
                side=name,
                case=work.label,
                prompt=work.prompt,
                latents_max_abs=float(np.abs(latents_drawn - expected).max()),
                latents_cosine_distance=cosine_distance(latents_drawn, expected),
                pixels_max=int(np.abs(pixels.astype(np.int16) - picture.astype(np.int16)).max()),
                psnr=psnr(pixels, picture),
                ssim=ssim(pixels, picture),
                lpips=lpips(pixels, picture),
            )


def recognition(plan: Plan, workers: Sequence[Worker]) -> Iterator[Recognition | Absent]:
    """All names that the judge knows, each on one of its colours, judged by it."""
    judge, words = _judge(plan)
    palette = list(words.COLORS)
    colors = [palette[(7 * i) % len(palette)] for i in range(len(words.NAMES))]  # 7: all colours, neighbours differ
    for worker in alive(workers):
        pictures = []
        try:
            for i, (name, color) in enumerate(zip(words.NAMES, colors, strict=True)):
                plan.progress(f"{worker.side.name}: {name}")
                work = msgspec.structs.replace(plan.workload, prompt=words.prompt(name, color), seed=i)
                (png,) = worker.draw(Ask(work, give="pictures")).pictures
                pictures.append(pixels_from_png(png))
        except RunError as error:
            yield failure(worker, error)
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


def pixels_from_png(png: str) -> Pixels:
    """``[H, W, 3]`` of a base64 PNG."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
