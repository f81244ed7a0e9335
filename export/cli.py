"""``latentrt build-engines``: a bundle from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..runtime.bundles.manifest import MANIFEST_NAME
from ..runtime.errors import RequestError
from .cli_progress import BuildProgress, planned, summary

app = typer.Typer(add_completion=False)


@app.command()
def build_engines(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint: a diffusers folder or a safetensors file. Or a bundle, to build engines for its graphs."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The bundle to write; one that exists is rebuilt where it changed. Default: a bundle itself."
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="What the engines are for: onnxruntime-cpu, onnxruntime-cuda, tensorrt-rtx or tensorrt.")
    ] = "onnxruntime-cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or bf16. Default: fp32, or fp16 for a provider for GPUs.")
    ] = None,
    aspects: Annotated[
        str | None, typer.Option(help="Sizes to accept: WxH,... or a family's name (its training buckets).")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Images per engine call: MIN:OPT:MAX. Default: 1:1:8.")] = None,
    profiles: Annotated[
        str, typer.Option(help="Tune an engine for the default size (span), or for each of --aspects (buckets).")
    ] = "span",
    component: Annotated[
        list[str] | None,
        typer.Option(help="Build only this component (may be repeated); others stay as they are in the bundle."),
    ] = None,
    target_sm: Annotated[
        str | None,
        typer.Option(help="Compute capabilities of the GPUs to build for: 86,89,120. Default: that of this machine."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="TensorRT: MB of scratch memory a layer may use.", min=1)
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="TensorRT: 0 (fast build) to 5 (fast engine).", min=0, max=5)
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: engines that tensorrt-lean runs too.")
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="TensorRT: a folder of measurements to reuse and add to; makes builds repeatable."),
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="An autoencoder in place of the checkpoint's: its folder, or a safetensors file."),
    ] = None,
    tiny_vae: Annotated[
        Path | None, typer.Option(help="The folder of an AutoencoderTiny, for the component tiny_decoder: previews.")
    ] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="A text encoder in place of the checkpoint's.")] = None,
    text_encoder_2: Annotated[Path | None, typer.Option(help="The same for the second.")] = None,
    text_encoder_3: Annotated[Path | None, typer.Option(help="The same for the third: T5.")] = None,
    tokenizer_3: Annotated[
        Path | None, typer.Option(help="The folder of T5's tokenizer, which single files do not hold.")
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="What the denoiser predicts, if the checkpoint does not say: epsilon or v_prediction."),
    ] = None,
    skip_layers: Annotated[
        str | None,
        typer.Option(
            help="Layers for skip-layer guidance: 7,8,9 or none. Default: those of Stable Diffusion 3.5 Medium."
        ),
    ] = None,
    onnx_only: Annotated[bool, typer.Option("--onnx-only", help="Export the ONNX graphs, compile no engines.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built and why; build nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build everything anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Export every component of CHECKPOINT, compile it, check it against PyTorch, and write a bundle.

    Whatever has not changed since the bundle was last built is taken over; the rest says what changed.
    """
    from .build_engine import EngineOptions
    from .checkpoints.checkpoint import TINY_VAE, read_checkpoint
    from .engines.tensorrt.build import BuilderOptions

    builder = BuilderOptions(
        workspace=None if workspace is None else workspace << 20,
        optimization_level=optimization_level,
        version_compatible=version_compatible,
        timing_cache=timing_cache,
    )
    targets = _targets(target_sm) if target_sm else ()
    engine = EngineOptions(provider, targets, profiles, builder)
    names = tuple(component or ())
    given = {
        "vae": vae, TINY_VAE: tiny_vae, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2,
        "text_encoder_3": text_encoder_3, "tokenizer_3": tokenizer_3,
    }  # fmt: skip
    parts = {name: path for name, path in given.items() if path is not None}
    with BuildProgress(quiet=as_json) as progress:
        if (checkpoint / MANIFEST_NAME).is_file() and not (checkpoint / "model_index.json").is_file():
            _refuse_for_a_bundle(checkpoint, {
                "--precision": precision, "--aspects": aspects, "--batch": batch, "--onnx-only": onnx_only,
                "--prediction-type": prediction_type, "--skip-layers": skip_layers,
                **{f"--{name.replace('_', '-')}": path for name, path in parts.items()},
            })  # fmt: skip
            from .bundle_from_bundle import EngineBuildOptions, bundle_from_bundle, planned_engines

            out = out or checkpoint
            wanted = EngineBuildOptions(engine, names, force)
            if dry_run:
                _print_plan(planned_engines(checkpoint, out, wanted, progress.event), progress, as_json)
                return
            manifest = bundle_from_bundle(checkpoint, out, wanted, progress.event)
        else:
            if out is None:
                raise RequestError("--out", received="nothing", expected="the folder of the bundle to write")
            from .profiles import batch_from_text

            images, layers = batch_from_text(batch or "1:1:8"), _layers(skip_layers)
            read = read_checkpoint(checkpoint, parts, prediction_type)  # a wrong path is told before torch is imported
            progress.note("importing torch and diffusers")
            from .bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint, planned_changes

            options = BuildOptions(
                engine, precision, aspects, images, names, onnx_only, force, parts, prediction_type, layers
            )
            if dry_run:
                _print_plan(planned_changes(read, out, options, progress.event), progress, as_json)
                return
            manifest = bundle_from_checkpoint(read, out, options, progress.event)
    if as_json:
        print(msgspec.json.encode(progress.report(out, manifest)).decode())
    else:
        summary(out, manifest, None if onnx_only else provider, progress)


def _targets(text: str) -> tuple[str, ...]:
    """``89``, ``sm89``, ``sm_89`` and NVIDIA's ``8.9`` are one compute capability."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    digits = [name.removeprefix("sm").removeprefix("_").replace(".", "", 1) for name in names]
    if not names or not all(number.isdecimal() for number in digits):
        raise RequestError("--target-sm", received=text, expected="compute capabilities of GPUs: 86,89,120")
    return tuple(f"sm{number}" for number in digits)


def _refuse_for_a_bundle(bundle: Path, options: Mapping[str, object]) -> None:
    """Raise RequestError for options that are about what a bundle has already."""
    given = [name for name, value in options.items() if value]
    if given:
        raise RequestError(
            ", ".join(given), received=f"with the bundle {bundle}",
            expected="a checkpoint: the graphs of a bundle are what they are",
        )  # fmt: skip


def _layers(text: str | None) -> tuple[int, ...] | None:
    """``"7,8,9"``, or ``"none"`` for no layers at all."""
    if text is None or text == "none":
        return None if text is None else ()
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise RequestError("--skip-layers", received=text, expected="numbers of layers (7,8,9), or none")
    return tuple(int(part) for part in parts)


def _print_plan(changes: dict[str, str], progress: BuildProgress, as_json: bool) -> None:
    if as_json:
        components = {name: {"why": change} for name, change in changes.items()}
        print(msgspec.json.encode({"components": components, "dropped": progress.dropped}).decode())
        return
    for name, change in changes.items():
        print(f"{name}: {planned(change)}")
