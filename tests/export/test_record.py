"""``build.json`` has what a bug report needs."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import msgspec

from latentrt.export.build_engine import EngineOptions
from latentrt.export.events import BuildEvent
from latentrt.export.record import BuildRecord
from latentrt.runtime.bundles.bundle import open_bundle


def test_events_become_a_record(text_bundle: Path) -> None:
    manifest = open_bundle(text_bundle).manifest
    passed_on: list[BuildEvent] = []
    record = BuildRecord({"engine": EngineOptions("tensorrt-rtx", ("sm89",)), "vae": Path("vae")}, passed_on.append)
    events = [
        BuildEvent("", "wait"),
        BuildEvent("", "profiles", detail="profile 0"),
        BuildEvent("text_encoder", "check"),
        BuildEvent("", "check"),
        BuildEvent("text_encoder", "compile"),
        BuildEvent("text_encoder", "compile", detail="tactics", fraction=0.5),
        BuildEvent("text_encoder", "drop", detail="tensorrt engine dropped because its files were damaged"),
        BuildEvent("text_encoder", "done", 2.5, "precision changed", peak_memory=7, warnings=("a", "b", "a")),
        BuildEvent("tiny_decoder", "drop", detail="dropped because nothing was given that has one"),
    ]
    for event in events:
        record.event(event)
    assert passed_on == events

    content = json.loads(record.encode(manifest))
    assert content["components"].keys() == {"text_encoder", "tiny_decoder"}
    built = content["components"]["text_encoder"]
    assert (built["reason"], built["seconds"], built["peak_memory"]) == ("precision changed", 2.5, 7)
    assert built["warnings"] == ["a", "b"]
    assert built["stages"].keys() == {"check", "compile"}
    assert built["dropped"] == ["tensorrt engine dropped because its files were damaged"]
    figures = [msgspec.to_builtins(record) for record in manifest.components["text_encoder"].gate]
    assert built["graph"] == {"gate": figures, "not_run": ""}
    (engine,) = built["engines"]
    assert (engine["provider"], engine["not_run"]) == ("onnxruntime-cpu", "")
    assert engine["gate"][0]["cosine_distance"] < 1e-6
    assert content["components"]["tiny_decoder"]["dropped"] == ["dropped because nothing was given that has one"]
    assert content["options"]["engine"]["targets"] == ["sm89"]
    assert content["options"]["vae"] == "vae"
    assert content["waited"] >= 0


def test_it_says_on_what_and_with_what(text_bundle: Path) -> None:
    content = json.loads((text_bundle / "build.json").read_text())
    assert content["versions"]["python"] == platform.python_version()
    expected = {
        "latentrt",
        "torch",
        "diffusers",
        "transformers",
        "onnx",
        "onnx-ir",
        "onnxscript",
        "onnxruntime",
        "numpy",
    }
    assert expected <= content["versions"].keys()
    machine = content["machine"]
    assert machine["processor"]
    assert machine["processors"] >= 1
    assert machine["memory"] > machine["available_memory"] > 0
    assert machine["gpus"] == [] or "," in machine["gpus"][0]
    assert content["command"]
    assert content["components"].keys() == {"text_encoder"}
    assert content["components"]["text_encoder"]["stages"].keys() == {"check", "export", "compile", "gate"}
