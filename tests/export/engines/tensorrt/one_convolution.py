"""The smallest network that is worth building an engine of: one convolution, and what comes after it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from latentrt.runtime.bundles.spec import AxisRange, TensorSpec

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
