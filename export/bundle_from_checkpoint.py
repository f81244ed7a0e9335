"""The whole way from a checkpoint to a bundle, component by component, reusing what has not changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from ..runtime import manifest as contract
from ..runtime.errors import RequestError
from ..runtime.version import __version__
from .build_component import TOOLS, BuildEvent, ComponentBuilder, Report
from .checkpoint import Checkpoint, read_checkpoint
from .components import Component, components, latent_stride, native_side, vae_scale
from .engine_from_onnx import compiler_for
from .precision import TORCH_DTYPES
from .profiles import Batch, buckets_from_text, default_bucket, profiles
from .store import BundleWriter
from .tokenizers import export_tokenizer

__all__ = ["BuildEvent", "BuildOptions", "bundle_from_checkpoint"]

TOKENIZER_FOLDER = "tokenizers"


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    ``components`` empty means all of them. Those that are not named stay as they are in a bundle that is there, and
    must not have changed. ``force`` takes nothing over for those that are built.
    """

    provider: str = "onnxruntime-cpu"
    precision: str = "fp32"
    aspects: str | None = None
    batch: Batch = field(default_factory=lambda: Batch(1, 1, 8))
    components: tuple[str, ...] = ()
    onnx_only: bool = False
    force: bool = False


def bundle_from_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    report: Report = lambda event: None,
) -> contract.Manifest:
    """Build a bundle at ``out`` and return its manifest.

    Raises:
        CheckpointError, OutputError, RequestError: input that cannot be used; nothing is left behind.
        ExportError, GateError, EngineError: a component could not be built; nothing is left behind.
    """
    options = options or BuildOptions()
    if options.precision not in TORCH_DTYPES:
        raise RequestError("--precision", received=options.precision, expected=" or ".join(TORCH_DTYPES))
    read = read_checkpoint(checkpoint)
    compiler = compiler_for(options.provider)
    if not options.onnx_only:
        compiler.check_precision(options.precision)
    scale, side = vae_scale(read), native_side(read)
    buckets = buckets_from_text(options.aspects, read.family, side, latent_stride(read) * scale)
    available = components(read, options.precision)
    chosen = _chosen(available, options.components)
    with BundleWriter(out, lambda: report(BuildEvent("", "wait"))) as writer:
        encodings = _text_encodings(read, writer)
        ranges = profiles(buckets, options.batch, scale, side)
        builder = ComponentBuilder(read, None if options.onnx_only else compiler, ranges, writer, report)
        kept = _kept(builder, [component for component in available if component.name not in chosen])
        records: dict[str, contract.Component] = {}
        engines: list[contract.EngineRecord] = []
        for component in available:
            if component.name in chosen or component.name in kept:
                force = options.force and component.name in chosen
                records[component.name], engine = builder.build(component, force=force)
                engines += [engine] if engine is not None else []
        manifest = _manifest(read, buckets, encodings, records, engines, writer)
        writer.commit(manifest)
    return manifest


def _chosen(available: Sequence[Component], names: Sequence[str]) -> set[str]:
    known = [component.name for component in available]
    for name in names:
        if name not in known:
            raise RequestError("--component", received=name, expected=", ".join(known))
    return set(names or known)


def _kept(builder: ComponentBuilder, others: Sequence[Component]) -> set[str]:
    """Those of the components which are not to be built that the bundle holds, unchanged."""
    previous = builder.writer.previous
    held = [component for component in others if previous and component.name in previous.manifest.components]
    for component in held:
        changes = builder.changes(component)
        if changes:
            raise RequestError(
                f"--component: the bundle's {component.name} does not belong to what is built",
                received=changes,
                expected="components that are not named to be unchanged",
                remedy=f"name {component.name} too, name none to build all, or choose another --out",
            )
    return {component.name for component in held}


def _text_encodings(checkpoint: Checkpoint, writer: BundleWriter) -> tuple[contract.TextEncoding, ...]:
    encodings, files = [], {}
    for record in checkpoint.family.text_encoders:
        vocabulary = checkpoint.number(record.component, "vocab_size")
        tokenizer = export_tokenizer(checkpoint, record.tokenizer, vocabulary)
        if tokenizer.vocabulary not in files:
            files[tokenizer.vocabulary] = f"{TOKENIZER_FOLDER}/{record.tokenizer}.json"
            writer.write(files[tokenizer.vocabulary], tokenizer.vocabulary)
        encodings.append(
            contract.TextEncoding(
                component=record.component,
                tokenizer=files[tokenizer.vocabulary],
                added_tokens=tokenizer.added_tokens,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                hidden_states="hidden_states",
                pooled="text_embeds" if record.pooled else None,
            )
        )
    return tuple(encodings)


def _manifest(
    checkpoint: Checkpoint,
    buckets: tuple[tuple[int, int], ...],
    encodings: tuple[contract.TextEncoding, ...],
    records: dict[str, contract.Component],
    engines: list[contract.EngineRecord],
    writer: BundleWriter,
) -> contract.Manifest:
    family, scale = checkpoint.family, vae_scale(checkpoint)
    channels, stride = checkpoint.number("vae", "latent_channels"), latent_stride(checkpoint) * scale
    width, height = default_bucket(buckets, native_side(checkpoint))
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        latentrt=__version__,
        name=checkpoint.name,
        family=family.name,
        latent_space=contract.LatentSpace(channels, scale, stride),
        text_encodings=encodings,
        time_ids=family.time_ids,
        force_zeros_for_empty_prompt=bool(checkpoint.model_index.get("force_zeros_for_empty_prompt", True)),
        scheduler=checkpoint.scheduler_config,
        defaults=contract.Defaults(width, height, family.num_inference_steps, family.guidance_scale),
        buckets=buckets,
        components=records,
        engines=tuple(engines),
        files=dict(sorted(writer.files.items())),
        tools={name: version(name) for name in TOOLS},
    )
