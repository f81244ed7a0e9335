"""A TensorRT network parsed from an ONNX graph: its profiles, and the proof that it computes in the types it should."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....runtime.bundles.spec import Profile, TensorSpec, resolve_shape
from ....runtime.errors import ExportError
from .library import Library

#: numpy's names of TensorRT's data types.
_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32"}

#: The layers that take the time, by the name of their ``LayerType``.
_HEAVY = ("ATTENTION_OUTPUT", "CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY")

_SOURCE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")  # in the metadata that the parser gives a layer


def parse(library: Library, network: Any, log: Any, graph: Path) -> Any:
    """Fill a network from a graph, whose weights may lie in other files. The parser that is returned owns them.

    Raises:
        ExportError: the parser refuses the graph; the message names the node.
    """
    parser = library.module.OnnxParser(network, log)
    if parser.parse_from_file(str(graph)):
        return parser
    reason = "no reason given"
    if parser.num_errors:
        error = parser.get_error(0)
        reason = f"{error.node_name() or 'the graph'} ({error.node_operator()}): {error.desc()}"
    raise ExportError(f"{graph.name}: {library.provider} {library.version} cannot parse it", received=reason)


def add_profiles(builder: Any, config: Any, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> None:
    """Give the engine an optimization profile for each set of axis ranges."""
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for spec in inputs:
            least, opt, most = (
                resolve_shape(spec, {axis: getattr(allowed, kind) for axis, allowed in ranges.items()})
                for kind in ("min", "opt", "max")
            )
            profile.set_shape(spec.name, least, opt, most)
        config.add_optimization_profile(profile)


def check_interface(component: str, network: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Check that the parsed network has the contract's inputs and outputs: names, types, fixed and free dimensions.

    Raises:
        ExportError: it has not.
    """
    parsed = [
        *(network.get_input(index) for index in range(network.num_inputs)),
        *(network.get_output(index) for index in range(network.num_outputs)),
    ]
    received = [_text(tensor.name, tensor.dtype.name, list(tensor.shape)) for tensor in parsed]
    expected = [
        _text(spec.name, spec.dtype, [size if isinstance(size, int) else -1 for size in spec.shape])
        for spec in (*inputs, *outputs)
    ]
    if received != expected:
        raise ExportError(f"{component}: the parsed network", received=received, expected=expected)


def check_types(component: str, network: Any, types: Mapping[str, str]) -> int:
    """Check that every heavy layer computes in the type its ONNX node should, and return how many there are.

    ``types`` has the type of every heavy node of the graph. A network that is parsed, built and run in fp32 although
    fp16 was meant gives no error anywhere else.

    Raises:
        ExportError: a layer of another type, a node that no layer comes from, or a layer that comes from none.
    """
    layers = list(_heavy_layers(network))
    wrong = [
        f"{node} in {type_}, not {types.get(node, 'in the graph')}"
        for node, type_ in layers
        if types.get(node) != type_
    ]
    missing = types.keys() - {node for node, _ in layers}
    if wrong or missing:
        raise ExportError(
            f"{component}: the network does not compute as the graph says",
            received="; ".join([*wrong[:5], *(f"no layer for {node}" for node in sorted(missing)[:5])]),
            expected=f"all {len(types)} convolutions, products and attentions in their types",
        )
    return len(layers)


def _heavy_layers(network: Any) -> Iterator[tuple[str, str]]:
    """The ONNX node that each heavy layer comes from, and the type it computes in."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in _HEAVY:
            source = _SOURCE.search(layer.metadata)
            type_ = layer.get_output(0).dtype.name
            yield (source[1] if source else layer.name), _NUMPY_NAMES.get(type_, type_)


def _text(name: str, type_: str, shape: list[int]) -> str:
    return f"{name} {_NUMPY_NAMES.get(type_, type_)}{shape}"
