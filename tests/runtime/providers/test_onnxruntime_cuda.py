"""ONNX Runtime's CUDA provider as far as it goes without a GPU: what is asked of the library."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import DeviceMemoryError, EngineError
from latentrt.runtime.providers import onnxruntime_cuda
from latentrt.runtime.providers.onnxruntime_cuda import (
    MOST_RECORDINGS,
    OnnxRuntimeCudaEngine,
    check_placement,
    replays_without_waiting,
)

from ..function_engine import contract_of


def test_a_session_that_cannot_be_made_is_not_made_again_for_the_processor(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fail(session: ort.InferenceSession, providers: Any, *_: Any) -> None:
        asked.append(providers)
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    contract = open_bundle(emoji_bundle, verify=False).manifest.components["vae_decoder"]
    with pytest.raises(DeviceMemoryError, match=r"vae_decoder: ONNX Runtime .* cannot load the engine .*out of memory"):
        OnnxRuntimeCudaEngine("vae_decoder", contract, b"", {}, HostDevice(limit=1 << 30), {})
    assert {name for providers in asked for name, _ in providers} == {"CUDAExecutionProvider"}


class Session:
    """What is asked of ONNX Runtime, and in which thread."""

    made: list[tuple[str, int]]
    records: bool

    def __init__(self, graph: bytes, options: Any, providers: Any, enable_fallback: bool):
        ((_, settings),) = providers
        self.made.append((settings["enable_cuda_graph"], threading.get_ident()))
        if settings["enable_cuda_graph"] == "1" and not self.records:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        self.runs: list[tuple[str, int]] = []

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []

    def io_binding(self) -> Any:
        return SimpleNamespace(bind_input=lambda *_: None, bind_output=lambda *_: None)

    def run_with_iobinding(self, binding: object, options: ort.RunOptions) -> None:
        self.runs.append((options.get_run_config_entry("gpu_graph_id"), threading.get_ident()))


CONTRACT = contract_of({"latents": "float32 images 4"}, {"image": "float32 images 4"}, images=(1, 1, 1 << 10))


def engine_with(
    monkeypatch: pytest.MonkeyPatch, *, records: bool = True, **options: str
) -> tuple[OnnxRuntimeCudaEngine, list[tuple[str, int]]]:
    made: list[tuple[str, int]] = []
    monkeypatch.setattr(Session, "made", made, raising=False)
    monkeypatch.setattr(Session, "records", records, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "__version__", "1.31.1")
    return OnnxRuntimeCudaEngine("vae_decoder", CONTRACT, b"", {}, HostDevice(limit=1 << 30), options), made


def run(engine: OnnxRuntimeCudaEngine, images: int) -> None:
    engine.run({"latents": np.zeros((images, 4), np.float32)})


def test_it_records_itself_in_one_thread_and_each_execution_by_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, made = engine_with(monkeypatch)
    threads = [threading.Thread(target=run, args=(engine, images)) for images in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in range(MOST_RECORDINGS):
        run(engine, 3 + images)
    runs = engine._session.runs  # type: ignore[union-attr]
    assert len({thread for _, thread in (*made, *runs)}) == 1
    numbers = [number for number, _ in runs]
    assert numbers == [*(str(number + 1) for number in range(MOST_RECORDINGS)), "-1", "-1"]
    engine.close()


def test_what_cannot_be_recorded_is_loaded_without(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, made = engine_with(monkeypatch, records=False)
    assert [setting for setting, _ in made] == ["1", "0"]
    assert not engine.records_itself
    engine.close()
    with pytest.raises(EngineError, match="cannot use the graph capture feature"):
        engine_with(monkeypatch, records=False, enable_cuda_graph="1")
    engine, made = engine_with(monkeypatch, records=False, enable_cuda_graph="0")
    assert [setting for setting, _ in made] == ["0"]
    engine.close()


def test_versions_that_wait_after_each_replay_do_not_record() -> None:
    assert [replays_without_waiting(version) for version in ("1.22.0", "1.27.1", "1.28.0", "1.31.1", "2.0.0")] == [
        False, False, True, True, True
    ]  # fmt: skip


def placed(**nodes: str) -> Any:
    parts = [
        SimpleNamespace(
            ep_name=f"{where}ExecutionProvider", get_nodes=lambda kind=kind: [SimpleNamespace(op_type=kind)]
        )
        for kind, where in nodes.items()
    ]
    return SimpleNamespace(
        get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        get_provider_graph_assignment_info=lambda: parts,
    )


def test_what_takes_the_time_must_not_be_on_the_processor() -> None:
    check_placement("denoiser", placed(Conv="CUDA", MultiHeadAttention="CUDA", Shape="CPU", Gather="CPU"))
    with pytest.raises(EngineError, match=r"denoiser: .* on the processor \| received: Attention, Conv \|"):
        check_placement("denoiser", placed(Conv="CPU", MatMul="CUDA", Attention="CPU"))


def test_onnxruntime_tells_where_it_puts_nodes(emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real session's names of them, on the processor."""
    monkeypatch.setattr(onnxruntime_cuda, "_PROVIDER", "CPUExecutionProvider")
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    graph = emoji_bundle / "onnx/text_encoder.onnx"
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    check_placement("text_encoder", session)
    found = {node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}
    assert {"Attention", "MatMul"} <= found
