"""What the builder is told, and what it makes of a graph: the library's own objects, without a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from latentrt.export.engines.tensorrt.build import BuilderOptions, EngineTask, build_engine
from latentrt.export.engines.tensorrt.builder import builder_log, set_options
from latentrt.export.engines.tensorrt.compiler import expected_types, heavy_types
from latentrt.export.engines.tensorrt.library import import_library
from latentrt.export.engines.tensorrt.network import add_profiles, check_types, parse
from latentrt.runtime.bundles.spec import AxisRange
from latentrt.runtime.errors import ExportError

from .one_convolution import HALF, PROFILE

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")

#: Every kind of heavy node, the last of each in fp32.
PARTLY_HALF = """<ir_version: 10, opset_import: ["" : 23]>
graph (float16[rows, 4, height, width] sample) => (float[rows, 4, height, width] model_output)
<float16[4, 4, 1, 1] kernel = {KERNEL}, float16[4, 4] weight = {KERNEL}> {
   wide_kernel = Cast <to = 1> (kernel)
   wide_weight = Cast <to = 1> (weight)
   [half_conv] a = Conv (sample, kernel)
   [half_deconv] b = ConvTranspose (a, kernel)
   [half_matmul] c = MatMul (b, weight)
   [half_einsum] d = Einsum <equation = "rcwi,ij->rcwj"> (c, weight)
   [half_attention] e = Attention (d, d, d)
   f = Cast <to = 1> (e)
   [wide_conv] g = Conv (f, wide_kernel)
   [wide_deconv] h = ConvTranspose (g, wide_kernel)
   [wide_matmul] i = MatMul (h, wide_weight)
   [wide_einsum] model_output = Einsum <equation = "rcwi,ij->rcwj"> (i, wide_weight)
}"""


def test_a_graph_that_is_left_in_fp32_in_part_is_refused_with_each_name(task: EngineTask) -> None:
    ir.save(ir.from_onnx_text(PARTLY_HALF.replace("KERNEL", ", ".join([HALF] * 16))), task.graph)
    half = [f"half_{name}" for name in ("conv", "deconv", "matmul", "einsum", "attention")]
    wide = [f"wide_{name}" for name in ("conv", "deconv", "matmul", "einsum")]
    library = import_library("tensorrt-rtx")
    log = builder_log(library, lambda line: None)
    builder = library.module.Builder(log)
    network = library.create_network(builder)
    parser = parse(library, network, log, task.graph)
    types = {**dict.fromkeys(half, "float16"), **dict.fromkeys(wide, "float32")}
    assert check_types("denoiser", network, types) == len(types)
    expected = "; ".join(f"{name} in float32, not float16" for name in wide)
    with pytest.raises(ExportError, match=f"received: {expected} "):
        check_types("denoiser", network, dict.fromkeys(types, "float16"))
    del parser, network, builder


def test_each_warning_and_each_error_of_the_builder_is_kept_once() -> None:
    library, lines = import_library("tensorrt-rtx"), list[str]()
    log, severity = builder_log(library, lines.append), library.module.ILogger
    for text in ("a weight was rounded", "a weight was clipped", "a weight was rounded"):
        log.log(severity.WARNING, text)
    log.log(severity.VERBOSE, "details")
    assert log.reason() == "no reason given"
    for text in ("OutOfMemory", "it failed", "it failed"):
        log.log(severity.ERROR, text)
    assert list(log.warnings) == ["a weight was rounded", "a weight was clipped"]
    assert lines == [
        "a weight was rounded",
        "a weight was clipped",
        "a weight was rounded",
        "OutOfMemory",
        *["it failed"] * 2,
    ]
    assert log.reason() == "OutOfMemory; it failed"


def test_heavy_types_are_those_of_the_graph(task: EngineTask) -> None:
    assert heavy_types(ir.load(task.graph)) == {"the_convolution": "float16"}


def test_a_rewrite_that_leaves_a_node_in_fp32_is_found(task: EngineTask, tmp_path: Path) -> None:
    """What is expected comes from the portable graph, and from the precision for nodes that replace others."""
    portable, rewritten = ir.load(task.graph), ir.load(task.graph)
    (node, *_) = rewritten.graph
    node.outputs[0].dtype = ir.DataType.FLOAT
    assert expected_types(portable, rewritten, "fp16") == {"the_convolution": "float16"}
    node.name = "instead_of_another"
    assert expected_types(portable, rewritten, "bf16") == {"instead_of_another": "bfloat16"}


def test_an_engine_takes_no_memory_while_it_runs() -> None:
    """Or its runs cannot be recorded; whether they can be is only known where there is a GPU."""
    library = import_library("tensorrt-rtx")
    config = library.module.Builder(builder_log(library, lambda line: None)).create_builder_config()
    set_options(library, config, BuilderOptions(), tf32=True)
    assert config.get_flag(library.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert config.get_preview_feature(library.module.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10)


@pytest.mark.parametrize("tf32", [True, False])
def test_products_of_fp32_are_rounded_to_tf32_where_that_is_allowed(tf32: bool) -> None:
    library = import_library("tensorrt-rtx")
    config = library.module.Builder(builder_log(library, lambda line: None)).create_builder_config()
    set_options(library, config, BuilderOptions(), tf32=tf32)
    assert config.get_flag(library.module.BuilderFlag.TF32) == tf32


def test_the_gpu_of_this_machine_is_named_by_what_the_library_calls_it() -> None:
    library = import_library("tensorrt-rtx")
    config = library.module.Builder(builder_log(library, lambda line: None)).create_builder_config()
    capabilities = library.module.ComputeCapability
    for targets, expected in (
        (("sm86", "sm89"), [capabilities.SM86, capabilities.SM89]),
        (("sm90",), [capabilities.CURRENT]),
    ):
        assert library.set_targets(config, targets)
        assert [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)] == expected


def test_profiles_are_what_the_manifest_says(task: EngineTask) -> None:
    """What the library is told, as it tells it again: built engines are only read where there is a GPU."""
    library = import_library("tensorrt-rtx")
    builder = library.module.Builder(builder_log(library, lambda line: None))
    config = builder.create_builder_config()
    made = []

    class Recorder:
        def create_optimization_profile(self) -> Any:
            made.append(builder.create_optimization_profile())
            return made[-1]

    narrow = {**PROFILE, "width": AxisRange(8, 8, 8)}
    add_profiles(Recorder(), config, task.inputs, (PROFILE, narrow))
    assert config.num_optimization_profiles == 2
    assert [[tuple(shape) for shape in profile.get_shape("sample")] for profile in made] == [
        [(1, 4, 8, 8), (2, 4, 16, 16), (4, 4, 24, 24)],
        [(1, 4, 8, 8), (2, 4, 16, 8), (4, 4, 24, 8)],
    ]


@pytest.mark.gpu
def test_a_built_engine_is_what_the_manifest_says(task: EngineTask) -> None:
    """Its inputs, outputs, types and ranges, and the type of its convolution, read from the engine itself."""
    library = import_library("tensorrt-rtx")
    build_engine(replace(task, targets=library.check_targets(())))
    trt, log = library.module, builder_log(library, lambda line: None)
    engine = trt.Runtime(log).deserialize_cuda_engine(task.out.read_bytes())
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    assert names == ["sample", "model_output"]
    assert {engine.get_tensor_dtype(name).name for name in names} == {"HALF"}
    assert tuple(engine.get_tensor_shape("sample")) == (-1, 4, -1, -1)
    shapes = [tuple(shape) for shape in engine.get_tensor_profile_shape("sample", 0)]
    assert shapes == [(1, 4, 8, 8), (2, 4, 16, 16), (4, 4, 24, 24)]
    layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.ONELINE)
    assert "the_convolution" in layers
