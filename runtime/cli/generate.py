"""``latentrt generate``: pictures from the command line."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from ..errors import RequestError
from ..images.provenance import require_writable
from .values import interval_from_text, options_from_texts, picture_from_file, size_from_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..images.output import Output
    from ..loop.callback import StepState

T = TypeVar("T")

app = typer.Typer(add_completion=False)

#: A run shorter than this shows no progress bar, and does not pay for importing one.
_PATIENCE_SECONDS = 1.0

_SPELLED_ALIKE = (
    "guidance_interval", "guidance_scale", "image_guidance_scale", "negative_prompt", "negative_prompt_2",
    "negative_prompt_3", "prompt_2", "prompt_3", "refiner_strength", "tile_size",
)  # fmt: skip

#: Arguments of a call, as errors name them -> their options.
_OPTIONS = {
    "num_inference_steps": "--steps",
    "num_images_per_prompt": "--num-images",
    "image=": "--image",
    "mask_image": "--mask",
    "depth_map": "--depth",
    "sampler_options": "--option",
    **{name: "--" + name.replace("_", "-") for name in _SPELLED_ALIKE},
}
_ARGUMENT = re.compile(rf"\b(?:{'|'.join(sorted(_OPTIONS, reverse=True))})(?!\w)")


@app.command()
def generate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, made by latentrt build-engines.")],
    prompt: Annotated[list[str], typer.Argument(help="One or more prompts; quote each.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write; several get -0, -1, ... before .png.")],
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep out of the picture.")] = None,
    prompt_2: Annotated[
        str | None, typer.Option("--prompt-2", help="For the second text encoder, where it is to read another text.")
    ] = None,
    prompt_3: Annotated[str | None, typer.Option("--prompt-3", help="For the third text encoder, likewise.")] = None,
    negative_prompt_2: Annotated[
        str | None, typer.Option("--negative-prompt-2", help="For the second text encoder, likewise.")
    ] = None,
    negative_prompt_3: Annotated[
        str | None, typer.Option("--negative-prompt-3", help="For the third text encoder, likewise.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, e.g. 1152x896.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt; 1 turns it off.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; each next has one more.")] = None,
    rng: Annotated[
        str, typer.Option(help="Noise as torch draws it: torch-cpu, or philox (NVIDIA GPUs).")
    ] = "torch-cpu",
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="Pictures per prompt.")] = 1,
    sampler: Annotated[str | None, typer.Option(help="See latentrt samplers. Default: the checkpoint's.")] = None,
    schedule: Annotated[str | None, typer.Option(help="See latentrt samplers. Default: the checkpoint's.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="A setting of the sampler; repeatable.")
    ] = None,
    guidance_interval: Annotated[
        str | None, typer.Option(metavar="START:STOP", help="Fractions of the run outside which guidance is off.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to start from, or to edit.")] = None,
    strength: Annotated[float | None, typer.Option(help="How much of the run is done on --image, 0 to 1.")] = None,
    mask: Annotated[Path | None, typer.Option(help="White where --image is drawn anew.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="A depth map, near is white, for checkpoints that take one.")
    ] = None,
    image_guidance_scale: Annotated[
        float | None, typer.Option(help="How closely an instruct-pix2pix checkpoint follows --image.")
    ] = None,
    refiner: Annotated[Path | None, typer.Option(help="The bundle of a model that takes over from the first.")] = None,
    handover: Annotated[float | None, typer.Option(help="Where it takes over: a fraction of the schedule.")] = None,
    refiner_strength: Annotated[
        float | None, typer.Option(help="In place of --handover: how far it reworks the finished picture.")
    ] = None,
    decoder: Annotated[str, typer.Option(help="vae, or tiny for the bundle's fast approximate one.")] = "vae",
    tile_size: Annotated[int | None, typer.Option(help="Decode in square tiles of that many pixels.")] = None,
    provider: Annotated[str, typer.Option(help="What runs the engines.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: all available.")] = None,
    verify: Annotated[bool, typer.Option(help="Check the bundle's files against their hashes first.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make pictures from PROMPT and write them as PNG files that record how they were made."""
    start = time.perf_counter()
    width, height = size_from_text(size) if size is not None else (None, None)
    require_writable(output)
    arguments: dict[str, Any] = {
        "image": picture_from_file("--image", image) if image is not None else None,
        "mask_image": picture_from_file("--mask", mask) if mask is not None else None,
        "depth_map": picture_from_file("--depth", depth) if depth is not None else None,
        "strength": strength,
        "image_guidance_scale": image_guidance_scale,
        "guidance_interval": interval_from_text(guidance_interval) if guidance_interval is not None else None,
        "sampler_options": options_from_texts(option or []),
        "decoder": decoder,
        "tile_size": tile_size,
    }
    if refiner is not None:
        arguments.update(handover=handover, refiner_strength=refiner_strength)
    elif handover is not None or refiner_strength is not None:
        raise RequestError("--handover and --refiner-strength", expected="a model to take over: --refiner BUNDLE")

    def draw() -> tuple[Output, float]:
        from ..loading import load

        with load(bundle, refiner=refiner, provider=provider, threads=threads, verify=verify) as pipe:
            loaded = time.perf_counter()
            output = pipe(
                prompt,
                prompt_2=prompt_2,
                prompt_3=prompt_3,
                negative_prompt=negative_prompt,
                negative_prompt_2=negative_prompt_2,
                negative_prompt_3=negative_prompt_3,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                seed=seed,
                rng=rng,
                num_images_per_prompt=num_images,
                sampler=sampler,
                schedule=schedule,
                callback_on_step_end=progress.step,
                **arguments,
            )
        return output, loaded

    with _Progress() as progress:
        try:
            result, loaded = _interruptible(draw, progress)
        except RequestError as error:
            raise _of_options(error) from None
    paths = [str(path) for path in result.save(output)]
    made = result.provenance[0]
    if as_json:
        seconds = {"load": loaded - start, **result.timings.as_dict()}
        print(msgspec.json.encode({"images": paths, "seeds": result.seeds, "seconds": seconds}).decode())
        return
    for path, seed_used in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {seed_used}")
    print(
        f"{made.width}x{made.height}, {made.num_inference_steps} steps of {made.sampler} ({made.schedule}): "
        f"{result.timings.total:.3f} s, loading {loaded - start:.3f} s"
    )


def _of_options(error: RequestError) -> RequestError:
    """An error about arguments of the call as one about options; what was received is the user's own text."""

    def translated(part: object) -> Any:
        return _ARGUMENT.sub(lambda name: _OPTIONS[name[0]], part) if isinstance(part, str) else part

    expected, remedy = translated(error.expected), translated(error.remedy)
    return RequestError(translated(error.subject), received=error.received, expected=expected, remedy=remedy)


def _interruptible(work: Callable[[], T], progress: _Progress) -> T:
    """``work()`` on another thread: signals reach this one at once, and not when an engine's call returns.

    After a signal the process ends without waiting for that thread or for the engine's own.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whatever it is, the caller gets it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result()
    except (KeyboardInterrupt, SystemExit) as stop:
        progress.close()
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 128 + signal.SIGINT)


class _Progress:
    """A bar on the terminal for runs that take longer than a second."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, pipe: object, index: int, timestep: float, state: StepState) -> None:
        """The pipeline's callback."""
        if self._bar is None:
            if time.perf_counter() - self._start < _PATIENCE_SECONDS or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("denoising", total=None)
        if self._task is not None:
            self._bar.update(self._task, completed=index + 1)
