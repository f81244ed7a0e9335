"""The layers of a component's portable graph, for people who look into it."""

from __future__ import annotations

import onnx
from polygraphy.backend.onnx.util import str_from_onnx

from ...runtime.bundles.bundle import Bundle
from .flops import axis_size


def layers_text(bundle: Bundle, component: str) -> str:
    """Every layer of a component that the bundle holds: operator, and name, dtype and shape of what goes in and out.

    Shapes are those at the sizes that engines are tuned for: as the exporter spells them they fill several lines.
    """
    record = bundle.manifest.components[component]
    sizes = {axis: allowed.opt for axis, allowed in record.profile.items()}
    model = onnx.load(bundle.file(record.onnx), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = axis_size(dimension.dim_param, sizes)
    shown = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
    return f"{component}, shapes at {shown}\n{str_from_onnx(model, show_layers=True)}"
