"""An engine is taken over while every part of its key is the same, and what is built says which part changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from latentrt.export import build_engine
from latentrt.export.build_engine import EngineBuilder
from latentrt.export.engines.engine_from_onnx import CompiledEngine, CompileJob
from latentrt.export.events import REUSED, BuildEvent
from latentrt.export.graphs.weights import WeightStore
from latentrt.export.kept_engines import EngineKeeper
from latentrt.export.profiles import Tuning
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import (
    SCHEMA_VERSION,
    Component,
    Defaults,
    EngineRecord,
    GateRecord,
    LatentSpace,
    Manifest,
)
from latentrt.runtime.bundles.spec import AxisRange, Profile, TensorSpec
from latentrt.runtime.providers import Engine

BUCKETS = ((1024, 1024), (1152, 896), (896, 1152))
SPAN = Tuning(BUCKETS, 8)
EACH = Tuning(BUCKETS, 8, each=True)
FIGURES = GateRecord({"rows": 2}, "model_output", 0.0, 0.0, 1.0, 0)


def profile_of(buckets: tuple[tuple[int, int], ...], rows: int = 16) -> Profile:
    widths, heights = ([side // 8 for side in sides] for sides in zip(*buckets, strict=True))
    return {
        "rows": AxisRange(1, 2, rows),
        "width": AxisRange(min(widths), 128, max(widths)),
        "height": AxisRange(min(heights), 128, max(heights)),
    }


RECORD = Component(
    inputs=(TensorSpec("sample", "float16", ("rows", 4, "height", "width")),),
    outputs=(TensorSpec("model_output", "float16", ("rows", 4, "height", "width")),),
    profile=profile_of(BUCKETS), precision="fp16", parameters=1, opset=23,
    onnx="onnx/denoiser.onnx", weights=("onnx/weights/denoiser.bin",), key={"weights": "one"},
)  # fmt: skip


class _Engine:
    component = "denoiser"

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Compiler:
    """A provider whose engines are a few bytes. ``obstacle`` says why they do not run here."""

    provider: str = "tensorrt-rtx"
    targets: tuple[str, ...] = ("sm89",)
    only_here: bool = False
    obstacle: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    def check_precision(self, precision: str) -> None:
        """Every precision will do."""

    def check_memory(self, component: str, weights: int) -> None:
        """There is enough."""

    def engine_size(self, weights: int) -> int:
        return 0

    def key(self) -> dict[str, str]:
        return {"provider version": "1.7", "targets": ", ".join(self.targets), **self.settings}

    def compile(self, job: CompileJob) -> CompiledEngine:
        path = f"engines/{self.provider}/{'-'.join(self.targets)}/{job.component}.engine"
        job.writer.write(path, b"engine")
        return CompiledEngine(path, ())

    def opener(self, job: CompileJob, path: str, weights: tuple[str, ...]) -> Callable[[], Engine] | str:
        return self.obstacle or (lambda: _Engine())  # type: ignore[return-value]


@dataclass
class _Build:
    """What a build of the one component came to."""

    reason: str
    engines: tuple[EngineRecord, ...]
    stages: list[str]
    dropped: list[str]


def build(
    out: Path,
    compiler: _Compiler,
    *,
    record: Component = RECORD,
    tuning: Tuning = SPAN,
    graph: bytes = b"graph",
    obstacle: str = "",
) -> _Build:
    """Build the denoiser's engine into the bundle ``out``, and keep those that it does not replace."""
    events: list[BuildEvent] = []
    with BundleWriter(out) as writer:
        writer.write(record.onnx, graph)
        writer.write(record.weights[0], b"weights")
        builder = EngineBuilder(compiler, tuning, writer, WeightStore(writer), events.append)
        no_graph: Callable[[], object] = lambda: None  # noqa: E731
        reason = builder.changes("denoiser", record, writer.files, force=False)
        built = builder.build(
            "denoiser",
            record,
            no_graph,  # type: ignore[arg-type]
            lambda engine: (FIGURES,),
            reason,
            obstacle=obstacle,
        )
        kept = EngineKeeper(writer, tuning, events.append).keep("denoiser", record, replaced=builder.replaces)
        engines = (built.record, *kept)
        writer.commit(
            Manifest(
                schema_version=SCHEMA_VERSION, latentrt="0", name="nothing", family="sdxl",
                latent_space=LatentSpace(4, 8, 8), text_encodings=(), force_zeros_for_empty_prompt=True, scheduler={},
                defaults=Defaults(8, 8, 1, 1), buckets=tuning.buckets, components={"denoiser": record}, engines=engines,
                files=dict(writer.files), tools={},
            )
        )  # fmt: skip
    dropped = [event.detail for event in events if event.stage == "drop"]
    return _Build(reason or REUSED, engines, [event.stage for event in events if event.stage != "drop"], dropped)


def test_an_engine_is_taken_over_with_all_it_says(tmp_path: Path) -> None:
    first = build(tmp_path / "bundle", _Compiler())
    again = build(tmp_path / "bundle", _Compiler())
    assert (first.reason, again.reason) == ("new", "reused")
    assert (first.stages, again.stages) == (["compile", "gate"], [])
    assert first.engines == again.engines
    assert first.engines[0].profiles == (RECORD.profile,)


def sized(buckets: tuple[tuple[int, int], ...]) -> dict[str, object]:
    return {"record": msgspec.structs.replace(RECORD, profile=profile_of(buckets)), "tuning": Tuning(buckets, 8)}


@pytest.mark.parametrize(
    ("compiler", "changes", "reason"),
    [
        (_Compiler(), sized((*BUCKETS, (1536, 1536))), "profile.max changed 1152x1152 -> 1536x1536"),
        (_Compiler(), sized(((1024, 1024), (512, 512))),
         "profile.min changed 896x896 -> 512x512; profile.max changed 1152x1152 -> 1024x1024"),
        (_Compiler(), {"record": msgspec.structs.replace(RECORD, profile=profile_of(BUCKETS, rows=8))},
         "profile.rows changed 1..2..16 -> 1..2..8"),
        (_Compiler(), {"record": msgspec.structs.replace(RECORD, precision="bf16")}, "precision changed fp16 -> bf16"),
        (_Compiler(), {"graph": b"another"}, "onnx changed "),
        (_Compiler(targets=("sm86",)), {}, "targets changed sm89 -> sm86"),
        (_Compiler(settings={"provider version": "1.8"}), {}, "provider version changed 1.7 -> 1.8"),
        (_Compiler(settings={"workspace": "1"}), {}, "workspace changed none -> 1"),
        (_Compiler(), {"tuning": EACH}, "profile.min changed 896x896 -> 1024x1024, 1152x896, 896x1152; "),
    ],
)  # fmt: skip
def test_every_part_of_the_key_is_told(
    tmp_path: Path, compiler: _Compiler, changes: dict[str, object], reason: str
) -> None:
    build(tmp_path / "bundle", _Compiler())
    again = build(tmp_path / "bundle", compiler, **changes)  # type: ignore[arg-type]
    assert again.reason.startswith(reason)
    assert "compile" in again.stages
    assert len(again.engines) == 1


def test_other_code_is_a_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "bundle", _Compiler())
    monkeypatch.setattr(build_engine, "engine_code", lambda: "new")
    assert build(tmp_path / "bundle", _Compiler()).reason.startswith("export code changed ")


def test_other_buckets_of_the_same_sides_are_other_engines(tmp_path: Path) -> None:
    """Each axis has the same sizes in both, in another combination."""
    one, other = ((512, 512), (768, 768), (512, 768)), ((512, 512), (768, 768), (768, 512))
    record = msgspec.structs.replace(RECORD, profile=profile_of(one))
    build(tmp_path / "bundle", _Compiler(), record=record, tuning=Tuning(one, 8, each=True))
    again = build(tmp_path / "bundle", _Compiler(), record=record, tuning=Tuning(other, 8, each=True))
    sizes = "512x512, 768x768, 512x768 -> 512x512, 768x768, 768x512"
    assert again.reason == "; ".join(f"profile.{pick} changed {sizes}" for pick in ("min", "opt", "max"))


def test_a_damaged_engine_is_built_again(tmp_path: Path) -> None:
    first = build(tmp_path / "bundle", _Compiler())
    (tmp_path / "bundle" / first.engines[0].path).write_bytes(b"enginf")
    again = build(tmp_path / "bundle", _Compiler())
    assert again.reason == "its files were damaged"
    open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("where", ["reference", "engine"])
def test_an_engine_passes_the_gate_when_it_can(tmp_path: Path, where: str) -> None:
    """It was built where the gate was not possible, and is reused where it is: compared then, and not built again."""
    reason = "onnxruntime is not installed"
    there = _Compiler(obstacle=reason if where == "engine" else "")
    first = build(tmp_path / "bundle", there, obstacle=reason if where == "reference" else "")
    assert (first.engines[0].gate, first.engines[0].not_run) == ((), reason)
    again = build(tmp_path / "bundle", _Compiler())
    assert (again.reason, again.stages) == ("reused", ["gate"])
    assert (again.engines[0].gate, again.engines[0].not_run) == ((FIGURES,), "")
    back = build(tmp_path / "bundle", there, obstacle=reason)
    assert back.engines == again.engines, "what has been compared stays so"


# --- engines that the build is not about ------------------------------------------------------------------------------

CPU = _Compiler("onnxruntime-cpu", ())


def providers(built: _Build) -> list[tuple[str, tuple[str, ...]]]:
    return [(engine.provider, engine.targets) for engine in built.engines]


@pytest.mark.parametrize("tuning", [SPAN, EACH])
def test_engines_of_other_providers_stay_however_they_were_tuned(tmp_path: Path, tuning: Tuning) -> None:
    build(tmp_path / "bundle", _Compiler(), tuning=tuning)
    built = build(tmp_path / "bundle", CPU)
    assert providers(built) == [("onnxruntime-cpu", ()), ("tensorrt-rtx", ("sm89",))]
    assert built.dropped == []
    open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("before", "changes", "dropped"),
    [
        (SPAN, sized((*BUCKETS, (1536, 1536))), "profile.max changed 1152x1152 -> 1536x1536"),
        # Those sides were there before, but no engine is tuned for this one of their combinations.
        (EACH, {"tuning": Tuning((*BUCKETS, (1152, 1152)), 8)}, "profile.min changed 1024x1024, 1152x896, 896x1152 "),
        (SPAN, {"graph": b"another"}, "its graph is another one"),
        (SPAN, {"graph": b"another", "record": msgspec.structs.replace(RECORD, key={"weights": "two"})},
         "weights changed one -> two"),
    ],
)  # fmt: skip
def test_engines_that_do_not_belong_to_the_graph_any_more_are_dropped_and_told(
    tmp_path: Path, before: Tuning, changes: dict[str, object], dropped: str
) -> None:
    build(tmp_path / "bundle", _Compiler(targets=("sm89", "sm120")), tuning=before)
    built = build(tmp_path / "bundle", CPU, **changes)  # type: ignore[arg-type]
    assert providers(built) == [("onnxruntime-cpu", ())]
    (line,) = built.dropped
    assert line.startswith(f"tensorrt-rtx engine for sm89, sm120 dropped because {dropped}")


def test_a_damaged_engine_of_another_provider_is_dropped_and_told(tmp_path: Path) -> None:
    first = build(tmp_path / "bundle", _Compiler())
    (tmp_path / "bundle" / first.engines[0].path).write_bytes(b"enginf")
    built = build(tmp_path / "bundle", CPU)
    assert providers(built) == [("onnxruntime-cpu", ())]
    assert built.dropped == ["tensorrt-rtx engine for sm89 dropped because its files were damaged"]


def test_engines_for_gpus_that_are_elsewhere_stay_where_only_this_one_can_be_built_for(tmp_path: Path) -> None:
    here = _Compiler("tensorrt", ("sm89",), only_here=True)
    build(tmp_path / "bundle", here)
    built = build(tmp_path / "bundle", replace(here, targets=("sm90",)))
    assert (built.reason, providers(built)) == ("new", [("tensorrt", ("sm90",)), ("tensorrt", ("sm89",))])
    again = build(tmp_path / "bundle", here)
    assert (again.reason, providers(again)) == ("reused", [("tensorrt", ("sm89",)), ("tensorrt", ("sm90",))])
