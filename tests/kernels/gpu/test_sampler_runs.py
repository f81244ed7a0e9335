"""Whole runs of samplers through the kernel of a step, against the tables' definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrt.kernels.gpu.denoise_step import denoise_step
from latentrt.kernels.gpu.philox_normal import philox_normal
from latentrt.kernels.slots import Slots

from ..slot_runs import MakeNoise, Run, by_definition, over_slots, run_of
from .conftest import Launch

SHAPE = (4, 7, 9)
SAMPLERS = {
    "euler": run_of("euler", 4),
    "euler ancestral": run_of("euler_a", 5),
    "euler, guidance in the middle, outside a mask": run_of(
        "euler", 6, table={"guidance_interval": (0.3, 0.7)}, kept=True
    ),
    "edit": run_of("euler", 4, guidance=7.5, image_guidance_scale=1.5),
    "skipped layers": run_of("euler", 4, skip_scales=(0, 2.8, 2.8, 0)),
    "heun": run_of("heun", 3),
    "lms": run_of("lms", 6),
    "pndm": run_of("pndm", 5),
    "dpm++ 2m": run_of("dpmpp_2m", 5),
    "dpm++ 3m sde": run_of("dpmpp_3m_sde", 5),
    "unipc": run_of("unipc", 6),
    "sa solver": run_of("sa_solver", 6),
}


def assert_same_ends(launch: Launch, runs: Mapping[str, Run], make_noise: MakeNoise | None = None) -> None:
    def step(slots: Slots[NDArray[Any]], *arguments: NDArray[Any]) -> None:
        launch(denoise_step, slots, *arguments)

    last = over_slots(step, list(runs.values()), SHAPE, make_noise)
    for name, state in zip(runs, last, strict=True):
        expected = by_definition(runs[name], SHAPE)
        np.testing.assert_allclose(state, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_samplers_side_by_side_end_where_each_ends_alone(launch: Launch) -> None:
    """One launch a step for all of them; those that are done wait for the others."""
    assert_same_ends(launch, SAMPLERS)


def test_nothing_but_launches_runs_a_sampler_that_draws_noise(launch: Launch) -> None:
    """Each step leaves behind which draw the next one needs, and where it is to be put."""
    names = ("euler_a", "dpm2_a", "ddpm", "euler")
    runs = {name: run_of(name, 4, rng="philox") for name in names}

    def make_noise(slots: Slots[NDArray[Any]], seeds: NDArray[np.int64]) -> None:
        launch(philox_normal, slots.noise, seeds, slots.draws)

    assert_same_ends(launch, runs, make_noise)
