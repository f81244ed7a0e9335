"""Group normalisation with SiLU and GEGLU as plain fused Triton kernels: what a provider's own are held against.

Neither is tuned: a provider that is slower than these leaves something to be had.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

GROUPS, EPSILON = 32, 1e-5

_TILE = 4096
_GEGLU_TILE = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _sums_kernel(x: tl.tensor, sums: tl.tensor, size: tl.tensor, chunks: tl.tensor, TILE: tl.constexpr) -> None:
    """Sum and sum of squares of a tile of a group of one picture."""
    group = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    value = tl.load(x + group * size + at, mask=at < size, other=0.0).to(tl.float32)
    target = sums + (group * chunks + tl.program_id(0)) * 2
    tl.store(target, tl.sum(value, axis=0))
    tl.store(target + 1, tl.sum(value * value, axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def _normalize_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    sums: tl.tensor,
    y: tl.tensor,
    size: tl.tensor,
    chunks: tl.tensor,
    area: tl.tensor,
    epsilon: tl.tensor,
    GROUPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    group = tl.program_id(1).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    source = sums + (group * chunks + chunk) * 2
    mean = tl.sum(tl.load(source, mask=chunk < chunks, other=0.0), axis=0) / size
    square = tl.sum(tl.load(source + 1, mask=chunk < chunks, other=0.0), axis=0) / size
    scale = 1.0 / tl.sqrt(square - mean * mean + epsilon)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = at < size
    channel = group % GROUPS * (size // area) + at // area
    value = tl.load(x + group * size + at, mask=inside, other=0.0).to(tl.float32)
    value = (value - mean) * scale * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + group * size + at, (value * tl.sigmoid(value)).to(y.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _geglu_kernel(x: tl.tensor, y: tl.tensor, width: tl.tensor, TILE: tl.constexpr) -> None:
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = at < width
    value = tl.load(x + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + (row * 2 + 1) * width + at, mask=inside, other=0.0).to(tl.float32)
    gate = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(y + row * width + at, (value * gate).to(y.dtype.element_ty), mask=inside)


def group_norm_silu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, y: torch.Tensor) -> None:
    """``y = silu(group_norm(x))``, both ``[n, C, h, w]``, by two passes over ``x``: sums in fp32, then the values."""
    images, channels, height, width = x.shape
    size = channels // GROUPS * height * width
    chunks = triton.cdiv(size, _TILE)
    sums = torch.empty(images * GROUPS, chunks, 2, dtype=torch.float32, device=x.device)
    grid = (chunks, images * GROUPS)
    _sums_kernel[grid](x, sums, size, chunks, TILE=_TILE)
    _normalize_kernel[grid](
        x, weight, bias, sums, y, size, chunks, height * width, EPSILON,
        GROUPS=GROUPS, CHUNKS=triton.next_power_of_2(chunks), TILE=_TILE,
    )  # fmt: skip


def geglu(x: torch.Tensor, y: torch.Tensor) -> None:
    """``y = a * gelu(b)``, ``[..., D]``, of ``x = [a, b]``, ``[..., 2 D]``; GELU by the error function."""
    width = y.shape[-1]
    _geglu_kernel[(triton.cdiv(width, _GEGLU_TILE), y.numel() // width)](x, y, width, TILE=_GEGLU_TILE)
