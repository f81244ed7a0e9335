"""Fixtures shared by all tests: checkpoints, and bundles built from them once per run of the whole suite."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

ROOT = Path(__file__).parents[1]
EMOJI = ROOT / "examples" / "emoji"

with contextlib.suppress(ModuleNotFoundError):  # the tests for GPUs do without it
    from hypothesis import settings

    # The same examples in every run, so that a failure means a change; `make test-explore` looks for new ones.
    settings.register_profile("repeatable", deadline=None, max_examples=200, derandomize=True)
    settings.register_profile("explore", deadline=None, max_examples=20_000)
    settings.load_profile("repeatable")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # One processor for each worker: torch and ONNX Runtime take one thread for each processor they may use, and their
    # workers spin, so two workers with two threads each would wait for one another most of the time.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})

from latentrt.runtime.device.driver import gpu_target  # noqa: E402  # numpy counts the processors when it is imported

HAS_GPU = gpu_target() is not None
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which diffusers does too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none, before anything is made for them."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skipif(not HAS_GPU, reason="no NVIDIA GPU"))


@pytest.fixture(scope="session")
def emoji_checkpoint() -> Path:
    """The trained checkpoint that the repository ships."""
    return EMOJI


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a parallel run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def once(shared_folder: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)``: a path in the shared folder, made by ``make(path)`` in whichever worker comes first."""

    def get(name: str, make: Callable[[Path], object]) -> Path:
        path = shared_folder / name
        with (shared_folder / f"{name}.once").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(path)
        return path

    return get


@pytest.fixture(scope="session")
def tiny_checkpoint(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """An untrained SDXL whose every dimension differs from the emoji checkpoint's, with weights in fp32."""
    return once("tiny-sdxl", lambda path: _save_tiny_sdxl(path))


@pytest.fixture(scope="session")
def family_checkpoint(once: Callable[[str, Callable[[Path], object]], Path]) -> Callable[[str], Path]:
    """``family_checkpoint(name)``: one of ``tiny_checkpoints.CHECKPOINTS``. Tests must not change it."""

    def get(name: str) -> Path:
        from .tiny_checkpoints import CHECKPOINTS

        return once(f"tiny-{name}", CHECKPOINTS[name])

    return get


@pytest.fixture(scope="session")
def family_bundle(
    once: Callable[[str, Callable[[Path], object]], Path], family_checkpoint: Callable[[str], Path]
) -> Callable[[str], Path]:
    """``family_bundle(name)``: that checkpoint's bundle, for pictures of 16 to 40 pixels. Tests must not change it.

    It is built from the bundle of another one, of which it takes over what they have in common.
    """

    def get(name: str) -> Path:
        base = {"sd1": None, "sd2-depth": "sd2", "sd3": None, "sd3-without-t5": "sd3"}.get(name, "sd1")
        start = None if base is None else get(base)

        def make(path: Path) -> None:
            if start is not None:
                shutil.copytree(start, path)
            _build(family_checkpoint(name), path, aspects="24x24,40x16,16x40")

        return once(f"{name}-bundle", make)

    return get


@pytest.fixture(scope="session")
def emoji_bundle(once: Callable[[str, Callable[[Path], object]], Path], emoji_checkpoint: Path) -> Path:
    """The emoji checkpoint's bundle. Tests must not change it: copy it first."""
    return once("emoji-bundle", lambda path: _build(emoji_checkpoint, path))


@pytest.fixture(scope="session")
def tiny_bundle(once: Callable[[str, Callable[[Path], object]], Path], tiny_checkpoint: Path) -> Path:
    """The untrained checkpoint's bundle. Tests must not change it: copy it first."""
    return once("tiny-bundle", lambda path: _build(tiny_checkpoint, path))


@pytest.fixture(scope="session")
def emoji(emoji_bundle: Path) -> Iterator[Pipeline]:
    """The emoji bundle, loaded."""
    from latentrt.runtime import load

    with load(emoji_bundle) as pipe:
        yield pipe


@pytest.fixture
def start_latentrt() -> Callable[..., subprocess.Popen[str]]:
    """``start_latentrt(*arguments, **options)``: the command in a process of its own, started."""

    def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "latentrt.runtime.cli.main", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, preexec_fn=_interruptible, **pipes, **options)  # type: ignore[call-overload, no-any-return]

    return start


def _interruptible() -> None:
    """A shell starts background jobs with SIGINT ignored, and their children inherit that: CI may be such a job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _build(checkpoint: Path, out: Path, aspects: str | None = None) -> None:
    from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint

    bundle_from_checkpoint(checkpoint, out, BuildOptions(aspects=aspects))


def _save_tiny_sdxl(path: Path) -> None:
    """Two UNet levels and three VAE levels (so a stride of 8), odd widths, and a vocabulary of the real size."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(11)
    text: dict[str, Any] = {
        "vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    first = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, projection_dim=24, **text
        )
    )
    second = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, projection_dim=28,
            hidden_act="gelu", **text,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=24, in_channels=4, out_channels=4, block_out_channels=(32, 48), layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2], attention_head_dim=[2, 3], norm_num_groups=8, cross_attention_dim=64,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=6,
        projection_class_embeddings_input_dim=28 + 6 * 6,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 24, 32), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, norm_num_groups=8, scaling_factor=0.2,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae, text_encoder=first, text_encoder_2=second, unet=unet,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(EMOJI / "tokenizer"),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(EMOJI / "tokenizer_2"),
        scheduler=diffusers.EulerDiscreteScheduler.from_pretrained(EMOJI, subfolder="scheduler"),
        force_zeros_for_empty_prompt=False, add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(path)
