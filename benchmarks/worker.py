"""One side of a comparison in a process of its own: ``python -P -m latentrt.benchmarks.worker SIDE SOURCE WORKLOAD``.

It loads, prints a ``Loaded`` line, then makes one picture for every line it reads and prints a ``Run`` line. So the
driver decides when each side runs, and the two can take turns.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from PIL import Image

from .workload import Loaded, Run, Workload

Draw = Callable[[], tuple[Image.Image, dict[str, float]]]


def latentrt_side(bundle: str, work: Workload) -> tuple[Draw, dict[str, str]]:
    """LatentRT on a bundle."""
    import numpy
    import onnxruntime

    from ..runtime import __version__, load

    pipe = load(bundle, threads=work.threads)

    def draw() -> tuple[Image.Image, dict[str, float]]:
        output = pipe(
            work.prompt,
            width=work.width,
            height=work.height,
            num_inference_steps=work.num_inference_steps,
            guidance_scale=work.guidance_scale,
            seed=work.seed,
        )
        return output.images[0], output.timings.as_dict()

    return draw, {"latentrt": __version__, "onnxruntime": onnxruntime.__version__, "numpy": numpy.__version__}


def diffusers_side(checkpoint: str, work: Workload) -> tuple[Draw, dict[str, str]]:
    """diffusers' eager pipeline in fp32 on a checkpoint; stage times by wrapping the networks' calls."""
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(work.threads)
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(checkpoint, add_watermarker=False).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    stages: dict[str, float] = {}

    def timed(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                stages[name] = stages.get(name, 0.0) + time.perf_counter() - start

        return run

    pipe.encode_prompt = timed("text", pipe.encode_prompt)
    pipe.unet.forward = timed("denoise", pipe.unet.forward)
    pipe.vae.decode = timed("decode", pipe.vae.decode)

    def draw() -> tuple[Image.Image, dict[str, float]]:
        stages.clear()
        image = pipe(
            work.prompt,
            width=work.width,
            height=work.height,
            num_inference_steps=work.num_inference_steps,
            guidance_scale=work.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(work.seed),
        ).images[0]
        return image, dict(stages)

    return draw, {
        "diffusers": diffusers.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


SIDES = {"latentrt": latentrt_side, "diffusers": diffusers_side}


def main() -> None:
    """Serve runs until standard input ends."""
    side, source, encoded = sys.argv[1:]
    work = msgspec.json.decode(encoded, type=Workload)
    replies = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not look like a reply
    start = time.perf_counter()
    draw, versions = SIDES[side](source, work)
    print(msgspec.json.encode(Loaded(time.perf_counter() - start, versions)).decode(), file=replies, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        image, stages = draw()
        seconds = time.perf_counter() - start
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        reply = Run(seconds, stages, _peak_bytes(), base64.b64encode(buffer.getvalue()).decode())
        print(msgspec.json.encode(reply).decode(), file=replies, flush=True)


def _peak_bytes() -> int:
    """The largest resident size of this program so far. (``getrusage`` would count that of whoever started it.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
