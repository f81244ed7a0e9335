"""From a PyTorch component to an ONNX graph with symbolic axes, in the component's precision, without its weights.

The graph is traced in fp32 from a skeleton, whatever the precision: its weights are attached by name as lazy tensors,
and its precision is written into it afterwards. So export needs little more memory than the graph itself.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import ExportError
from ..checkpoints.lazy_weights import LazyWeight, Weights
from ..gate.examples import example_arrays, example_sizes
from ..networks.components import SourceComponent
from ..networks.skeleton import fitting_weights
from .typed_graph import check_precision, transpose_weights, write_precision

#: The portable graph's opset: the first with native Attention, and with the GroupNormalization that torch exports.
#: Providers that run another spelling faster get it from ``rewrites``.
OPSET = 23

_ONNX_DTYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "int64": ir.DataType.INT64}


def example_inputs(component: SourceComponent, sizes: dict[str, int], seed: int = 0) -> list[torch.Tensor]:
    """Seeded random tensors for a component, in order."""
    arrays = example_arrays(component.inputs, sizes, vocabulary=component.vocabulary, seed=seed)
    return [torch.from_numpy(array) for array in arrays.values()]


def onnx_from_component(component: SourceComponent, latent_stride: int) -> ir.Model:
    """Export a component in its precision. No weight is read: they are in the graph as lazy tensors.

    Raises:
        CheckpointError: the weights do not fit the config.
        ExportError: as ``onnx_from_torch``.
    """
    network = component.network()
    weights = fitting_weights(network, component.weights(), component.where)
    module = component.wrap(network).eval()
    place = next(f"{name}." if name else "" for name, child in module.named_modules() if child is network)
    by_place = {f"{place}{name}": weight for name, weight in weights.items()}
    return onnx_from_torch(component, module, latent_stride, by_place)


def onnx_from_torch(
    component: SourceComponent, module: nn.Module, latent_stride: int, weights: Weights | None = None
) -> ir.Model:
    """Export a component's fp32 ``module`` in the component's precision.

    Parameters on the meta device, which ``weights`` has by the names they have in the module, stay unread: they are in
    the graph as lazy tensors.

    Raises:
        ExportError: torch cannot export it, an axis was given a fixed size, or the contract is not met.
    """
    inputs = tuple(_fp32(tensor) for tensor in example_inputs(component, example_sizes(latent_stride)))
    with _quiet(), _without_garbage_collection():
        try:
            with _fake_parameters(module):
                program = torch.onnx.export(
                    module,
                    inputs,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=[spec.name for spec in component.inputs],
                    output_names=[spec.name for spec in component.outputs],
                    dynamic_shapes=tuple(_dynamic_axes(spec) for spec in component.inputs),
                    optimize=False,
                    verbose=False,
                )
            _attach(program.model, weights or {})
            transpose_weights(program.model)  # before constants are folded, which would take their names
            program.optimize()
        except Exception as error:
            reason = str(error.__cause__ or error)  # the exporter wraps torch.export's error in pages of advice
            raise ExportError(f"{component.name}: torch cannot export it", received=" ".join(reason.split())) from error
        model: ir.Model = program.model
        del program
    write_precision(model, component.plan, component.inputs, component.outputs)
    check_precision(model, component.plan)
    _check_contract(component, model)
    _strip_metadata(model)
    return model


def _fp32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _fake_parameters(module: nn.Module) -> Iterator[None]:
    """Parameters on the meta device become fake ones that say they are on the CPU, as the inputs are."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # buffers, and constants in the code, are real
    skeletons = {
        (owner, name): parameter
        for owner in module.modules()
        for name, parameter in owner._parameters.items()
        if parameter is not None and parameter.is_meta
    }
    for (owner, name), parameter in skeletons.items():
        with mode:
            owner._parameters[name] = nn.Parameter(torch.empty(parameter.shape), requires_grad=False)
    try:
        yield
    finally:
        for (owner, name), parameter in skeletons.items():
            owner._parameters[name] = parameter


def _attach(model: ir.Model, weights: Weights) -> None:
    """Give a traced graph its weights, each read from its file whenever its content is asked for."""
    for name, value in model.graph.initializers.items():
        if name in weights:
            read = functools.partial(_float_tensor, weights[name])
            value.const_value = ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape(weights[name].shape), name=name)


def _float_tensor(weight: LazyWeight) -> ir.TensorProtocol:
    return TorchTensor(weight.read().float())


def _dynamic_axes(spec: TensorSpec) -> dict[int, str]:
    """Axis index to the name it gets. torch raises an error where tracing gives a named axis a fixed size; a branch
    that only compares sizes is taken for good, which the gate has to notice."""
    return {index: _axis_name(size) for index, size in enumerate(spec.shape) if isinstance(size, str)}


def _axis_name(dimension: str) -> str:
    return dimension.replace("*", "_")


def _check_contract(component: SourceComponent, model: ir.Model) -> None:
    """Check names, dtypes and shapes of inputs and outputs, and give the axes of outputs the contract's names."""
    for specs, values in ((component.inputs, model.graph.inputs), (component.outputs, model.graph.outputs)):
        received, expected = [value.name for value in values], [spec.name for spec in specs]
        if received != expected:
            raise ExportError(f"{component.name}: inputs or outputs", received=received, expected=expected)
        for spec, value in zip(specs, values, strict=True):
            sizes = list(value.shape) if value.shape is not None else []
            fits = len(sizes) == len(spec.shape) and all(
                exported == size if isinstance(size, int) else not isinstance(exported, int)
                for exported, size in zip(sizes, spec.shape, strict=True)
            )
            if not fits or value.dtype != _ONNX_DTYPES[spec.dtype]:
                text = f"{value.dtype}[{', '.join(map(str, sizes))}]"
                raise ExportError(f"{component.name}: {spec.name}", received=text, expected=str(spec))
            value.shape = ir.Shape([size if isinstance(size, int) else _axis_name(size) for size in spec.shape])


def _strip_metadata(model: ir.Model) -> None:
    """Remove the exporter's stack traces: they hold the paths of the machine and make equal graphs differ."""
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about torchvision, about its own defaults and about pytree internals: none is ours to mend."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Export makes millions of small objects that live until its end; looking for garbage among them takes 13 % of
    its time (15.1 s instead of 17.4 s for the emoji denoiser, with 3 % more memory)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()
