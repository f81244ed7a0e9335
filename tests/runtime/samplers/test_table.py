"""Tables as values: shapes, immutability, caching, threads, repr, guidance."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from latentrt.runtime.errors import RequestError
from latentrt.runtime.samplers import SamplerTable, build_table, model_schedule_from_config, sampler_names
from latentrt.runtime.samplers.build import table_from_request
from latentrt.runtime.samplers.registry import BY_NAME

from .parity_cases import STABLE_DIFFUSION

SDXL = model_schedule_from_config(
    {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.42.1",
        **STABLE_DIFFUSION,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "trained_betas": None,
    }
)
NAMES = {"build_table": build_table, "model_schedule_from_config": model_schedule_from_config}
TRAINED = [name for name in sampler_names() if "trained" in BY_NAME[name].kinds]


def arrays(table: SamplerTable) -> dict[str, np.ndarray]:
    return {name: value for name, value in vars(table).items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("name", TRAINED)
def test_shapes(name: str):
    table = build_table(name, None, 12, SDXL)
    n, draws = table.evaluations, int(table.draws_noise.sum())
    for field in (
        "timesteps",
        "input_scale",
        "state_to_stored",
        "output_to_stored",
        "state_weight",
        "guidance",
        "step",
    ):
        assert getattr(table, field).shape == (n,), field
    assert table.history_weights.shape == (n, table.history_weights.shape[1])
    assert table.noise_weights.shape[0] == n
    assert table.noise_sigmas.shape == (draws, 2)
    for field in ("sigmas", "state_signal", "state_noise"):
        assert getattr(table, field).shape == (n + 1,), field
    assert table.output_signal.shape == table.output_noise.shape == (n,)
    assert table.linear_map().shape == (n + 1, 1 + n + draws)
    assert {array.dtype for array in arrays(table).values()} <= {np.dtype(kind) for kind in ("f8", "?", "i8")}
    assert table.stochastic == bool(draws) == (draws > 0)
    assert (n > 12) == (BY_NAME[name].evaluations_per_step == 2 or name == "plms")


def test_tables_are_immutable():
    table = build_table("dpmpp_2m", None, 10, SDXL)
    with pytest.raises(AttributeError):
        table.order = 3  # type: ignore[misc]
    for array in arrays(table).values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("name", [None, *TRAINED])
def test_repr_rebuilds_the_table(name: str | None):
    table = build_table(
        name, None, 7, SDXL, guidance_scale=[1.0, *[5.0] * 6], guidance_interval=(0.2, 0.9), strength=1.0
    )
    table_from_request.cache_clear()
    again = eval(repr(table), NAMES)
    assert again is not table
    assert repr(again) == repr(table)
    for field, array in arrays(table).items():
        np.testing.assert_array_equal(array, getattr(again, field), err_msg=field)


TWO_BETAS = {"num_train_timesteps": 2, "trained_betas": [0.1, 0.2]}


def test_repr_of_infinities_and_lists():
    model = model_schedule_from_config(
        {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -float("inf"), **TWO_BETAS}
    )
    assert eval(repr(model), NAMES) == model
    table = build_table(None, None, None, SDXL, timesteps=[900, 500, 100])
    assert eval(repr(table), NAMES) is table


def test_tables_are_cached_by_all_arguments():
    table = build_table("dpmpp_2m", "karras", 20, SDXL, guidance_scale=5.0)
    assert build_table("dpmpp_2m", "karras", 20, SDXL, guidance_scale=5.0) is table
    same_model = model_schedule_from_config({"_class_name": SDXL.class_name, **dict(SDXL.fields)})
    assert build_table("dpmpp_2m", "karras", 20, same_model, guidance_scale=5.0) is table
    assert build_table("dpmpp_2m", "karras", 20, SDXL, guidance_scale=5.5) is not table
    assert build_table("dpmpp_2m", "karras", 20, SDXL, guidance_scale=5.0, solver_order=3) is not table


def test_threads_get_the_same_tables():
    """Nothing is shared but finished tables: many threads building different ones agree with a single thread."""
    jobs = [(name, steps) for name in TRAINED for steps in (5, 9)]
    expected = [build_table(name, None, steps, SDXL).linear_map() for name, steps in jobs]
    table_from_request.cache_clear()
    failures: list[str] = []
    barrier = threading.Barrier(8)

    def work(offset: int) -> None:
        barrier.wait()
        for index in range(len(jobs)):
            job = (index + 5 * offset) % len(jobs)
            name, steps = jobs[job]
            if not np.array_equal(build_table(name, None, steps, SDXL).linear_map(), expected[job]):
                failures.append(name)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("name", TRAINED)
def test_building_fifty_steps_is_quick(name: str):
    """At most 5 ms, and 10 us from the cache (generous bounds here: tests share their processors)."""
    build_table(name, None, 50, SDXL)
    times = []
    for _ in range(5):
        table_from_request.cache_clear()
        start = time.perf_counter()
        build_table(name, None, 50, SDXL)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02
    start = time.perf_counter()
    for _ in range(1000):
        build_table(name, None, 50, SDXL)
    assert (time.perf_counter() - start) / 1000 < 5e-5


def test_guidance_is_constant_in_an_interval_or_a_list():
    assert build_table("euler", None, 4, SDXL).guidance.tolist() == [1.0] * 4
    assert build_table("euler", None, 4, SDXL, guidance_scale=5.0).guidance.tolist() == [5.0] * 4
    inside = build_table("euler", None, 10, SDXL, guidance_scale=5.0, guidance_interval=(0.2, 0.5)).guidance
    assert inside.tolist() == [1.0] * 2 + [5.0] * 3 + [1.0] * 5
    everywhere = build_table("euler", None, 10, SDXL, guidance_scale=5.0, guidance_interval=(0.0, 1.0)).guidance
    assert everywhere.tolist() == [5.0] * 10
    listed = build_table("heun", None, 3, SDXL, guidance_scale=[1.0, 2.0, 3.0])
    assert listed.guidance.tolist() == [1.0, 1.0, 2.0, 2.0, 3.0]
    assert listed.step.tolist() == [0, 0, 1, 1, 2]


def test_numpy_arguments_are_those_of_python():
    table = build_table("euler", None, None, SDXL, timesteps=np.asarray([900.0, 400.0]), guidance_scale=np.float32(5))
    assert build_table("euler", None, None, SDXL, timesteps=[900.0, 400.0], guidance_scale=5.0) is table


def test_guidance_of_a_partial_run_counts_its_own_steps():
    table = build_table("euler", None, 10, SDXL, guidance_scale=5.0, guidance_interval=(0.0, 0.5), strength=0.4)
    assert table.guidance.tolist() == [5.0, 5.0, 1.0, 1.0]
    assert build_table("euler", None, 10, SDXL, guidance_scale=[1, 2, 3, 4], strength=0.4).guidance.tolist() == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"guidance_scale": [1.0, 2.0]},
        {"guidance_scale": float("nan")},
        {"guidance_interval": (0.5, 0.2)},
        {"guidance_interval": (-0.1, 0.2)},
        {"guidance_interval": (0.0, 1.1)},
        {"guidance_interval": (0.5,)},
        {"guidance_interval": 0.5},
        {"guidance_scale": "five"},
        {"guidance_scale": {"a": 1}},
    ],
)
def test_bad_guidance_is_refused(arguments: dict[str, object]):
    with pytest.raises(RequestError, match="guidance"):
        build_table("euler", None, 5, SDXL, **arguments)


@pytest.mark.parametrize("name", TRAINED)
def test_a_stored_output_has_weight_one_in_its_own_update(name: str):
    table = build_table(name, "linspace" if name in ("euler", "dpmpp_2m", "unipc") else None, 12, SDXL)
    assert set(table.history_weights[:, 0].tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", ["euler", "heun", "ddim", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("options", [{}, {"strength": 0.6}, {"denoising_end": 0.5}])
def test_what_states_and_outputs_are_made_of(name: str, options: dict[str, float]):
    """Of one image and one noise the run of a perfect denoiser passes through the states that the table names."""
    table = build_table(name, None, 10, SDXL, **options)
    np.testing.assert_array_equal(table.output_signal, 0.0)  # epsilon
    np.testing.assert_array_equal(table.output_noise, 1.0)
    image, noise = np.asarray([1.0, 0.0]), np.asarray([0.0, 1.0])
    start = table.start_signal * image + table.start_noise * noise
    states = table.linear_map() @ np.vstack(
        [start, np.outer(table.output_signal, image) + np.outer(table.output_noise, noise)]
    )
    np.testing.assert_allclose(
        states, np.outer(table.state_signal, image) + np.outer(table.state_noise, noise), atol=1e-9
    )


def test_linear_map_is_what_running_the_table_does():
    table = build_table("dpmpp_sde", "karras", 6, SDXL)
    source = np.random.default_rng(0)
    n, draws = table.evaluations, int(table.draws_noise.sum())
    x, outputs, noises = source.normal(size=5), source.normal(size=(n, 5)), source.normal(size=(draws, 5))
    states = table.linear_map() @ np.vstack([x[None], outputs, noises])
    stored: list[np.ndarray] = []
    latest: list[np.ndarray] = []
    remaining = list(noises)
    for k in range(n):
        np.testing.assert_allclose(states[k], x, atol=1e-9)
        stored.insert(0, table.state_to_stored[k] * x + table.output_to_stored[k] * outputs[k])
        if table.draws_noise[k]:
            latest.insert(0, remaining.pop(0))
        x = table.state_weight[k] * x
        x = x + sum(w * d for w, d in zip(table.history_weights[k], stored, strict=False))
        x = x + sum(w * z for w, z in zip(table.noise_weights[k], latest, strict=False))
    np.testing.assert_allclose(states[n], x, atol=1e-9)
    assert not remaining
