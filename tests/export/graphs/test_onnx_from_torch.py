"""The exporter keeps the contract: names, dtypes, symbolic axes, opset; or says what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from latentrt.export.gate.examples import example_sizes
from latentrt.export.graphs.onnx_from_torch import OPSET, example_inputs, onnx_from_torch
from latentrt.export.graphs.precision import PrecisionPlan
from latentrt.export.networks.components import SourceComponent
from latentrt.runtime.bundles.spec import TensorSpec
from latentrt.runtime.errors import ExportError

IMAGE = TensorSpec("image", "float32", ("images", 3, "8*height", "8*width"))
LATENTS = TensorSpec("latents", "float32", ("images", 3, "height", "width"))


def component(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], precision: str = "fp32"
) -> SourceComponent:
    plan = PrecisionPlan(precision)
    return SourceComponent(
        "toy", "toy", "toy", plan, inputs, outputs, network=nn.Identity, wrap=nn.Identity, weights=dict
    )


class Function(nn.Module):
    """A module of one function of its weight (so that casts have something to cast) and its input."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.weight, x)


def export(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], toy: SourceComponent) -> ir.Model:
    return onnx_from_torch(toy, Function(function), 2)


def axes(values: list[ir.Value]) -> list[list[int | str]]:
    return [[size if isinstance(size, int) else str(size.value) for size in value.shape] for value in values]


def test_the_graph_has_the_contracts_names_and_axes() -> None:
    toy = component((IMAGE,), (LATENTS,))
    model = export(lambda weight, image: nn.functional.avg_pool2d(image, 8) * weight, toy)
    assert model.graph.opset_imports[""] == OPSET == 23
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["image", "latents"]
    assert axes(model.graph.inputs) == [["images", 3, "8_height", "8_width"]]
    assert axes(model.graph.outputs) == [["images", 3, "height", "width"]]


def test_a_bundles_denoiser_has_the_batch_axis_everywhere(tiny_bundle: Path) -> None:
    graph = onnx.load(tiny_bundle / "onnx" / "denoiser.onnx", load_external_data=False).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "sample": ["rows", 4, "height", "width"],
        "timestep": ["rows"],
        "encoder_hidden_states": ["rows", "tokens", 64],
        "text_embeds": ["rows", 28],
        "time_ids": ["rows", 6],
        "model_output": ["rows", 4, "height", "width"],
    }


@pytest.mark.parametrize("spec", [LATENTS, IMAGE], ids=["latents", "pixels"])
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_a_branch_on_a_size_that_fixes_it_is_an_error(spec: TensorSpec, axis: int) -> None:
    size = example_inputs(component((spec,), ()), example_sizes(2))[0].shape[axis]
    output = TensorSpec("out", "float32", spec.shape)
    with pytest.raises(ExportError, match=rf"toy: torch cannot export it .* static shape of {size} .*\[{axis}\]"):
        export(lambda weight, x: x * weight if x.shape[axis] == size else x, component((spec,), (output,)))


def test_an_output_with_a_fixed_size_is_an_error() -> None:
    output = TensorSpec("out", "float32", ("images", "height"))
    with pytest.raises(ExportError, match=r"toy: out \| received: FLOAT\[images, 3\] \| expected: out float32"):
        export(lambda weight, x: x.mean((2, 3)) * weight, component((LATENTS,), (output,)))


@pytest.mark.parametrize(
    "output",
    [TensorSpec("out", "float16", ("images", 3, "height", "width")), TensorSpec("out", "float32", ("images", 4))],
)
def test_an_output_that_is_not_what_the_contract_says_is_an_error(output: TensorSpec) -> None:
    with pytest.raises(ExportError, match=r"toy: out \| received: FLOAT\[images, 3, height, width\] \| expected: out "):
        export(lambda weight, x: x * weight, component((LATENTS,), (output,)))


def test_a_module_that_torch_cannot_export_is_an_error_with_its_reason() -> None:
    with pytest.raises(ExportError, match="toy: torch cannot export it") as error:
        export(lambda weight, x: x @ weight[:, None, None, None, None], component((LATENTS,), (LATENTS,)))
    assert len(str(error.value)) < 2000


def test_half_precision_is_in_the_graph() -> None:
    latents = TensorSpec("latents", "float16", ("images", 3, "height", "width"))
    output = TensorSpec("out", "float16", ("images", 3, "height", "width"))
    model = export(lambda weight, x: x * weight, component((latents,), (output,), "fp16"))
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert {tensor.dtype for tensor in tensors} == {ir.DataType.FLOAT16}


def test_example_sizes_are_never_specialised() -> None:
    sizes = example_sizes(4)
    assert min(sizes.values()) == 2
    assert sizes["tokens"] == 154
    assert sizes["height"] != sizes["width"]
    assert sizes["height"] % 4 == sizes["width"] % 4 == 0


def test_example_inputs_are_seeded_and_realistic() -> None:
    specs = (
        TensorSpec("input_ids", "int64", ("texts", 77)),
        TensorSpec("timestep", "float32", ("rows",)),
        TensorSpec("time_ids", "float32", ("rows", 6)),
        IMAGE,
    )
    toy = replace(component(specs, ()), vocabulary=1000)
    ids, timestep, time_ids, image = example_inputs(toy, example_sizes(4), seed=3)
    assert ids.max() == ids[0, -1] == 999
    assert ids[0, 0] == 998
    assert (timestep >= 0).all()
    assert (timestep < 1000).all()
    assert time_ids.shape == (2, 6)
    assert image.shape == (2, 3, 128, 160)
    assert image.abs().max() <= 1
    assert all(map(torch.equal, example_inputs(toy, example_sizes(4), seed=3), (ids, timestep, time_ids, image)))
    assert not torch.equal(example_inputs(toy, example_sizes(4), seed=4)[3], image)
