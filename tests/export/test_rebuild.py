"""A build takes over what has not changed, says why it builds the rest, and never loses a bundle."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file

from latentrt.export import build_graph
from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint, planned_changes
from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.events import BuildEvent
from latentrt.export.gate import graph_gate
from latentrt.export.networks import components as components_module
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.export.profiles import Batch
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import Manifest, encode_manifest
from latentrt.runtime.errors import OutputError, RequestError

from .builds import NAMES, TEXT, build, change_weight, fails


@pytest.fixture
def bundle_copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the weights of any component is an error."""

    def refuse(checkpoint: object, folder: str) -> None:
        raise AssertionError(f"{folder} was loaded")

    monkeypatch.setattr(components_module, "network_weights", refuse)


@pytest.mark.usefixtures("no_weights", "no_export")
def test_a_second_build_takes_everything_over_and_loads_no_weights(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = open_bundle(bundle_copy)
    assert build(tiny_checkpoint, bundle_copy) == dict.fromkeys(NAMES, "reused")
    assert open_bundle(bundle_copy).hash == before.hash


@pytest.mark.usefixtures("no_export")
def test_other_sizes_need_other_engines_but_no_export(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    reasons = build(tiny_checkpoint, bundle_copy, BuildOptions(aspects="96x96,96x64"))
    assert [name for name in NAMES if reasons[name] == "reused"] == ["text_encoder", "text_encoder_2"]
    assert all("profile.max changed 144x144 -> 96x96" in reasons[name] for name in NAMES[2:])
    assert open_bundle(bundle_copy).manifest.components["denoiser"].profile["width"].max == 24


def test_a_changed_weight_rebuilds_its_component_and_says_so(checkpoint_copy: Path, bundle_copy: Path) -> None:
    change_weight(checkpoint_copy)
    before = open_bundle(bundle_copy).manifest
    reasons = build(checkpoint_copy, bundle_copy)
    assert reasons["text_encoder"].startswith("weights changed ")
    assert [name for name in NAMES if reasons[name] == "reused"] == NAMES[1:]
    after = open_bundle(bundle_copy).manifest
    assert after.components["text_encoder"].weights != before.components["text_encoder"].weights
    assert set(before.components["text_encoder"].weights).isdisjoint(after.files)


def test_force_builds_what_is_named_and_leaves_the_rest(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = open_bundle(bundle_copy)
    reasons = build(tiny_checkpoint, bundle_copy, BuildOptions(components=("text_encoder",), force=True))
    assert reasons == {"text_encoder": "forced", **dict.fromkeys(NAMES[1:], "reused")}
    assert open_bundle(bundle_copy).hash == before.hash


def test_a_component_is_added_to_the_ones_that_are_there(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    options = BuildOptions(components=("text_encoder_2",))
    assert build(tiny_checkpoint, text_bundle_copy, options) == {"text_encoder": "reused", "text_encoder_2": "new"}
    assert list(open_bundle(text_bundle_copy).manifest.components) == ["text_encoder", "text_encoder_2"]


@pytest.mark.usefixtures("no_weights")
def test_a_component_that_is_not_named_and_has_changed_is_not_lost(checkpoint_copy: Path, bundle_copy: Path) -> None:
    change_weight(checkpoint_copy)
    before = open_bundle(bundle_copy)
    message = fails(RequestError, checkpoint_copy, bundle_copy, BuildOptions(components=("vae_decoder",)))
    assert "the bundle's text_encoder would have to be rebuilt too | received: weights changed" in message
    assert open_bundle(bundle_copy).hash == before.hash


@pytest.mark.usefixtures("no_export")
def test_a_damaged_engine_is_not_taken_over(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    path = text_bundle_copy / "engines" / "onnxruntime-cpu" / "text_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "its files were damaged"}
    assert open_bundle(text_bundle_copy).hash == before.hash


def test_damaged_weights_are_not_taken_over(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    path = text_bundle_copy / before.manifest.components["text_encoder"].weights[0]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "its files were damaged"}
    assert open_bundle(text_bundle_copy).hash == before.hash


def planned(checkpoint: Path, out: Path, options: BuildOptions) -> tuple[dict[str, str], list[str]]:
    """What a dry run says: of each component, and of what would be dropped."""
    events: list[BuildEvent] = []
    changes = planned_changes(checkpoint, out, options, events.append)
    return changes, [f"{event.component}: {event.detail}" for event in events if event.stage == "drop"]


def test_a_plan_says_that_a_newer_latentrt_made_the_bundle(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    path = text_bundle_copy / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": ', '"schema_version": 9'))
    changes, dropped = planned(tiny_checkpoint, text_bundle_copy, TEXT)
    assert changes == {"text_encoder": "new"}
    assert dropped == [f": {text_bundle_copy}: made by a newer LatentRT: nothing of it is taken over"]


def rewrite(bundle: Path, change: Callable[[Manifest], Manifest]) -> None:
    (bundle / "manifest.json").write_bytes(encode_manifest(change(open_bundle(bundle).manifest)))


@pytest.mark.parametrize("file", ["onnx", "weights", "engine"])
def test_a_dry_run_finds_a_flipped_byte(tiny_checkpoint: Path, text_bundle_copy: Path, file: str) -> None:
    manifest = open_bundle(text_bundle_copy).manifest
    record = manifest.components["text_encoder"]
    name = {"onnx": record.onnx, "weights": record.weights[0], "engine": manifest.engines[0].path}[file]
    data = bytearray((text_bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (text_bundle_copy / name).write_bytes(data)
    assert planned(tiny_checkpoint, text_bundle_copy, TEXT) == ({"text_encoder": "its files were damaged"}, [])
    assert (text_bundle_copy / name).read_bytes() == data


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("OPSET", 24, "opset changed 23 -> 24"),
        ("graph_code", lambda: "f" * 64, "export code changed "),
        ("version", lambda name: "9.0" if name == "torch" else importlib.metadata.version(name), "torch changed "),
    ],
)
def test_parts_of_a_graphs_key_that_are_not_the_checkpoints(
    tiny_checkpoint: Path,
    text_bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
    reason: str,
) -> None:
    monkeypatch.setattr(build_graph, name, value)
    changes, _ = planned(tiny_checkpoint, text_bundle_copy, TEXT)
    assert changes["text_encoder"].startswith(reason)
    assert ";" not in changes["text_encoder"]


def test_precision_and_what_a_text_encoder_gives_are_parts_of_its_key(
    tiny_checkpoint: Path, text_bundle_copy: Path
) -> None:
    """An encoder's config and weights do not say which of its hidden states the family wants."""
    half = BuildOptions(components=("text_encoder",), precision="fp16")
    assert planned(tiny_checkpoint, text_bundle_copy, half)[0] == {"text_encoder": "precision changed fp32 -> fp16"}
    first, second = components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")[:2]
    assert first.settings == {"hidden state": "penultimate", "pooled": "False"}
    assert second.settings == {"hidden state": "penultimate", "pooled": "True"}

    def other_state(manifest: Manifest) -> Manifest:
        record = manifest.components["text_encoder"]
        key = {**record.key, "hidden state": "last"}
        return msgspec.structs.replace(manifest, components={"text_encoder": msgspec.structs.replace(record, key=key)})

    rewrite(text_bundle_copy, other_state)
    expected = {"text_encoder": "hidden state changed last -> penultimate"}
    assert planned(tiny_checkpoint, text_bundle_copy, TEXT)[0] == expected


@pytest.mark.usefixtures("no_export")
def test_what_could_not_be_compared_is_compared_when_it_can(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    """The bundle of a machine with too little memory, rebuilt on a larger one, is the one that that one builds."""
    whole = open_bundle(text_bundle_copy).hash

    def not_compared(manifest: Manifest) -> Manifest:
        record, (engine,) = manifest.components["text_encoder"], manifest.engines
        return msgspec.structs.replace(
            manifest,
            components={"text_encoder": msgspec.structs.replace(record, gate=(), not_run="too little memory")},
            engines=(msgspec.structs.replace(engine, gate=(), not_run="too little memory"),),
        )

    rewrite(text_bundle_copy, not_compared)
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "reused"}
    assert open_bundle(text_bundle_copy).hash == whole


def test_obstacles_in_the_manifest_say_nothing_of_the_moment(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_bundle(text_bundle).manifest.components["text_encoder"]
    reasons = set()
    for available in (1000, 2000):
        for module in (build_graph, graph_gate):
            monkeypatch.setattr(module, "available_memory", lambda available=available: available)
        reasons |= {build_graph.Reference(None).cannot_run(record), graph_gate.cannot_run(record)}  # type: ignore[arg-type]
    assert reasons == {
        "its reference takes about 0.0 GB of memory, more than was available",
        "it takes about 0.0 GB of memory, more than was available",
    }


@pytest.mark.usefixtures("no_export")
def test_graphs_alone_keep_the_engines_that_belong_to_them(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    options = BuildOptions(components=("text_encoder",), onnx_only=True)
    assert build(tiny_checkpoint, text_bundle_copy, options) == {"text_encoder": "reused"}
    assert open_bundle(text_bundle_copy).hash == before.hash
    half = replace(options, precision="fp16")
    dropped = "text_encoder: onnxruntime-cpu engine dropped because precision changed fp32 -> fp16"
    assert planned(tiny_checkpoint, text_bundle_copy, half)[1] == [dropped]
    more = replace(options, batch=Batch(1, 1, 9))
    dropped = "text_encoder: onnxruntime-cpu engine dropped because profile.texts changed 1..2..16 -> 1..2..18"
    assert planned(tiny_checkpoint, text_bundle_copy, more) == ({"text_encoder": "reused"}, [dropped])


def test_a_component_that_nothing_is_given_for_is_not_lost_in_silence(
    tiny_checkpoint: Path, text_bundle_copy: Path
) -> None:
    def with_tiny_decoder(manifest: Manifest) -> Manifest:
        record = manifest.components["text_encoder"]
        return msgspec.structs.replace(manifest, components={**manifest.components, "tiny_decoder": record})

    rewrite(text_bundle_copy, with_tiny_decoder)
    message = fails(RequestError, tiny_checkpoint, text_bundle_copy, TEXT)
    assert "--component: the bundle's tiny_decoder would be lost | received: a checkpoint without it" in message
    _, dropped = planned(tiny_checkpoint, text_bundle_copy, BuildOptions())
    assert dropped == ["tiny_decoder: dropped because nothing was given that has one"]


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("onnx_only", [True, False])
def test_a_disk_without_room_for_the_graphs_is_told_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_only: bool
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    options = BuildOptions(components=("text_encoder",), onnx_only=onnx_only)
    message = fails(OutputError, tiny_checkpoint, tmp_path / "bundle", options)
    assert "not enough room for the bundle | received: 0.0 GB free | expected: about 0.0 GB for text_encoder" in message
    assert list(tmp_path.iterdir()) == []


def test_weights_that_have_two_names_take_room_once(tiny_checkpoint: Path) -> None:
    stored = load_file(tiny_checkpoint / "text_encoder" / "model.safetensors").values()
    encoder = components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")[0]
    assert encoder.weight_bytes == sum(tensor.nbytes for tensor in stored)


def test_a_build_that_has_to_wait_for_another_says_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def stop(event: BuildEvent) -> None:
        raise RuntimeError(event.stage)

    with BundleWriter(tmp_path / "bundle"), pytest.raises(RuntimeError, match="wait"):
        bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", TEXT, stop)
    assert list(tmp_path.iterdir()) == []
