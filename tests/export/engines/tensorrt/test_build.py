"""Real engines of TensorRT-RTX, built ahead of time for GPUs that are not here."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from latentrt.export.engines.tensorrt.build import BuilderOptions, EngineTask, build_engine
from latentrt.export.engines.tensorrt.builder import _set_options, builder_log
from latentrt.export.engines.tensorrt.compiler import expected_types, heavy_types
from latentrt.export.engines.tensorrt.library import import_library
from latentrt.export.engines.tensorrt.network import add_profiles, check_types, parse
from latentrt.runtime.bundles.spec import AxisRange, TensorSpec
from latentrt.runtime.errors import ExportError, OutputError

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")

SAMPLE = TensorSpec("sample", "float16", ("rows", 4, "height", "width"))
OUTPUT = TensorSpec("model_output", "float16", ("rows", 8, "height", "width"))
PROFILE = {"rows": AxisRange(1, 2, 4), "height": AxisRange(8, 16, 24), "width": AxisRange(8, 16, 24)}

HALF = "14336"  # the bits of 0.5, which is what the text format wants of float16

GRAPH = """<ir_version: 10, opset_import: ["" : 23]>
graph (float16[rows, 4, height, width] sample) => (float16[rows, 8, height, width] model_output)
<float16[8, 4, 3, 3] kernel = {KERNEL}> {
   [the_convolution] hidden = Conv <pads = [1, 1, 1, 1]> (sample, kernel)
   [the_activation] model_output = OPERATOR (hidden)
}"""


def write_graph(folder: Path, operator: str = "Relu") -> Path:
    text = GRAPH.replace("KERNEL", ", ".join([HALF] * 8 * 4 * 9)).replace("OPERATOR", operator)
    path = folder / "denoiser.onnx"
    ir.save(ir.from_onnx_text(text), path)
    return path


@pytest.fixture
def task(tmp_path: Path) -> EngineTask:
    return EngineTask(
        provider="tensorrt-rtx",
        component="denoiser",
        graph=write_graph(tmp_path),
        out=tmp_path / "engines" / "denoiser.engine",
        inputs=(SAMPLE,),
        outputs=(OUTPUT,),
        profiles=(PROFILE,),
        targets=("sm89",),
        types={"the_convolution": "float16"},
    )


def test_an_engine_is_written_and_its_build_is_measured(task: EngineTask) -> None:
    phases: list[tuple[str, float]] = []
    figures = build_engine(task, lambda *progress: phases.append(progress))
    assert task.out.stat().st_size > 1000
    assert figures.seconds > 0
    assert figures.peak_memory > 50 << 20
    assert figures.heavy_layers == 1
    assert phases
    assert all(0 <= fraction <= 1 for _, fraction in phases)


def test_one_engine_for_several_gpus_holds_its_weights_once(task: EngineTask, tmp_path: Path) -> None:
    build_engine(task)
    several = replace(task, out=tmp_path / "several.engine", targets=("sm86", "sm89", "sm120"))
    build_engine(several)
    assert several.out.stat().st_size < 1.1 * task.out.stat().st_size


def test_the_same_build_twice_gives_the_same_bytes(task: EngineTask, tmp_path: Path) -> None:
    again = replace(task, out=tmp_path / "again.engine")
    build_engine(task)
    build_engine(again)
    assert again.out.read_bytes() == task.out.read_bytes()


def test_several_profiles(task: EngineTask) -> None:
    fixed = {axis: AxisRange(allowed.opt, allowed.opt, allowed.opt) for axis, allowed in PROFILE.items()}
    build_engine(replace(task, profiles=(PROFILE, fixed)))
    assert task.out.is_file()


def test_a_graph_that_computes_in_another_type_than_it_should_is_named(task: EngineTask) -> None:
    with pytest.raises(ExportError, match="the_convolution in float16, not float32"):
        build_engine(replace(task, types={"the_convolution": "float32"}))
    with pytest.raises(ExportError, match="no layer for another_node"):
        build_engine(replace(task, types={**task.types, "another_node": "float16"}))
    with pytest.raises(ExportError, match="the_convolution in float16, not in the graph"):
        build_engine(replace(task, types={}))
    assert not task.out.exists()


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


def test_a_contract_that_the_graph_does_not_have(task: EngineTask) -> None:
    wrong = TensorSpec("sample", "float32", SAMPLE.shape)
    with pytest.raises(ExportError, match=r"sample float16\[-1, 4, -1, -1\].*expected: .*sample float32"):
        build_engine(replace(task, inputs=(wrong,)))


def test_an_operator_that_tensorrt_does_not_have_is_named(task: EngineTask, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the_activation.*NoSuchOperator"):
        build_engine(replace(task, graph=write_graph(tmp_path, "NoSuchOperator")))


def test_a_builder_that_is_killed_is_an_error_with_its_memory_and_its_last_words(task: EngineTask) -> None:
    def kill(phase: str, fraction: float) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    words = r"denoiser: .*tensorrt-rtx engine failed.*SIGKILL, with 0\.[1-9] GB of memory taken of the .*log: .*memory"
    with pytest.raises(ExportError, match=words):
        build_engine(task, kill)
    assert not task.out.parent.exists()


def test_any_failure_of_the_builder_is_told_with_the_component_and_the_provider(
    task: EngineTask, capfd: pytest.CaptureFixture[str]
) -> None:
    nonsense: Any = 0
    with pytest.raises(ExportError, match=r"denoiser: .*tensorrt-rtx engine failed .* received: TypeError: .*; log: "):
        build_engine(replace(task, profiles=nonsense))
    assert "Traceback" not in capfd.readouterr().err


def test_an_engine_that_cannot_be_written(task: EngineTask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"denoiser.engine: cannot be written .* make room"):
        build_engine(replace(task, out=tmp_path / "file" / "denoiser.engine"))


def test_a_disk_that_is_full_leaves_no_half_engine(task: EngineTask) -> None:
    """The builder inherits how large its files may be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"denoiser.engine: cannot be written .* File too large .* make room"):
            build_engine(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(task.out.parent.iterdir()) == []


def test_the_builder_ends_with_a_build_that_is_killed(task: EngineTask) -> None:
    """Else it would go on writing into a folder that the next build of the same bundle uses."""
    script = task.out.parent.with_name("build.py")
    script.write_text(BUILD_UNTIL_KILLED)
    script.with_suffix(".pickle").write_bytes(pickle.dumps(task))
    parent = subprocess.Popen([sys.executable, "-P", script])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    builder = wait_for(lambda: [pid for pid in children.read_text().split() if is_builder(pid)])[0]
    os.kill(int(builder), signal.SIGSTOP)  # so that it cannot end by itself
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not Path(f"/proc/{builder}").exists() or state(builder) == "Z")
    assert not task.out.exists()


BUILD_UNTIL_KILLED = """
import pickle
from pathlib import Path
from latentrt.export.engines.tensorrt.build import build_engine

if __name__ == "__main__":
    while True:
        build_engine(pickle.loads(Path(__file__).with_suffix(".pickle").read_bytes()))
"""


def is_builder(pid: str) -> bool:
    """Whether a process has loaded TensorRT. (One that has ended has loaded nothing.)"""
    try:
        return "libtensorrt" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_each_warning_of_the_builder_is_kept_once() -> None:
    library, lines = import_library("tensorrt-rtx"), list[str]()
    log, severity = builder_log(library, lines.append), library.module.ILogger
    for text in ("a weight was rounded", "a weight was clipped", "a weight was rounded"):
        log.log(severity.WARNING, text)
    log.log(severity.VERBOSE, "details")
    log.log(severity.ERROR, "it failed")
    assert list(log.warnings) == ["a weight was rounded", "a weight was clipped"]
    assert lines == ["a weight was rounded", "a weight was clipped", "a weight was rounded", "it failed"]
    assert log.last_error == "it failed"


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
    _set_options(library, config, BuilderOptions())
    assert config.get_flag(library.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert config.get_preview_feature(library.module.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10)


def test_sizes_that_no_memory_could_be_set_aside_for_are_built_all_the_same(task: EngineTask, tmp_path: Path) -> None:
    huge = {**PROFILE, "height": AxisRange(8, 16, 1 << 16), "width": AxisRange(8, 16, 1 << 16)}
    figures = build_engine(replace(task, profiles=(huge,), graph=write_graph(tmp_path, "Softmax")))
    assert any("are not recorded as CUDA graphs" in warning for warning in figures.warnings)
    assert not any("CUDA graphs" in warning for warning in build_engine(task).warnings)


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
