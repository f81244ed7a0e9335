"""Pipelines that are closed while they are at work, and loads that fail half way."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from latentrt.runtime import Pipeline, load, loading
from latentrt.runtime.bundles.manifest import decode_manifest, encode_manifest
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.interface import Device
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import CheckpointError, EngineError
from latentrt.runtime.providers import onnxruntime
from latentrt.runtime.providers.onnxruntime import OnnxRuntimeEngine

from ..kernels.slot_runs import RUNS
from .function_engine import engines_of
from .table_loop import linear_engine, run_through


def test_closing_waits_for_the_call_at_work_and_refuses_the_next(emoji_bundle: Path) -> None:
    pipe = load(emoji_bundle, verify=False)
    started, ended = threading.Event(), list[Any]()

    def notice(pipeline: Pipeline, step: int, timestep: float, state: object) -> None:
        started.set()

    def draw() -> None:
        try:
            while True:
                ended.append(pipe("a fox", seed=1, num_inference_steps=4, callback_on_step_end=notice).images)
        except EngineError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(60)
    pipe.close()
    for thread in threads:
        thread.join(60)
    said = [one for one in ended if isinstance(one, str)]
    assert len(said) == 2, "each thread ends with an error that says what happened"
    assert all("closed" in one for one in said)
    pipe.close()


def test_closing_from_a_callback_is_refused(emoji_bundle: Path) -> None:
    def close(pipeline: Pipeline, step: int, timestep: float, state: object) -> None:
        pipeline.close()

    with load(emoji_bundle, verify=False) as pipe:
        with pytest.raises(EngineError, match="cannot be closed in the middle of a call"):
            pipe("a fox", num_inference_steps=2, callback_on_step_end=close)
        assert pipe("a fox", num_inference_steps=1).steps_done == 1


def test_engines_are_closed_after_what_runs_them_and_before_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a second model on the same device."""
    order: list[str] = []
    first, second, device = linear_engine(), linear_engine(), HostDevice()
    base = engines_of(first, device=device)
    refiner = Engines(base.bundle, {}, {"denoiser": second}, base.__getitem__, base.runner)
    run_through(base, RUNS["euler"])
    run_through(refiner, RUNS["euler"])
    monkeypatch.setattr(device, "close", lambda: order.append(f"device, {first.closed}, {second.closed}"))
    base.close()
    refiner.close()
    assert order == ["device, True, True"]


def test_closing_while_an_engine_is_being_loaded(emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load(emoji_bundle, verify=False)
    loading_now, go_on, opened = threading.Event(), threading.Event(), list[OnnxRuntimeEngine]()
    load_engine = onnxruntime.load_engine

    def slowly(*arguments: Any, **options: Any) -> OnnxRuntimeEngine:
        loading_now.set()
        assert go_on.wait(60)
        opened.append(load_engine(*arguments, **options))
        return opened[0]

    monkeypatch.setattr(onnxruntime, "load_engine", slowly)
    engines: Engines = pipe.engines
    first = threading.Thread(target=lambda: engines["vae_encoder"])
    first.start()
    assert loading_now.wait(60)
    closing = threading.Thread(target=pipe.close)
    closing.start()
    go_on.set()
    first.join(60)
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(EngineError, match="vae_encoder: the engine is closed"):
        opened[0].run({})


def test_a_scheduler_that_is_not_known_is_told_before_anything_is_loaded(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = decode_manifest((emoji_bundle / "manifest.json").read_bytes(), where="")
    bundle = shutil.copytree(emoji_bundle, tmp_path / "bundle")
    (bundle / "manifest.json").unlink()
    scheduler = {"_class_name": "SomeOtherScheduler"}
    (bundle / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, scheduler=scheduler)))
    monkeypatch.setattr(onnxruntime, "load_engine", None)
    with pytest.raises(CheckpointError, match=r"unknown scheduler class .* 'SomeOtherScheduler'"):
        load(bundle, verify=False)


def test_a_load_that_fails_half_way_leaves_nothing(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners, opened = list[DeviceRunner](), list[OnnxRuntimeEngine]()

    class Runner(DeviceRunner):
        def __init__(self, device: Device, limit: int | None):
            super().__init__(device, limit)
            assert limit == 1000
            runners.append(self)

    load_engine = onnxruntime.load_engine

    def kept(*arguments: Any, **options: Any) -> OnnxRuntimeEngine:
        opened.append(load_engine(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(loading, "DeviceRunner", Runner)
    monkeypatch.setattr(onnxruntime, "load_engine", kept)
    bundle = shutil.copytree(emoji_bundle, tmp_path / "bundle")
    graph = bundle / "engines" / "onnxruntime-cpu" / "vae_decoder.onnx"
    graph.unlink()
    graph.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"vae_decoder: ONNX Runtime .* cannot load the engine"):
        load(bundle, verify=False, plans_memory=1000)
    assert {engine.component for engine in opened} == {"text_encoder", "text_encoder_2", "denoiser"}
    for engine in opened:
        with pytest.raises(EngineError, match="the engine is closed"):
            engine.run({})
    with pytest.raises(EngineError, match="the pipeline is closed"), runners[0].turn():
        pass
