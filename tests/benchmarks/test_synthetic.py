"""Checkpoints with random weights: those of the published sizes by their configs, small ones by what they draw."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import transformers

from latentrt.benchmarks import gpu
from latentrt.benchmarks.baselines import Missing, provider_side, sides_named
from latentrt.benchmarks.gpu import GpuWishes, cannot_run, gpu_providers, prepare_model
from latentrt.benchmarks.prepare import Prepared, Wishes, prepare
from latentrt.benchmarks.published import MODELS, Published
from latentrt.benchmarks.sides.diffusers_pipeline import open_side
from latentrt.benchmarks.statistics import shows
from latentrt.benchmarks.synthetic import synthetic_checkpoint
from latentrt.benchmarks.workload import Ask, Start, Workload
from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.networks.skeleton import skeleton
from latentrt.runtime.cli.main import main
from latentrt.runtime.errors import EngineError

PARAMETERS = {"sd1": 859_520_964, "sdxl": 2_567_463_684, "sd3": 2_028_328_000, "sd3-t5": 2_028_328_000}
T5_XXL = 4_762_310_656

_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT |= {"projection_dim": 16}
_BLOCKS = {
    "block_out_channels": [32, 32], "layers_per_block": 1, "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
_SMALL: dict[str, dict[str, Any]] = {
    "unet": _BLOCKS,
    "transformer": {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "caption_projection_dim": 16,
        "joint_attention_dim": 32, "pooled_projection_dim": 32, "pos_embed_max_size": 16, "sample_size": 8,
    },
    "vae": {
        "block_out_channels": [32] * 4, "layers_per_block": 1, "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT,
    "text_encoder_3": {"vocab_size": 160, "d_model": 32, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 3},
}  # fmt: skip
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 16},
    "sdxl": {
        "cross_attention_dim": 32, "transformer_layers_per_block": 1, "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    },
    "sd3": {},
}  # fmt: skip


def small(name: str) -> Published:
    """The same model with small networks."""
    model = MODELS[name]
    sizes = {folder: {**config, **_SMALL[folder]} for folder, config in model.sizes.items()}
    denoiser = "transformer" if model.family == "sd3" else "unet"
    sizes[denoiser] |= _OF_FAMILY[model.family]
    return replace(model, sizes=sizes, side=64, steps=2)


@pytest.mark.parametrize("name", MODELS)
def test_denoisers_have_the_published_number_of_parameters(name: str) -> None:
    model = MODELS[name]
    config = model.config("transformer" if model.family == "sd3" else "unet")
    network = skeleton(getattr(diffusers, config["_class_name"]), config)
    assert sum(math.prod(weight.shape) for weight in network.parameters()) == PARAMETERS[name]


def test_t5_has_the_published_number_of_parameters() -> None:
    network = skeleton(transformers.T5EncoderModel, MODELS["sd3-t5"].config("text_encoder_3"))
    assert sum(math.prod(weight.shape) for weight in network.parameters()) == T5_XXL


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_draws_with_a_checkpoint_of_random_weights(name: str, tmp_path: Path) -> None:
    synthetic_checkpoint(small(name), tmp_path / name)
    assert read_checkpoint(tmp_path / name).family.name == MODELS[name].family
    work = Workload("a fox", 64, 64, 2, 7.0, 1)
    options = {"device": "cpu", "precision": "fp32"}
    side = open_side(Start(str(tmp_path / name), 1, work, str(tmp_path), options))
    drawn = side.draw(Ask(work, noise="numpy"))
    assert {"text", "denoise", "decode", "postprocess"} <= drawn.stages.keys()
    assert np.ptp(np.asarray(drawn.pictures[0])) > 25
    latents = side.draw(Ask(work, noise="numpy", give="latents")).latents
    assert latents is not None
    assert np.isfinite(latents).all()


def test_the_same_model_gives_the_same_files_and_one_that_is_there_stays(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        synthetic_checkpoint(small("sd1"), tmp_path / name)
        files = sorted((tmp_path / name).rglob("*.safetensors"))
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3
    before = (tmp_path / "a" / "model_index.json").stat().st_mtime_ns
    synthetic_checkpoint(small("sd1"), tmp_path / "a")
    assert (tmp_path / "a" / "model_index.json").stat().st_mtime_ns == before


def test_providers_whose_engines_cannot_be_built_are_told(tmp_path: Path) -> None:
    """With the processor in the place of a GPU: what is built, planned and left out is found out the same way."""
    said: list[str] = []
    wishes = GpuWishes(providers=("onnxruntime-cpu", "no-such-provider"), runs=1)
    prepared = prepare_model(small("sd1"), tmp_path, wishes, said.append)
    assert "Stable Diffusion 1.5: engines of no-such-provider" in said
    assert "Stable Diffusion 1.5: unet" in said
    plan = prepared.plan
    assert (plan.provider, plan.device, plan.precision) == ("onnxruntime-cpu", "cpu", "fp32")
    assert {component.precision for component in plan.bundle.manifest.components.values()} >= {"fp16"}
    assert (plan.workload.width, plan.workload.num_inference_steps, plan.workload.guidance_scale) == (64, 2, 7.5)
    assert [side.side.name for side in plan.sides][:2] == ["latentrt", "diffusers"]
    missing = {gone.side.name: gone.reason for gone in prepared.missing}
    assert "received: no-such-provider" in missing["latentrt-no-such-provider"]


def test_a_model_that_no_provider_runs_says_why_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "bundle_from_checkpoint", lambda *arguments: None)  # so there is no bundle to build for
    with pytest.raises(EngineError) as error:
        prepare_model(small("sd1"), tmp_path, GpuWishes(("onnxruntime-cpu", "tensorrt-rtx")), lambda text: None)
    assert "Stable Diffusion 1.5: no provider runs here" in str(error.value)
    assert str(error.value).count("engines cannot be built") == 2


def test_what_a_provider_said_when_it_could_not_run_is_kept(tmp_path: Path) -> None:
    reason = cannot_run(tmp_path / "none", "onnxruntime-cpu", small("sd1"))
    assert reason.startswith("does not run: error: ")
    assert "no bundle here" in reason


def test_one_reason_is_told_of_a_provider_that_is_missing(emoji_bundle: Path, emoji_checkpoint: Path) -> None:
    """The plan finds out by itself that a provider cannot run; whoever tried it knows more."""
    prepared = prepare(emoji_bundle, emoji_checkpoint, Wishes(sides=("diffusers",)))
    side = provider_side("onnxruntime-cuda")
    tried = prepared.without([Missing(side, "not installed")]).without([Missing(side, "does not run")])
    assert [missing.reason for missing in tried.missing if missing.side.name == side.name] == ["does not run"]
    assert len(tried.missing) == len(prepared.missing) + 1


def test_a_model_that_breaks_does_not_keep_the_next_one_from_being_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentrt.benchmarks import cli_gpu

    def broken(model: Published, *_: object) -> None:
        raise {"sd1": ValueError("of a library"), "sdxl": EngineError("of ours")}[model.family]

    monkeypatch.setattr(cli_gpu, "gpu_target", lambda: "sm90")
    monkeypatch.setattr(gpu, "prepare_model", broken)
    command = ["bench", "gpu", "--out", str(tmp_path / "out"), "--work", str(tmp_path), "--model", "sd1"]
    assert main([*command, "--model", "sdxl"]) == 1
    told = capsys.readouterr().err
    assert "failed: Stable Diffusion 1.5: ValueError: of a library" in told
    assert "failed: SDXL: of ours" in told


@pytest.mark.parametrize(("wished", "sides"), [(("diffusers-compile",), 1), ((), 0)])
def test_the_compiled_side_can_be_left_out(
    wished: tuple[str, ...], sides: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Wishes] = []

    def prepared(bundle: Path, checkpoint: Path, wishes: Wishes, progress: object) -> Prepared:
        asked.append(wishes)
        raise EngineError("enough")

    for name in ("synthetic_checkpoint", "bundle_from_checkpoint"):
        monkeypatch.setattr(gpu, name, lambda *arguments: None)
    monkeypatch.setattr(gpu, "_cannot_build", lambda *arguments: "")
    monkeypatch.setattr(gpu, "cannot_run", lambda *arguments: "")
    monkeypatch.setattr(gpu, "prepare", prepared)
    with pytest.raises(EngineError, match="enough"):
        prepare_model(small("sd1"), tmp_path, GpuWishes(("tensorrt",), wished), lambda text: None)
    (wishes,) = asked
    assert ("diffusers-compile" in [side.name for side in sides_named(wishes.sides, {})]) == bool(sides)
    assert "kernels" in wishes.suites
    assert shows(95, wishes.runs)


def test_the_command_line_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentrt.benchmarks import cli_gpu

    asked: list[tuple[str, tuple[str, ...]]] = []

    def prepared(model: Published, work: Path, wishes: GpuWishes, progress: object) -> Prepared:
        asked.append((model.name, wishes.sides))
        raise EngineError("enough")

    monkeypatch.setattr(cli_gpu, "gpu_target", lambda: "sm90")
    monkeypatch.setattr(gpu, "prepare_model", prepared)
    assert main(["bench", "gpu", "--out", str(tmp_path / "out"), "--no-compiled"]) == 1
    assert main(["bench", "gpu", "--out", str(tmp_path / "out"), "--model", "sd3-t5"]) == 1
    assert asked == [("sd1", ()), ("sdxl", ()), ("sd3", ()), ("sd3-t5", ("diffusers-compile",))]


def test_providers_for_gpus_are_known() -> None:
    assert gpu_providers()
    assert "onnxruntime-cpu" not in gpu_providers()


def test_what_cannot_be_measured_or_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentrt.benchmarks import cli_gpu

    monkeypatch.setattr(cli_gpu, "gpu_target", lambda: None)
    assert main(["bench", "gpu", "--out", str(tmp_path / "gpu")]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert main(["bench", "gpu", "--out", str(tmp_path / "gpu"), "--model", "sd9"]) == 2
    assert "model | received: sd9 | expected: sd1, sdxl, sd3, sd3-t5" in capsys.readouterr().err
    assert main(["bench", "synthetic", "sd1", "--out", str(tmp_path)]) == 2
    assert "something that is there" in capsys.readouterr().err
    assert not (tmp_path / "gpu").exists()
