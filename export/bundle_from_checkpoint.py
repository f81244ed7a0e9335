"""The whole way from a checkpoint to a bundle, component by component, reusing what has not changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
from torch import nn

from ..runtime import manifest as contract
from ..runtime.errors import RequestError
from ..runtime.spec import AxisRange
from ..runtime.version import __version__
from .checkpoint import Checkpoint, read_checkpoint
from .components import Component, components, native_side, stride, vae_scale
from .engine_from_onnx import Compiler, compiler_for
from .onnx_from_torch import OPSET, onnx_from_torch
from .profiles import Batch, buckets_from_text, profile_for, profiles
from .store import BundleWriter, changed_parts
from .tokenizers import export_tokenizer
from .verify import gate
from .weights import GRAPH_FOLDER, WeightStore, graph_bytes, parameter_count, weight_files

TOKENIZER_FOLDER = "tokenizers"


@dataclass(frozen=True)
class BuildOptions:
    """What to build. ``components`` empty means all of them; ``force`` takes nothing over from a previous bundle."""

    provider: str = "onnxruntime-cpu"
    precision: str = "fp32"
    aspects: str | None = None
    batch: Batch = field(default_factory=lambda: Batch(1, 1, 8))
    components: tuple[str, ...] = ()
    onnx_only: bool = False
    force: bool = False


@dataclass(frozen=True)
class BuildEvent:
    """Progress: a component enters a stage (``export``, ``compile``, ``gate``) or is done, with the seconds it took.

    ``reason`` says, for a component that is done, why it was built or that it was reused.
    """

    component: str
    stage: str
    seconds: float = 0.0
    reason: str = ""


Report = Callable[[BuildEvent], None]


@dataclass
class _Builder:
    """The state of one build: what every component needs."""

    checkpoint: Checkpoint
    options: BuildOptions
    compiler: Compiler | None
    ranges: dict[str, AxisRange]
    writer: BundleWriter
    weights: WeightStore
    report: Report

    def build(self, component: Component) -> tuple[contract.Component, contract.EngineRecord | None]:
        """Export, compile and check one component, or take it over."""
        start = time.perf_counter()
        reference = _Lazy(component)
        record, model, why_onnx = self._onnx(component, reference)
        if self.compiler is None:
            self.report(BuildEvent(component.name, "done", time.perf_counter() - start, why_onnx))
            return record, None
        engine, why_engine = self._engine(component, record, model, reference, self.compiler)
        reason = why_onnx if why_onnx != "reused" else why_engine
        self.report(BuildEvent(component.name, "done", time.perf_counter() - start, reason))
        return record, engine

    def _onnx(self, component: Component, reference: _Lazy) -> tuple[contract.Component, ir.Model, str]:
        """The portable graph: from the previous bundle if its key is the same, else from torch."""
        key = {
            "weights": self.checkpoint.digest(component.folder),
            "precision": component.precision,
            "opset": str(OPSET),
            "torch": version("torch"),
            "diffusers": version("diffusers"),
            "transformers": version("transformers"),
            "export code": _export_code(),
        }
        profile = profile_for(component.axes, self.ranges)
        path = f"{GRAPH_FOLDER}/{component.name}.onnx"
        old = self.writer.previous.manifest.components.get(component.name) if self.writer.previous else None
        why = "forced" if self.options.force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not why:
            if self.writer.take_over((old.onnx, *old.weights)):
                model = self.weights.load(old.onnx, component.name)
                record = contract.Component(
                    component.inputs, component.outputs, profile, component.precision,
                    old.parameters, OPSET, old.onnx, old.weights, key,
                )  # fmt: skip
                return record, model, "reused"
            why = "its files were damaged"
        self.report(BuildEvent(component.name, "export"))
        module = reference.get()
        model = onnx_from_torch(component, module, stride(self.checkpoint) // vae_scale(self.checkpoint))
        if component.precision != "fp32":
            reference.forget()  # the export cast it
        self.weights.externalize(model, component.name)
        self.writer.write(path, graph_bytes(model, relative_to=GRAPH_FOLDER))
        record = contract.Component(
            component.inputs, component.outputs, profile, component.precision,
            parameter_count(model), OPSET, path, weight_files(model), key,
        )  # fmt: skip
        return record, model, why

    def _engine(
        self, component: Component, record: contract.Component, model: ir.Model, reference: _Lazy, compiler: Compiler
    ) -> tuple[contract.EngineRecord, str]:
        """The engine: from the previous bundle if its key is the same, else compiled and passed through the gate."""
        files = self.writer.files
        key = {
            "onnx": _digest(files[name].sha256 for name in (record.onnx, *record.weights)),
            "provider": compiler.provider,
            "provider version": compiler.version(),
            "precision": component.precision,
            **{f"profile.{axis}": str(allowed) for axis, allowed in record.profile.items()},
            "export code": _export_code(),
        }
        previous = self.writer.previous.engines(compiler.provider) if self.writer.previous else {}
        old = previous.get(component.name)
        why = "forced" if self.options.force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not why:
            if self.writer.take_over((old.path, *old.weights)):
                return old, "reused"
            why = "its files were damaged"
        self.report(BuildEvent(component.name, "compile"))
        lowered = compiler.rewrite(model)
        self.weights.externalize(lowered, f"{component.name}.{compiler.provider}")
        path = f"engines/{compiler.provider}/{component.name}.onnx"
        graph = graph_bytes(lowered)
        self.writer.write(path, graph)
        used = weight_files(lowered)
        self.report(BuildEvent(component.name, "gate"))
        engine = compiler.open(component.name, record, self.writer.folder, graph, used)
        try:
            figures = gate(component, reference.get(), engine, record.profile)
        finally:
            engine.close()
        built = contract.EngineRecord(
            component.name, compiler.provider, compiler.version(), path, used, figures, key
        )  # fmt: skip
        return built, why


class _Lazy:
    """A component's fp32 reference, loaded when first needed: a rebuild that reuses everything loads no weights."""

    def __init__(self, component: Component):
        self._component = component
        self._module: nn.Module | None = None

    def get(self) -> nn.Module:
        if self._module is None:
            self._module = self._component.load()
        return self._module

    def forget(self) -> None:
        self._module = None


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
    read = read_checkpoint(checkpoint)
    compiler = None if options.onnx_only else compiler_for(options.provider, options.precision)
    scale, side = vae_scale(read), native_side(read)
    buckets = buckets_from_text(options.aspects, read.family, side, stride(read))
    chosen = _chosen(components(read, options.precision), options.components)
    with BundleWriter(out) as writer:
        builder = _Builder(
            read, options, compiler, profiles(buckets, options.batch, scale, side), writer, WeightStore(writer), report
        )
        records: dict[str, contract.Component] = {}
        engines: list[contract.EngineRecord] = []
        for component in chosen:
            records[component.name], engine = builder.build(component)
            engines += [engine] if engine is not None else []
        manifest = _manifest(read, buckets, _text_encodings(read, writer), records, engines, writer)
        writer.commit(manifest)
    return manifest


def _chosen(available: Sequence[Component], names: Sequence[str]) -> list[Component]:
    known = [component.name for component in available]
    for name in names:
        if name not in known:
            raise RequestError("--component", received=name, expected=", ".join(known))
    return [component for component in available if not names or component.name in names]


def _text_encodings(checkpoint: Checkpoint, writer: BundleWriter) -> tuple[contract.TextEncoding, ...]:
    encodings, files = [], {}
    for record in checkpoint.family.text_encoders:
        tokenizer = export_tokenizer(checkpoint, record.tokenizer)
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
    family, side = checkpoint.family, native_side(checkpoint)
    vae = checkpoint.configs["vae"]
    width, height = (side, side) if (side, side) in buckets else buckets[0]
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        latentrt=__version__,
        name=checkpoint.name,
        family=family.name,
        latent_space=contract.LatentSpace(vae["latent_channels"], vae_scale(checkpoint), stride(checkpoint)),
        text_encodings=encodings,
        time_ids=family.time_ids,
        force_zeros_for_empty_prompt=bool(checkpoint.model_index.get("force_zeros_for_empty_prompt", True)),
        scheduler=checkpoint.scheduler_config,
        defaults=contract.Defaults(width, height, family.num_inference_steps, family.guidance_scale),
        buckets=buckets,
        components=records,
        engines=tuple(engines),
        files=dict(sorted(writer.files.items())),
        tools={name: version(name) for name in ("diffusers", "onnx", "onnxscript", "torch", "transformers")},
    )


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _export_code() -> str:
    """SHA-256 of this package's sources: what they produce may change with any of them."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
