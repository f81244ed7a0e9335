"""From a PyTorch component to an ONNX graph with symbolic axes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch import nn

from ..runtime.errors import ExportError
from ..runtime.spec import TOKENS_PER_CHUNK, TensorSpec, axis_and_factor, resolve_shape
from .components import Component
from .precision import TORCH_DTYPES

#: The portable graph's opset: the first with native Attention, and with the GroupNormalization that torch exports.
#: Providers that run another spelling faster get it from ``rewrites``.
OPSET = 23


def example_sizes(latent_stride: int) -> dict[str, int]:
    """Axis sizes to trace with: none is 1 or one chunk of tokens, and no two are equal, so that none is specialised."""
    return {
        "rows": 2,
        "images": 2,
        "texts": 2,
        "height": 4 * latent_stride,
        "width": 5 * latent_stride,
        "tokens": 2 * TOKENS_PER_CHUNK,
    }


def example_inputs(specs: tuple[TensorSpec, ...], sizes: dict[str, int], seed: int = 0) -> list[torch.Tensor]:
    """Seeded random tensors for a contract: unit normal values, token ids with CLIP's marks, timesteps, pixel sizes."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in specs:
        shape = resolve_shape(spec, sizes)
        if spec.name == "input_ids":
            ids = torch.randint(0, 49406, shape, generator=generator)
            ids[:, 0], ids[:, shape[1] // 2 :] = 49406, 49407
            tensors.append(ids)
        elif spec.name == "timestep":
            tensors.append(torch.randint(0, 1000, shape, generator=generator).float())
        elif spec.name == "time_ids":
            tensors.append(torch.randint(0, 1024, shape, generator=generator).float())
        elif spec.name == "image":
            tensors.append(torch.rand(shape, generator=generator) * 2 - 1)
        else:
            tensors.append(torch.randn(shape, generator=generator))
    return [tensor.to(getattr(torch, spec.dtype)) for tensor, spec in zip(tensors, specs, strict=True)]


def onnx_from_torch(component: Component, module: nn.Module, latent_stride: int) -> ir.Model:
    """Export a component's fp32 reference ``module`` in the component's precision. The module is changed by a cast.

    Raises:
        ExportError: torch cannot export it, or an axis of the contract did not stay symbolic.
    """
    dtype = TORCH_DTYPES[component.precision]
    if dtype != torch.float32:
        module.to(dtype)
        if hasattr(module, "pin_dtype"):
            module.pin_dtype(dtype)
    inputs = tuple(example_inputs(component.inputs, example_sizes(latent_stride)))
    with _quiet():
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
            raise ExportError(f"{component.name}: torch cannot export it: {error}") from error
    model: ir.Model = program.model
    _check_contract(component, model)
    _strip_metadata(model)
    return model


def _dynamic_axes(spec: TensorSpec) -> dict[int, object]:
    """Axis index to the name it gets; an axis with a factor (``8*height``) is left for torch to name."""
    axes: dict[int, object] = {}
    for index, size in enumerate(spec.shape):
        if isinstance(size, str):
            axes[index] = size if axis_and_factor(size)[1] == 1 else torch.export.Dim.AUTO
    return axes


def _check_contract(component: Component, model: ir.Model) -> None:
    for spec, value in zip(component.inputs, model.graph.inputs, strict=True):
        for size, exported in zip(spec.shape, value.shape or (), strict=True):
            if isinstance(size, str) and isinstance(exported, int):
                raise ExportError(
                    f"{component.name}: the axis {size} of {spec.name} was specialised",
                    received=exported,
                    expected="a symbolic axis",
                    remedy="look for a Python branch on that size in the exported module",
                )
            if isinstance(size, str) and axis_and_factor(size)[1] != 1:
                continue
    for spec, value in zip(component.outputs, model.graph.outputs, strict=True):
        value.shape = ir.Shape([size if isinstance(size, int) else size.replace("*", "_") for size in spec.shape])


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
