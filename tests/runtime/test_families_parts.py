"""Bundles with parts from elsewhere, without one, or with more than their checkpoint has, against diffusers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.runtime import load
from latentrt.runtime.bundles.manifest import SkipLayerGuidance
from latentrt.runtime.errors import RequestError

from ..tiny_checkpoints import save_tiny_vae, save_vae

LATENT_LIMIT = 1e-4
IMAGE_LIMIT = 1e-3
ASPECTS = "24x24,40x16,16x40"  # those of the family bundles: everything that a test does not name is taken over

CALL: dict[str, Any] = {"prompt": "a red fox", "num_inference_steps": 5, "guidance_scale": 4.0}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def reference(path: Path, **components: Any) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(path, **components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def rebuilt(
    tmp_path: Path, family_checkpoint: Callable[[str], Path], family_bundle: Callable[[str], Path]
) -> Callable[..., Path]:
    """``rebuilt(name, *components, **options)``: a copy of a family's bundle with these components built anew."""

    def build(name: str, *components: str, **options: Any) -> Path:
        out = Path(shutil.copytree(family_bundle(name), tmp_path / "bundle"))
        chosen = BuildOptions(aspects=ASPECTS, components=components, **options)
        bundle_from_checkpoint(family_checkpoint(name), out, chosen)
        return out

    return build


def test_an_autoencoder_in_place_of_the_checkpoints(
    rebuilt: Callable[..., Path], family_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    save_vae(tmp_path / "vae")
    bundle = rebuilt("sd1", "vae_decoder", "vae_encoder", parts={"vae": tmp_path / "vae"})
    pipe = reference(family_checkpoint("sd1"), vae=diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae"))
    latents = noise(1, 4, 12, 12)
    expected = pipe(**CALL, width=24, height=24, latents=torch.from_numpy(latents), output_type="np").images
    with load(bundle) as ours:
        received = ours(**CALL, latents=latents, output_type="np").images
    assert np.abs(received - expected).max() <= IMAGE_LIMIT


def test_a_tiny_decoder(rebuilt: Callable[..., Path], family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_vae(tmp_path / "tiny")
    bundle = rebuilt("sd1", "tiny_decoder", parts={"tiny_vae": tmp_path / "tiny"})
    pipe = reference(family_checkpoint("sd1"), vae=diffusers.AutoencoderTiny.from_pretrained(tmp_path / "tiny"))
    latents = noise(1, 4, 8, 20)
    expected = pipe(**CALL, width=40, height=16, latents=torch.from_numpy(latents), output_type="np").images
    with load(bundle) as ours:
        received = ours(**CALL, width=40, height=16, latents=latents, decoder="tiny", output_type="np").images
    assert received.shape == (1, 16, 40, 3)
    assert np.abs(received - expected).max() <= IMAGE_LIMIT


def test_guidance_away_from_skipped_layers(
    rebuilt: Callable[..., Path], family_checkpoint: Callable[[str], Path]
) -> None:
    bundle = rebuilt("sd3", "denoiser", skip_layers=(0, 1))
    pipe = reference(family_checkpoint("sd3"))
    latents = noise(2, 16, 12, 12)
    call = {**CALL, "num_images_per_prompt": 2, "width": 24, "height": 24, "output_type": "latent"}
    skip = {"skip_layer_guidance_scale": 2.0, "skip_layer_guidance_start": 0.01, "skip_layer_guidance_stop": 0.7}
    given = torch.from_numpy(latents)
    expected = pipe(**call, **skip, skip_guidance_layers=[0, 1], latents=given).images.numpy()
    without = pipe(**call, latents=given).images.numpy()
    with load(bundle) as ours:
        assert ours.bundle.manifest.skip_layer_guidance == SkipLayerGuidance((0, 1), 2.8, 0.01, 0.2)
        assert np.abs(ours(**call, **skip, latents=latents).images - expected).max() <= LATENT_LIMIT
        assert np.abs(ours(**call, latents=latents).images - without).max() <= LATENT_LIMIT
    assert np.abs(expected - without).max() > 1e-2


@pytest.mark.parametrize("tokens", [77, 512])
def test_t5_reads_longer_and_shorter_prompts(
    family_checkpoint: Callable[[str], Path], family_bundle: Callable[[str], Path], tokens: int
) -> None:
    pipe = reference(family_checkpoint("sd3"))
    latents = noise(1, 16, 12, 12)
    call = {**CALL, "prompt": "a red fox on a blue house, " * 30, "max_sequence_length": tokens}
    expected = pipe(**call, width=24, height=24, latents=torch.from_numpy(latents), output_type="latent").images.numpy()
    with load(family_bundle("sd3")) as ours:
        received = ours(**call, latents=latents, output_type="latent").images
    assert np.abs(received - expected).max() <= LATENT_LIMIT


def test_t5_is_asked_for_where_it_was_left_out(family_bundle: Callable[[str], Path]) -> None:
    with load(family_bundle("sd3-without-t5")) as ours:
        assert [encoding.tokenizer is None for encoding in ours.bundle.manifest.text_encodings] == [False, False, True]
        with pytest.raises(RequestError, match="max_sequence_length"):
            ours("a fox", max_sequence_length=512)


def test_t5_is_left_out_by_naming_the_others(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    options = BuildOptions(aspects=ASPECTS, components=("text_encoder",), onnx_only=True)
    manifest = bundle_from_checkpoint(family_checkpoint("sd3"), tmp_path / "bundle", options)
    assert [encoding.tokenizer is None for encoding in manifest.text_encodings] == [False, False, True]
    assert sorted(path.name for path in (tmp_path / "bundle" / "tokenizers").iterdir()) == ["tokenizer.json"]
