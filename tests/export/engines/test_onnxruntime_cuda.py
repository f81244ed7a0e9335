"""Engines of ONNX Runtime's CUDA provider: graphs for any GPU, built where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentrt.export import build as building
from latentrt.export.build_engine import EngineOptions, default_precision
from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle
from latentrt.export.engines.onnxruntime_compiler import engine_from_graph
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.device.driver import gpu_target
from latentrt.runtime.errors import EngineError, MissingDependencyError
from latentrt.runtime.providers import import_provider
from latentrt.runtime.providers.choice import choose_provider
from latentrt.runtime.providers.onnxruntime_cuda import provider_settings


@pytest.mark.skipif(gpu_target() is not None, reason="there is a GPU here")
def test_an_engine_is_a_graph_that_any_gpu_runs(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "add_kernels", lambda *_, **__: None)  # for every GPU: they have tests of their own
    options = EngineBuildOptions(EngineOptions("onnxruntime-cuda"), components=("text_encoder",))
    bundle_from_bundle(emoji_bundle, tmp_path / "bundle", options)
    bundle = open_bundle(tmp_path / "bundle")
    record = bundle.engines("onnxruntime-cuda")["text_encoder"]
    assert (record.targets, record.gate, record.not_run) == ((), (), "it was built without a GPU")
    assert bundle.engines("onnxruntime-cuda", "sm90") == {"text_encoder": record}
    weights = {name: bundle.map(name) for name in record.weights}
    contract = bundle.manifest.components["text_encoder"]
    engine = engine_from_graph("text_encoder", bundle.read(record.path), weights, contract)
    assert np.isfinite(engine.run({"input_ids": np.arange(77)[np.newaxis]})["hidden_states"]).all()
    engine.close()
    with pytest.raises(EngineError, match="onnxruntime-cuda needs an NVIDIA GPU"):
        choose_provider(bundle, "onnxruntime-cuda")


def test_half_precision_is_what_it_is_used_with() -> None:
    assert default_precision("onnxruntime-cuda") == "fp16"


def test_the_package_for_processors_does_not_do() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    says = r"needs onnxruntime-gpu \| received: onnxruntime .*latentrt\[cuda\]"
    with pytest.raises(MissingDependencyError, match=says):
        import_provider("onnxruntime-cuda").check([])


def test_settings_of_the_caller_come_last() -> None:
    options = {"cudnn_conv_algo_search": "EXHAUSTIVE", "enable_cuda_graph": "1"}
    settings = provider_settings(0x7F10, options, precision="fp16", records=False)
    assert settings["user_compute_stream"] == str(0x7F10)
    assert settings["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert settings["enable_cuda_graph"] == "1"


def test_fp32_is_not_rounded_to_tf32() -> None:
    flags = [provider_settings(0, {}, precision=name, records=False)["use_tf32"] for name in ("fp32", "fp16")]
    assert flags == ["0", "1"]
