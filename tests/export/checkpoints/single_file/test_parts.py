"""Components from elsewhere, other spellings of the same layout, and text encoders that may be absent."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.checkpoints.pretrained import network_weights
from latentrt.export.checkpoints.single_file.clip_tokenizer import ClipTokenizer
from latentrt.runtime.errors import CheckpointError, RequestError

from .conftest import Saved

State = dict[str, torch.Tensor]


def under(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def without(state: State, *prefixes: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


def same(one: Checkpoint, other: Checkpoint, folder: str) -> bool:
    first, second = network_weights(one, folder), network_weights(other, folder)
    return (
        one.configs[folder] == other.configs[folder]
        and first.keys() == second.keys()
        and all(torch.equal(weight.read(), second[name].read()) for name, weight in first.items())
    )


def saved_as(path: Path, state: State) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize(
    ("family", "old", "new"),
    [
        ("sd1", "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
        ("sd1", "cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
        ("sd2", "cond_stage_model.model.", "conditioner.embedders.0.model."),
        ("sdxl", "first_stage_model.", "vae."),
        ("sdxl", "model.diffusion_model.", "diffusion_model."),
    ],
)
def test_other_spellings(family: str, old: str, new: str, saved: Saved, tmp_path: Path) -> None:
    path = saved(family)[1]
    renamed = {name.replace(old, new): tensor for name, tensor in load_file(path).items()}
    file, usual = read_checkpoint(saved_as(tmp_path / "model.safetensors", renamed)), read_checkpoint(path)
    assert file.family == usual.family
    assert all(same(file, usual, folder) for folder in usual.weights)


def test_what_training_leaves_behind_is_ignored(saved: Saved, tmp_path: Path) -> None:
    path = saved("sd1")[1]
    state = load_file(path)
    extra = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.ones(2),
        "betas": torch.ones(3),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "cond_stage_model.transformer.text_projection.weight": torch.zeros(64, 64),
        "cond_stage_model.logit_scale": torch.tensor(4.6),
    }
    file = read_checkpoint(saved_as(tmp_path / "model.safetensors", {**state, **extra}))
    assert all(same(file, read_checkpoint(path), folder) for folder in file.weights)


@pytest.mark.parametrize(
    ("family", "folder", "prefix"),
    [
        ("sd1", "vae", "first_stage_model."),
        ("sdxl", "vae", "first_stage_model."),
        ("sdxl", "text_encoder", "conditioner.embedders.0.transformer."),
        ("sdxl", "text_encoder_2", "conditioner.embedders.1.model."),
        ("sd2", "text_encoder", "cond_stage_model.model."),
        ("sd3", "text_encoder", "text_encoders.clip_l.transformer."),
        ("sd3", "text_encoder_2", "text_encoders.clip_g.transformer."),
        ("sd3", "text_encoder_3", "text_encoders.t5xxl.transformer."),
    ],
)
def test_a_part_from_elsewhere(family: str, folder: str, prefix: str, saved: Saved, tmp_path: Path) -> None:
    directory, path = saved(family)
    whole, state = read_checkpoint(path), load_file(path)
    rest = saved_as(tmp_path / "rest.safetensors", without(state, prefix))
    own_file = saved_as(tmp_path / "own.safetensors", under(state, prefix))
    for part in (own_file, path):
        read = read_checkpoint(rest, parts={folder: part})
        assert same(read, whole, folder)
        assert read.digest("vae") == whole.digest("vae") or folder == "vae"
    read = read_checkpoint(rest, parts={folder: directory / folder})
    assert read.weights[folder] == (next((directory / folder).glob("*.safetensors")),)
    # The other way round: a part of a file in a folder.
    assert same(read_checkpoint(directory, parts={folder: own_file}), whole, folder)


def test_a_part_that_is_something_else(saved: Saved) -> None:
    sd1, sd3 = saved("sd1")[1], saved("sd3")[1]
    with pytest.raises(CheckpointError, match=r"no text_encoder in this file"):
        read_checkpoint(sd1, parts={"text_encoder": sd3})
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        read_checkpoint(sd1, parts={"vae": sd1.parent / "nothing.safetensors"})


def test_sd3_without_t5(saved: Saved, tmp_path: Path) -> None:
    state = without(load_file(saved("sd3")[1]), "text_encoders.t5xxl.")
    checkpoint = read_checkpoint(saved_as(tmp_path / "model.safetensors", state))
    assert checkpoint.family.name == "sd3"
    assert "text_encoder_3" not in checkpoint.configs
    assert sorted(checkpoint.tokenizers) == ["tokenizer", "tokenizer_2"]


def test_t5s_tokenizer_comes_from_elsewhere(saved: Saved, tmp_path: Path) -> None:
    path = saved("sd3")[1]
    assert "tokenizer_3" not in read_checkpoint(path).tokenizers
    with pytest.raises(CheckpointError, match=r"no tokenizer .* received: a folder without them .* spiece\.model"):
        read_checkpoint(path, parts={"tokenizer_3": tmp_path})
    (tmp_path / "spiece.model").touch()
    assert read_checkpoint(path, parts={"tokenizer_3": tmp_path}).tokenizers["tokenizer_3"] == tmp_path
    state = without(load_file(path), "text_encoders.t5xxl.")
    with pytest.raises(RequestError, match=r"--tokenizer-3 .* a T5 text encoder, which this checkpoint lacks"):
        read_checkpoint(saved_as(tmp_path / "model.safetensors", state), parts={"tokenizer_3": tmp_path})


def test_tokenizers_by_family(saved: Saved) -> None:
    def padding(family: str) -> list[str | Path]:
        tokenizers = read_checkpoint(saved(family)[1]).tokenizers
        return [it.pad_token if isinstance(it, ClipTokenizer) else it for it in tokenizers.values()]

    assert padding("sd1") == ["<|endoftext|>"]
    assert padding("sd2") == ["!"]
    assert padding("sdxl") == padding("sd3") == ["<|endoftext|>", "!"]
    assert padding("sdxl-refiner") == ["!"]


def test_nothing_is_asked_of_the_network(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object) -> None:
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    for family in ("sd2", "sd3"):
        checkpoint = read_checkpoint(saved(family)[1])
        assert all(
            weight.read().numel()
            for folder in checkpoint.weights
            for weight in network_weights(checkpoint, folder).values()
        )
        assert len(checkpoint.tokenizers["tokenizer"].load()) == 49408
