"""Channels behind the noisy latents in the denoiser's input, as ``kernels.inputs`` does: a mask, a picture, depth.

``denoise_step`` writes the latents of a row and leaves the channels behind them alone, so this runs once for a batch,
not in every step.

Bytes: 4 read and b written per element, with b bytes per element of the denoiser's input; 0.25 MB for the mask and the
masked picture of two rows of SD 1.5 at 512 x 512 in fp16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .source import KernelSource, Tensor

_TILE = 1024


@triton.jit
def pack_rows_kernel(
    extra: tl.tensor,
    sources: tl.tensor,
    model_input: tl.tensor,
    first: tl.tensor,
    elements: tl.tensor,
    input_stride: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    row = tl.program_id(1).to(tl.int64)
    image = tl.load(sources + row).to(tl.int64)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)  # [TILE], elements of the extra channels
    given = tl.where(image >= 0, elements, 0)
    value = tl.load(extra + image * elements + at, mask=at < given, other=0.0)
    target = model_input + row * input_stride + first + at
    tl.store(target, value.to(model_input.dtype.element_ty), mask=at < elements)


SOURCE = KernelSource(
    function=pack_rows_kernel,
    types={
        "extra": "*fp32",
        "sources": "*i32",
        "model_input": "*io",
        "first": "i32",
        "elements": "i32",
        "input_stride": "i32",
    },
    tile=_TILE,
    dtypes=("float16", "bfloat16", "float32"),
)


def pack_rows(extra: Tensor, sources: Tensor, model_input: Tensor, first: int) -> None:
    """Write channels into every row of ``model_input [rows, row elements]`` from element ``first`` on.

    ``extra`` is float32 ``[images, elements]``; ``sources``, int32 ``[rows]``, says of which image, -1 for zeros.
    """
    rows, stride = model_input.shape
    elements = extra.shape[1]
    pack_rows_kernel[SOURCE.grid(elements, rows)](
        extra, sources, model_input, first, elements, stride, TILE=SOURCE.tile, num_warps=SOURCE.num_warps
    )
