"""Launches of the runtime against the signatures that kernels are compiled with: the host alone is not particular."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.kernels.gpu.aot import SOURCES
from latentrt.runtime.device.host import HostBuffer, HostDevice, HostLaunch
from latentrt.runtime.images.decode import decode_bytes
from latentrt.runtime.requests.decoding import decoding_from
from latentrt.runtime.timing import Timings

from ...kernels.slot_runs import RUNS, by_definition
from ..function_engine import FunctionEngine, contract_of, engines_of
from ..table_loop import SHAPE, engine_for, run_through

DTYPES = {"fp32": np.float32, "fp16": np.float16, "i32": np.int32, "i64": np.int64, "u8": np.uint8}


class CheckingDevice(HostDevice):
    """The host, particular about what a kernel is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: set[tuple[str, str | None]] = set()

    def bind(
        self, kernel: str, arguments: Mapping[str, Any], *, elements: int, outer: int, dtype: str | None = None
    ) -> HostLaunch:
        source = SOURCES[kernel]
        self.bound.add((kernel, dtype))
        assert arguments.keys() == source.types.keys()
        assert (dtype in source.dtypes) == bool(source.dtypes)
        for name, kind in source.types.items():
            value = arguments[name]
            if not kind.startswith("*"):
                assert isinstance(value, int)
                assert value % (source.divisible or {}).get(name, 1) == 0, name
                continue
            assert isinstance(value, HostBuffer)
            assert value.pointer % 16 == 0, name
            assert value.dtype == (np.dtype(dtype) if kind == "*io" else DTYPES[kind[1:]]), name
        assert elements > 0
        assert outer > 0
        return super().bind(kernel, arguments, elements=elements, outer=outer, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["edit", "skipped layers", "outside a mask", "rescaled guidance"])
def test_a_run_launches_its_kernels_as_they_are_compiled(name: str, dtype: str) -> None:
    device, run = CheckingDevice(), RUNS[name]
    with engines_of(engine_for(run, dtype=dtype), device=device) as engines:
        expected = by_definition(run, SHAPE)
        np.testing.assert_allclose(run_through(engines, run)[0], expected, atol=3e-2 * np.abs(expected).max())
    packs = {("pack_rows", dtype)} if name == "edit" else set()
    of_a_step = {("denoise_step", dtype), ("guidance_statistics", dtype), ("philox_normal", None)}
    assert device.bound == of_a_step | packs


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_picture_launches_its_kernel_as_it_is_compiled(dtype: str) -> None:
    def decoder(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"image": np.repeat(np.repeat(inputs["latents"][:, :3], 8, axis=2), 8, axis=3)}

    sides = (1, 8, 64)
    contract = contract_of(
        {"latents": f"{dtype} images 4 height width"},
        {"image": f"{dtype} images 3 8*height 8*width"},
        images=(1, 1, 1), height=sides, width=sides,
    )  # fmt: skip
    device = CheckingDevice()
    with engines_of(FunctionEngine("vae_decoder", contract, decoder), device=device) as engines:
        decoding = decoding_from("vae", None, 0.25, engines.bundle.manifest)
        latents = np.linspace(-1.2, 1.2, 2 * 4 * 5 * 7, dtype=np.float32).reshape(2, 4, 5, 7)
        pictures = list(decode_bytes(engines, latents, decoding, Timings()))
    assert device.bound == {("image_from_decoded", dtype)}
    assert [picture.shape for picture in pictures] == [(1, 40, 56, 3)] * 2
    expected = np.clip(latents[1, :3, 2, 3] * 127.5 + 127.5, 0, 255)
    np.testing.assert_allclose(pictures[1][0, 20, 28], expected, atol=0.6)
