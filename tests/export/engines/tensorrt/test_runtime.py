"""What the runtime makes of a real engine's record: its profile, its buffers, its kernels, and whether it runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentrt.export.build_engine import EngineOptions
from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle
from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.bundles.kernels import kernels_of
from latentrt.runtime.cli.inspect import inspect
from latentrt.runtime.device.driver import gpu_target
from latentrt.runtime.errors import BundleError, EngineError
from latentrt.runtime.providers import choice
from latentrt.runtime.providers.choice import choose_provider, engines_here
from latentrt.runtime.providers.contract import axis_sizes, output_shapes, profile_for
from latentrt.runtime.providers.tensorrt_library import library_for

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, emoji_bundle: Path) -> Bundle:
    """The emoji decoder with a profile for each bucket, for two GPUs."""
    path = tmp_path_factory.mktemp("runtime") / "bundle"
    engine = EngineOptions("tensorrt-rtx", ("sm89", "sm120"), profiles="buckets")
    bundle_from_bundle(emoji_bundle, path, EngineBuildOptions(engine, components=("vae_decoder",)))
    return open_bundle(path)


def test_every_bucket_gets_the_profile_that_was_made_for_it(bundle: Bundle) -> None:
    record = bundle.engines("tensorrt-rtx")["vae_decoder"]
    contract, scale = bundle.manifest.components["vae_decoder"], bundle.manifest.latent_space.scale
    assert len(record.profiles) > 1
    for width, height in bundle.manifest.buckets:
        shape = (1, contract.inputs[0].shape[1], height // scale, width // scale)
        assert isinstance(shape[1], int)
        sizes = axis_sizes("vae_decoder", contract, {"latents": (1, shape[1], shape[2], shape[3])})
        chosen = record.profiles[profile_for("vae_decoder", record.profiles, sizes)]
        assert (chosen["height"].opt, chosen["width"].opt) == (height // scale, width // scale)
        assert output_shapes(contract, sizes)["image"] == ((1, 3, height, width), np.dtype(np.float32))


def test_a_size_between_the_buckets_is_refused(bundle: Bundle) -> None:
    record = bundle.engines("tensorrt-rtx")["vae_decoder"]
    with pytest.raises(EngineError, match=r"vae_decoder: no profile of its engine allows these sizes .* --aspects"):
        profile_for("vae_decoder", record.profiles, {"images": 1, "height": 1, "width": 1})


def test_the_library_that_built_it_runs_it(bundle: Bundle) -> None:
    record = bundle.engines("tensorrt-rtx")["vae_decoder"]
    library = library_for(record)
    assert (library.name, library.version) == ("tensorrt_rtx", record.provider_version)


def test_its_kernels_come_with_it(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = kernels_of(bundle)
    assert kernels is not None
    assert kernels.select("image_from_decoded", "float32", "sm120").target == "sm120"
    assert kernels.read(kernels.select("image_from_decoded", "float32", "sm89").file).startswith(b"\x7fELF")
    inspect(bundle.path, verify=False)
    assert "kernels for sm89, sm120, ptx, of float32, by Triton" in capsys.readouterr().out


def test_it_is_for_the_gpus_that_were_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "gpu_target", lambda: "sm120")
    assert set(engines_here(bundle, "tensorrt-rtx")) == {"vae_decoder"}
    monkeypatch.setattr(choice, "gpu_target", lambda: "sm90")
    with pytest.raises(BundleError, match=r"vae_decoder has no .* received: engines for sm89, sm120 \| expected: sm90"):
        engines_here(bundle, "tensorrt-rtx")


@pytest.mark.skipif(gpu_target() is not None, reason="there is a GPU here")
def test_without_a_gpu_it_is_refused_before_the_library_is_asked(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"tensorrt-rtx needs an NVIDIA GPU .* received: no driver"):
        choose_provider(bundle, "tensorrt-rtx")
