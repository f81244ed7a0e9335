"""Decoding on a device with little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.images.decode import decode_bytes, decode_on_device
from latentrt.runtime.requests.decoding import decoding_from
from latentrt.runtime.timing import Timings

from ..function_engine import FunctionEngine, contract_of, engines_of


def decoder(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {"image": np.repeat(np.repeat(inputs["latents"][:, :3], 8, axis=2), 8, axis=3)}


def test_pictures_for_other_libraries_take_the_place_of_what_is_kept_for_other_sizes() -> None:
    sides = (1, 8, 64)
    contract = contract_of(
        {"latents": "float32 images 4 height width"},
        {"image": "float32 images 3 8*height 8*width"},
        images=(1, 1, 1), height=sides, width=sides,
    )  # fmt: skip
    engine, device = FunctionEngine("vae_decoder", contract, decoder), HostDevice(limit=250_000)
    latents = np.linspace(-1, 1, 4 * 16 * 16, dtype=np.float32).reshape(1, 4, 16, 16)
    small = np.ascontiguousarray(latents[:, :, :4, :4])
    with engines_of(engine, device=device, limit=10**9) as engines:
        decoding = decoding_from("vae", None, 0.25, engines.bundle.manifest)
        list(decode_bytes(engines, latents, decoding, Timings()))
        assert device.memory()[0] < 1000
        pictures = decode_on_device(engines, small, decoding, Timings())
        expected = np.concatenate(list(decode_bytes(engines, small, decoding, Timings())))
        np.testing.assert_array_equal(np.from_dlpack(pictures), expected)
