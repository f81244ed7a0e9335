"""LatentRT on a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime import Output, __version__, load
from ...runtime.cli.values import interval_from_text
from ..workload import Ask, Start, Workload
from .drawer import Drawer, Drawn, initial_latents
from .latentrt_account import account


def open_side(start: Start) -> Drawer:
    """Load the bundle, with its hashes checked, which is the default. Each call encodes its prompt, as others do.

    Options: ``provider``, and ``guidance_interval`` (as on the command line) and ``decoder`` for every call.
    """
    options = dict(start.options)
    pipe = load(start.source, provider=options.pop("provider"), threads=start.threads, embeddings_cache=0)
    approximations: dict[str, Any] = {**options}
    if "guidance_interval" in options:
        approximations["guidance_interval"] = interval_from_text(options["guidance_interval"])
    manifest = pipe.bundle.manifest
    space = manifest.latent_space

    def call(work: Workload, **more: Any) -> Output:
        return pipe(
            work.prompt,
            width=work.width,
            height=work.height,
            num_inference_steps=work.num_inference_steps,
            guidance_scale=work.guidance_scale,
            seed=work.seed,
            num_images_per_prompt=work.images,
            **approximations,
            **more,
        )

    def draw(ask: Ask) -> Drawn:
        given = ask.give == "latents"
        output = call(
            ask.workload,
            latents=initial_latents(ask, space.channels, space.scale) if ask.noise == "numpy" else None,
            output_type="latent" if given else "pil",
        )
        return Drawn(
            stages=output.timings.as_dict(),
            pictures=[] if given else output.images,
            latents=output.images if given else None,
            save=lambda folder: output.save(folder / "picture.png"),
        )

    engine = next(record for record in manifest.engines if record.provider == pipe.provider)
    precisions = sorted({component.precision for component in manifest.components.values()})
    settings = {
        "provider": pipe.provider,
        "precision": ", ".join(precisions),
        "bundle": Path(start.source).name,
        "shapes": "dynamic, one engine for all",
        "files": "hashes checked when loading",
        "prompts": "encoded in every call, none kept",
        **options,
    }
    versions = {"latentrt": __version__, pipe.provider: engine.provider_version}
    return Drawer(
        draw, versions, settings, concurrent=True, account=lambda ask: account(pipe, call, ask), close=pipe.close
    )
