"""The published networks in full size, with random weights: they export in the memory and the time that is promised.

Each is exported in a process of its own, whose peak of memory is then its own, and prints its figures.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from latentrt.export.engines.tensorrt.build import EngineTask, build_engine
from latentrt.export.engines.tensorrt.compiler import heavy_types
from latentrt.export.estimates import engine_memory
from latentrt.export.graphs.flops import graph_work
from latentrt.export.graphs.rewrites import for_tensorrt
from latentrt.export.memory import available_memory
from latentrt.export.networks.skeleton import skeleton
from latentrt.runtime.bundles.spec import AxisRange

from .expected_flops import decoder_flops, mmdit_flops, unet_flops
from .full_size import AUTOENCODERS, DENOISERS, SD35_LARGE, component

#: How many parameters are published. The refiner's is counted from its config.
PARAMETERS = {
    ("sd1", "denoiser"): 859_520_964,
    ("sd2", "denoiser"): 865_910_724,
    ("sdxl", "denoiser"): 2_567_463_684,
    ("sd3", "denoiser"): 2_028_328_000,
    ("sd1", "vae_decoder"): 49_490_199,
}

EXPORTS = [*((family, "denoiser") for family in DENOISERS), *((family, "vae_decoder") for family in AUTOENCODERS)]

#: Seconds of processor time. SDXL's denoiser takes 113 (95 of wall time) on two cores of an AMD EPYC.
_LONGEST = 240


@pytest.mark.parametrize("family", DENOISERS)
def test_networks_have_the_published_number_of_parameters(family: str) -> None:
    parameters = sum(math.prod(weight.shape) for weight in component(family, "denoiser", "fp16").weights().values())
    assert parameters == PARAMETERS.get((family, "denoiser"), parameters)
    assert parameters > 8e8


def test_what_stable_diffusion_35_large_needs() -> None:
    import diffusers

    network = skeleton(diffusers.SD3Transformer2DModel, SD35_LARGE)
    weights = 2 * sum(parameter.numel() for parameter in network.parameters())
    assert weights == pytest.approx(16.1e9, rel=0.01)  # bytes in fp16
    assert 1.3 * weights + 2e9 == pytest.approx(23e9, rel=0.01)  # the most memory that its export may take
    assert engine_memory(weights) == pytest.approx(55e9, rel=0.02)  # what building its engine is estimated to take


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), EXPORTS)
def test_a_full_size_network_exports_in_half_precision(family: str, name: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("full_size.py")
    command = [sys.executable, "-P", str(script), family, name, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    figures = json.loads(result.stdout.splitlines()[-1])
    print(f"\n{family} {name}: {figures}")
    assert figures["peak_memory"] < 1.3 * figures["bytes"] + 2e9
    assert figures["cpu_s"] < _LONGEST

    path = tmp_path / "onnx" / f"{name}.onnx"
    onnx.checker.check_model(path, full_check=True)
    initializers = ir.load(path).graph.initializers
    weights = component(family, name, "fp16").weights()
    used = {value.name.removesuffix(".T").split(".", 1)[1] for value in initializers.values() if "." in value.name}
    held = sum(math.prod(weights[weight].shape) for weight in used & weights.keys())
    assert held == PARAMETERS.get((family, name), held)
    if name == "denoiser":
        assert held == sum(math.prod(weight.shape) for weight in weights.values())

    if name == "denoiser":
        sizes = {"rows": 2, "height": 128, "width": 96, "tokens": 77}
        flops = mmdit_flops if family == "sd3" else unet_flops
        expected = flops(DENOISERS[family], **sizes)
    else:
        sizes = {"images": 1, "height": 128, "width": 96}
        expected = decoder_flops(AUTOENCODERS[family], **sizes)
    assert graph_work(path, sizes).flops == pytest.approx(expected, rel=0.01)
    _build(family, name, path)


def _build(family: str, name: str, path: Path) -> None:
    """Build the engine for one target, if the library is there and the machine can."""
    pytest.importorskip("tensorrt_rtx")
    needed, available = (
        engine_memory(sum(file.stat().st_size for file in path.parent.rglob("*.bin"))),
        available_memory(),
    )
    if needed > available:
        pytest.skip(f"building the engine takes about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available")
    model, half = for_tensorrt(ir.load(path)), component(family, name, "fp16")
    graph = path.with_name("rewritten.onnx")  # beside its weights
    ir.save(model, graph)
    profile = {
        "rows": AxisRange(1, 2, 4), "images": AxisRange(1, 1, 2), "tokens": AxisRange(77, 77, 308),
        "height": AxisRange(32, 64, 128), "width": AxisRange(32, 64, 128),
    }  # fmt: skip
    task = EngineTask(
        "tensorrt-rtx", name, graph, path.with_name("engine"), half.inputs, half.outputs, (profile,), ("sm89",),
        heavy_types(model),
    )  # fmt: skip
    figures = build_engine(task)
    print(f"{family} {name}: engine {task.out.stat().st_size / 1e9:.2f} GB, {figures}")
    assert figures.heavy_layers == len(heavy_types(model))
    task.out.unlink()
