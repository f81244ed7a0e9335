"""Every provider that runs on this machine's GPU draws what ONNX Runtime draws on the processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime import Pipeline, load
from latentrt.runtime.bundles.spec import resolve_shape
from latentrt.runtime.errors import EngineError, LatentRTError, MissingDependencyError, RequestError
from latentrt.runtime.providers import PROVIDERS, import_provider
from latentrt.runtime.providers.choice import choose_provider, engines_here

pytestmark = pytest.mark.gpu

GPU_PROVIDERS = [name for name, info in PROVIDERS.items() if info.needs_gpu]

#: What half precision may cost (cosine distance), of one component and of the whole run.
LIMIT = 1e-3


@pytest.fixture(scope="module", params=GPU_PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def gpu_bundle(provider: str, tmp_path_factory: pytest.TempPathFactory, emoji_checkpoint: Path) -> Path:
    """The emoji checkpoint in fp16 for this provider and this GPU, or a skipped test with the provider's own words."""
    for needed in ("diffusers", "onnx_ir", "onnxruntime"):  # to build bundles, and to compare with the processor
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    from latentrt.export.build_engine import EngineOptions
    from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint

    path = tmp_path_factory.mktemp(provider) / "bundle"
    try:
        bundle_from_checkpoint(emoji_checkpoint, path, BuildOptions(EngineOptions(provider)))
    except (MissingDependencyError, RequestError) as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="module")
def gpu(gpu_bundle: Path, provider: str) -> Iterator[Pipeline]:
    try:
        pipe = load(gpu_bundle, provider=provider, verify=False)
    except LatentRTError as error:
        pytest.skip(str(error))
    with pipe:
        yield pipe


def cosine_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(1 - x @ y / np.sqrt((x @ x) * (y @ y)))


def inputs(pipe: Pipeline, component: str, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for spec in pipe.bundle.manifest.components[component].inputs:
        shape = resolve_shape(spec, dict(sizes))
        if spec.dtype == "int64":
            made[spec.name] = random.integers(0, 1000, shape)
        else:
            made[spec.name] = random.standard_normal(shape, np.float32)
    if "timestep" in made:
        made["timestep"] = np.linspace(10, 990, sizes["rows"], dtype=np.float32)
    return made


@pytest.mark.parametrize("kind", ["min", "opt", "max"])
@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder", "vae_encoder"])
def test_a_component_agrees_with_the_processor(gpu: Pipeline, emoji: Pipeline, component: str, kind: str) -> None:
    profile = gpu.bundle.manifest.components[component].profile
    given = inputs(emoji, component, {axis: getattr(sizes, kind) for axis, sizes in profile.items()}, seed=7)
    of_gpu = {
        spec.name: given[spec.name].astype(spec.dtype) for spec in gpu.bundle.manifest.components[component].inputs
    }
    received, expected = gpu.engines[component].run(of_gpu), emoji.engines[component].run(given)
    for name, values in expected.items():
        assert np.isfinite(received[name]).all(), name
        assert cosine_distance(received[name], values) < LIMIT, name


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_a_run_agrees_with_the_processor(gpu: Pipeline, emoji: Pipeline, size: tuple[int, int]) -> None:
    arguments: dict[str, Any] = {
        "seed": 5, "num_inference_steps": 8, "width": size[0], "height": size[1], "output_type": "latent"
    }  # fmt: skip
    received = gpu(["a rocket", "a fox"], **arguments).images
    assert cosine_distance(received, emoji(["a rocket", "a fox"], **arguments).images) < LIMIT


def test_a_picture_comes_out(gpu: Pipeline, emoji: Pipeline) -> None:
    received, expected = (pipe("a rocket", seed=5, output_type="np").images for pipe in (gpu, emoji))
    assert cosine_distance(received, expected) < LIMIT


def test_sizes_outside_of_the_profile_are_refused(gpu: Pipeline, provider: str) -> None:
    if provider == "onnxruntime-cuda":
        pytest.skip("ONNX Runtime runs graphs, which have no profiles")
    profile = gpu.bundle.manifest.components["denoiser"].profile
    sizes = {axis: allowed.max for axis, allowed in profile.items()} | {"rows": profile["rows"].max + 1}
    shapes = {name: value.shape for name, value in inputs(gpu, "denoiser", sizes, seed=1).items()}
    with pytest.raises(EngineError, match="denoiser: no profile of its engine allows these sizes"):
        gpu.engines["denoiser"].prepare(shapes)


def test_an_engine_that_is_closed_and_loaded_again(gpu: Pipeline, gpu_bundle: Path, provider: str) -> None:
    """The kernels that TensorRT-RTX compiled are read back; a closed engine refuses."""
    record = engines_here(gpu.bundle, provider)["text_encoder"]
    given = inputs(gpu, "text_encoder", {"texts": 1}, seed=3)
    results = []
    module = import_provider(choose_provider(gpu.bundle, provider))
    for _ in range(2):
        engine = module.load_engine(gpu.bundle, record, device=gpu.engines.device, threads=1, options={})
        results.append(engine.run(given))
        engine.close()
        with pytest.raises(EngineError, match="text_encoder: the engine is closed"):
            engine.run(given)
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name])
