"""Every distinct tensor is in a bundle once, where ONNX tools and mapped files find it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from latentrt.export.graphs.weights import WeightStore, parameter_count
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle

MEGABYTE = 1 << 20
COMPONENTS = ("text_encoder", "text_encoder_2", "denoiser", "vae_decoder", "vae_encoder")


def array(seed: int, size: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size // 4).astype(np.float32)


def model_of(arrays: dict[str, NDArray[np.float32]]) -> ir.Model:
    """A graph that gives every array back."""
    values = []
    for name, content in arrays.items():
        value = ir.Value(name=name, shape=ir.Shape(content.shape), type=ir.TensorType(ir.DataType.FLOAT))
        value.const_value = ir.Tensor(content, name=name)
        values.append(value)
    nodes = [ir.node("Identity", [value]) for value in values]
    for node, value in zip(nodes, values, strict=True):
        node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = (
            f"{value.name}_out",
            value.dtype,
            value.shape,
        )
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 23}, name="graph")
    return ir.Model(graph, ir_version=10)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[BundleWriter]:
    with BundleWriter(tmp_path / "bundle") as opened:
        yield opened


def add(store: WeightStore, component: str, arrays: dict[str, NDArray[np.float32]]) -> tuple[str, ...]:
    """Write a graph as a build does; returns its weight files."""
    model = model_of(arrays)
    store.externalize(model, component)
    store.writer.write(f"onnx/{component}.onnx", store.graph_bytes(model, relative_to="onnx"))
    return store.files(model)


def loaded(folder: Path, component: str) -> dict[str, NDArray[np.float32]]:
    """The initializers as plain ``onnx.load`` gives them."""
    path = folder / "onnx" / f"{component}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_plain_onnx_loads_what_was_stored(writer: BundleWriter) -> None:
    arrays = {"large": array(0, 5000), "small": array(1, 512), "odd": array(2, 4004)}
    (file,) = add(WeightStore(writer), "a", arrays)
    received = loaded(writer.folder, "a")
    assert received.keys() == arrays.keys()
    assert all(np.array_equal(received[name], arrays[name]) for name in arrays)
    assert file.startswith("onnx/weights/a-")


def test_offsets_are_aligned_and_small_tensors_stay_in_the_graph(writer: BundleWriter) -> None:
    add(WeightStore(writer), "a", {"large": array(0, 5000), "small": array(1, 512), "odd": array(2, 4004)})
    graph = onnx.load(writer.folder / "onnx" / "a.onnx", load_external_data=False).graph
    places = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in graph.initializer}
    assert places["small"] == {}
    assert [int(places[name]["offset"]) for name in ("large", "odd")] == [0, 5056]
    assert all(not Path(places[name]["location"]).is_absolute() for name in ("large", "odd"))


def test_equal_tensors_of_a_component_are_stored_once(writer: BundleWriter) -> None:
    (file,) = add(WeightStore(writer), "a", {"x": array(0, 4096), "y": array(0, 4096), "z": array(1, 4096)})
    assert writer.files[file].size == 2 * 4096
    assert np.array_equal(loaded(writer.folder, "a")["y"], array(0, 4096))


def test_large_tensors_are_shared_between_components_and_small_ones_are_not(writer: BundleWriter) -> None:
    store = WeightStore(writer)
    arrays = {"large": array(0, MEGABYTE), "small": array(1, 4096)}
    (first,) = add(store, "a", arrays)
    second = add(store, "b", arrays)
    assert first in second
    assert sum(record.size for name, record in writer.files.items() if "weights" in name) == MEGABYTE + 2 * 4096
    assert all(np.array_equal(loaded(writer.folder, "b")[name], arrays[name]) for name in arrays)


def test_tensors_of_a_graph_that_was_taken_over_are_shared_too(tmp_path: Path, text_bundle_copy: Path) -> None:
    record = open_bundle(text_bundle_copy).manifest.components["text_encoder"]
    with BundleWriter(text_bundle_copy) as writer:
        writer.take_over((record.onnx, *record.weights))
        store = WeightStore(writer)
        store.taken_over(record.onnx, "text_encoder")
        model = store.load(record.onnx)
        tensors = [value.const_value for value in model.graph.initializers.values()]
        embedding = max(tensors, key=lambda tensor: tensor.nbytes).numpy()
        assert add(store, "b", {"tokens": np.array(embedding)}) == record.weights
        assert store.files(model) == record.weights
        assert parameter_count(model) == record.parameters


def test_tensors_are_written_one_at_a_time(writer: BundleWriter) -> None:
    arrays = {f"x{number}": array(number, MEGABYTE) for number in range(16)}
    model = model_of(arrays)
    store = WeightStore(writer)
    tracemalloc.start()
    store.externalize(model, "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MEGABYTE


def test_a_second_spelling_of_a_graph_opens_no_file_per_tensor(writer: BundleWriter) -> None:
    model = model_of({f"x{number}": array(number, 2048) for number in range(100)})
    store = WeightStore(writer)
    store.externalize(model, "a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    variant = model.clone()
    store.externalize(variant, "a", ".provider")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before  # what other tests left may be closed meanwhile
    assert store.files(variant) == store.files(model)


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", COMPONENTS)
def test_graphs_of_a_bundle_load_and_pass_the_checker(tiny_bundle: Path, component: str) -> None:
    arrays = loaded(tiny_bundle, component)
    graph = onnx.load(tiny_bundle / "onnx" / f"{component}.onnx")
    onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    assert arrays


@pytest.mark.parametrize("folder", ["onnx", "engines/onnxruntime-cpu"])
def test_graphs_hold_no_paths_and_no_stack_traces(tiny_bundle: Path, folder: str) -> None:
    for component in COMPONENTS:
        data = (tiny_bundle / folder / f"{component}.onnx").read_bytes()
        for trace in (b".py", b"site-packages", b"stack_trace", b"/tmp", str(tiny_bundle.parent).encode()):
            assert trace not in data, (component, trace)


def test_weights_are_not_stored_twice(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    weights = [name for name in manifest.files if name.startswith("onnx/weights/")]
    assert len(weights) == len(COMPONENTS)
    engines = {engine.component: set(engine.weights) for engine in manifest.engines}
    assert all(engines[name] == set(manifest.components[name].weights) for name in COMPONENTS)
