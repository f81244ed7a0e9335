"""Arguments and grids of compiled kernels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from latentrt.kernels.launch import Argument, CompiledKernel, KernelIndex, KernelSet, grid, joined, kernel_arguments

KERNEL = CompiledKernel(
    name="halve",
    dtype="float16",
    target="sm90",
    file="halve.float16.sm90.cubin",
    symbol="halve_kernel",
    tile=1024,
    num_warps=4,
    shared_bytes=0,
    arguments=(Argument("x", "*fp16", 16), Argument("seed", "i64"), Argument("elements", "i32", 4)),
    hidden_pointers=2,
)


@pytest.mark.parametrize(("elements", "blocks"), [(1, 1), (1024, 1), (1025, 2), (65536, 64)])
def test_a_grid_covers_all_elements(elements: int, blocks: int) -> None:
    assert grid(KERNEL, elements, 3) == (blocks, 3, 1)
    assert KERNEL.threads == 128


def test_arguments_come_in_the_kernels_order_and_types_with_the_hidden_ones_behind() -> None:
    given = kernel_arguments(KERNEL, {"elements": 400, "seed": -1, "x": 0x7F00_0000_0010})
    assert [(type(value), int(value)) for value in given] == [
        (np.uint64, 0x7F00_0000_0010),
        (np.int64, -1),
        (np.int32, 400),
        (np.uint64, 0),
        (np.uint64, 0),
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"x": 16, "seed": 1}, r"received arguments \['seed', 'x'\], expected \['elements', 'seed', 'x'\]"),
        ({"x": 16, "seed": 1, "elements": 4, "area": 1}, "'area'"),
        ({"x": 24, "seed": 1, "elements": 4}, "x: received 24, expected a multiple of 16"),
        ({"x": 16, "seed": 1, "elements": 6}, "elements: received 6, expected a multiple of 4"),
    ],
)
def test_what_the_code_cannot_take_is_refused(values: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kernel_arguments(KERNEL, values)


@pytest.mark.parametrize(
    ("gpu", "chosen"),
    [("sm86", "sm86"), ("sm87", "sm86"), ("sm80", "sm80"), ("sm89", "sm86"), ("sm90", "sm90"), ("sm100", "ptx")],
)
def test_the_code_that_a_gpu_runs_best_is_chosen(gpu: str, chosen: str) -> None:
    held = tuple(msgspec.structs.replace(KERNEL, target=target) for target in ("ptx", "sm80", "sm86", "sm90"))
    kernels = KernelSet(KernelIndex(schema_version=3, layout="", key={}, kernels=held), lambda file: b"")
    assert kernels.select("halve", "float16", gpu).target == chosen


@pytest.mark.parametrize(
    ("name", "dtype", "gpu"), [("halve", "float16", "sm75"), ("halve", "float32", "sm90"), ("double", None, "sm90")]
)
def test_code_that_there_is_not(name: str, dtype: str | None, gpu: str) -> None:
    held = tuple(msgspec.structs.replace(KERNEL, target=target) for target in ("ptx", "sm90"))
    kernels = KernelSet(KernelIndex(schema_version=3, layout="", key={}, kernels=held), lambda file: b"")
    with pytest.raises(LookupError, match=f"{name} of {dtype} for {gpu} is not among"):
        kernels.select(name, dtype, gpu)


def test_kernels_of_two_bundles_are_one_set() -> None:
    def held(content: bytes, *dtypes: str) -> KernelSet:
        kernels = tuple(msgspec.structs.replace(KERNEL, dtype=dtype, file=f"halve.{dtype}.cubin") for dtype in dtypes)
        return KernelSet(KernelIndex(schema_version=3, layout="", key={}, kernels=kernels), lambda file: content)

    both = joined([held(b"of the first", "float32"), held(b"of the second", "float32", "float16")])
    for dtype, content in (("float32", b"of the first"), ("float16", b"of the second")):
        assert both.read(both.select("halve", dtype, "sm90").file) == content
    assert len(both.index.kernels) == 2


def test_the_record_survives_json() -> None:
    index = KernelIndex(schema_version=3, layout="", key={"triton": "3.6.0"}, kernels=(KERNEL,))
    assert msgspec.json.decode(msgspec.json.encode(index), type=KernelIndex) == index
