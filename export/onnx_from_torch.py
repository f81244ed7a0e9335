"""From a PyTorch component to an ONNX graph with symbolic axes."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch import nn

from ..runtime.errors import ExportError
from ..runtime.spec import TOKENS_PER_CHUNK, TensorSpec, resolve_shape
from .components import Component
from .precision import TORCH_DTYPES

#: The portable graph's opset: the first with native Attention, and with the GroupNormalization that torch exports.
#: Providers that run another spelling faster get it from ``rewrites``.
OPSET = 23

_ONNX_DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int64": ir.DataType.INT64,
}


def example_sizes(latent_stride: int) -> dict[str, int]:
    """Axis sizes to trace with. None is 1 or one chunk of tokens, and no two of a component are equal, so that none is
    taken for a constant or for another."""
    return {
        "rows": 2,
        "images": 2,
        "texts": 2,
        "height": 4 * latent_stride,
        "width": 5 * latent_stride,
        "tokens": 2 * TOKENS_PER_CHUNK,
    }


def example_inputs(component: Component, sizes: dict[str, int], seed: int = 0) -> list[torch.Tensor]:
    """Seeded random tensors for a contract: unit normal values, token ids with CLIP's marks, timesteps, pixel sizes."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in component.inputs:
        shape = resolve_shape(spec, sizes)
        if spec.name == "input_ids":
            begin, end = component.vocabulary - 2, component.vocabulary - 1
            ids = torch.randint(0, begin, shape, generator=generator)
            ids[:, 0], ids[:, shape[1] // 2 :] = begin, end
            tensors.append(ids)
        elif spec.name == "timestep":
            tensors.append(torch.randint(0, 1000, shape, generator=generator).float())
        elif spec.name == "time_ids":
            tensors.append(torch.randint(0, 1024, shape, generator=generator).float())
        elif spec.name == "image":
            tensors.append(torch.rand(shape, generator=generator) * 2 - 1)
        else:
            tensors.append(torch.randn(shape, generator=generator))
    return [tensor.to(getattr(torch, spec.dtype)) for tensor, spec in zip(tensors, component.inputs, strict=True)]


def onnx_from_torch(component: Component, module: nn.Module, latent_stride: int) -> ir.Model:
    """Export a component's fp32 reference ``module`` in the component's precision. The module is changed by a cast.

    Raises:
        ExportError: torch cannot export it, an axis was given a fixed size, or the contract is not met.
    """
    dtype = TORCH_DTYPES[component.precision]
    if dtype != torch.float32:
        module.to(dtype)
        if hasattr(module, "pin_dtype"):
            module.pin_dtype(dtype)
    inputs = tuple(example_inputs(component, example_sizes(latent_stride)))
    with _quiet(), _without_garbage_collection():
        try:
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in component.inputs],
                output_names=[spec.name for spec in component.outputs],
                dynamic_shapes=tuple(_dynamic_axes(spec) for spec in component.inputs),
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            reason = str(error.__cause__ or error)  # the exporter wraps torch.export's error in pages of advice
            raise ExportError(f"{component.name}: torch cannot export it", received=" ".join(reason.split())) from error
        model: ir.Model = program.model
        del program
    _check_contract(component, model)
    _strip_metadata(model)
    return model


def _dynamic_axes(spec: TensorSpec) -> dict[int, str]:
    """Axis index to the name it gets. torch raises an error where tracing gives a named axis a fixed size; a branch
    that only compares sizes is taken for good, which the gate has to notice."""
    return {index: _axis_name(size) for index, size in enumerate(spec.shape) if isinstance(size, str)}


def _axis_name(dimension: str) -> str:
    return dimension.replace("*", "_")


def _check_contract(component: Component, model: ir.Model) -> None:
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
