"""The loop over slots, on the host: against the tables' definition, and what it asks of the device."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest

from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import CaptureError, DeviceError, DeviceMemoryError, EngineError
from latentrt.runtime.loop.denoise import DenoiseStep, denoise
from latentrt.runtime.loop.denoise_plan import TABLE_ROWS
from latentrt.runtime.timing import Timings

from ...kernels.slot_runs import RUNS, by_definition, run_of
from ..function_engine import engines_of
from ..table_loop import SHAPE, Array, engine_for, last_state, linear, linear_engine, run_through, task_of

#: Of float32 against float64: a few roundings in each of some ten steps.
TOLERANCE = 2e-5


def assert_near(ours: Array, theirs: Array) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("name", RUNS)
def test_every_run_ends_where_its_table_says(name: str) -> None:
    run = RUNS[name]
    with engines_of(engine_for(run)) as engines:
        assert_near(run_through(engines, run)[0], by_definition(run, SHAPE))


@pytest.mark.parametrize(
    "name",
    ["euler ancestral", "euler ancestral, noise of a GPU", "dpm++ 3m sde", "edit", "outside a mask", "skipped layers"],
)
def test_images_of_a_batch_are_those_that_each_seed_gives_alone(name: str) -> None:
    runs = [replace(RUNS[name], seed=seed) for seed in (3, 40, 500)]
    with engines_of(engine_for(RUNS[name])) as engines:
        together = run_through(engines, *runs)
        for run, state in zip(runs, together, strict=True):
            np.testing.assert_array_equal(state, run_through(engines, run)[0])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_more_rows_than_the_engine_takes_run_in_parts(limit: int) -> None:
    runs = [replace(RUNS["euler, guidance in the middle"], seed=seed) for seed in range(3)]
    engine = linear_engine(rows=limit)
    with engines_of(engine) as engines, engines_of(linear_engine()) as whole:
        np.testing.assert_array_equal(run_through(engines, *runs), run_through(whole, *runs))
    assert max(engine.rows) == min(limit, 6)
    assert sum(engine.rows[-9 * 6 :]) >= 9 * 3


def test_evaluations_without_guidance_run_half_the_rows() -> None:
    engine = linear_engine()
    with engines_of(engine) as engines:
        run_through(engines, RUNS["euler, guidance in the middle"])
    assert set(engine.rows) == {1, 2}
    guidance = RUNS["euler, guidance in the middle"].table.guidance
    assert engine.rows == [1 if value == 1 else 2 for value in guidance]


def test_half_precision_is_the_engine_s_alone() -> None:
    run = RUNS["dpm++ 2m"]
    with engines_of(linear_engine(dtype="float16")) as engines:
        state = run_through(engines, run)[0]
    expected = by_definition(run, SHAPE)
    assert state.dtype == np.float32
    assert 0 < np.abs(state - expected).max() < 2e-2 * np.abs(expected).max()


def test_a_recorded_step_gives_the_bits_of_one_put_on_the_stream() -> None:
    runs = [replace(RUNS["euler, guidance in the middle"], seed=seed) for seed in (1, 2)]
    with (
        engines_of(linear_engine()) as recorded,
        engines_of(linear_engine(capturable=False)) as plain,
    ):
        for _ in range(2):
            np.testing.assert_array_equal(run_through(recorded, *runs), run_through(plain, *runs))
        assert recorded.runner.device.counts.captures == 2  # of one row and of two
        assert plain.runner.device.counts.captures == 0


def test_warm_sizes_allocate_record_and_wait_for_nothing() -> None:
    sizes = [SHAPE, (4, 6, 4), (4, 3, 10)]
    names = ["euler", "dpm++ 2m", "euler without guidance", "euler ancestral, noise of a GPU"]
    runs = [RUNS[name] for name in names]
    with engines_of(linear_engine()) as engines:
        for size in sizes:
            for run in runs:
                run_through(engines, run, shape=size)
        counts = engines.runner.device.counts
        before = replace(counts)
        for size in sizes:
            for run in runs:
                assert_near(run_through(engines, run, shape=size)[0], by_definition(run, size))
        assert (counts.allocations, counts.captures) == (before.allocations, before.captures)
        # The last state of each run is waited for, and that the device is idle after it; no step is.
        assert counts.synchronizations == before.synchronizations + 2 * len(sizes) * len(runs)


def test_everything_is_freed() -> None:
    device = HostDevice(limit=10**8)
    engine = linear_engine(workspace_bytes=lambda rows: 1000 * rows)
    engines = engines_of(engine, device=device)
    free, _ = device.memory()
    run_through(engines, RUNS["euler"])
    assert device.memory()[0] < free
    engines.close()
    assert device.memory()[0] == free
    assert engine.closed


def test_a_stopped_run_leaves_the_next_one_alone() -> None:
    run = RUNS["dpm++ 2m sde"]
    with engines_of(linear_engine()) as engines:
        whole = run_through(engines, run)
        steps = denoise(engines, task_of([run]), Timings())
        next(steps)
        third = next(steps).latents()
        steps.close()
        assert np.isfinite(third).all()
        np.testing.assert_array_equal(run_through(engines, run), whole)


@pytest.mark.parametrize("name", ["dpm++ 2m", "euler, guidance in the middle", "heun", "edit", "outside a mask"])
def test_sent_latents_are_those_that_the_run_goes_on_from(name: str) -> None:
    run = RUNS[name]
    with engines_of(engine_for(run)) as engines:
        expected = run_through(engines, run)
        steps = denoise(engines, task_of([run]), Timings())
        np.testing.assert_array_equal(rest_of(steps, next(steps).latents()), expected)  # its own change nothing
        # The difference that a difference makes: the rest of the run is linear in the state.
        changed = []
        for factor in (1, 2):
            steps = denoise(engines, task_of([run]), Timings())
            step = next(steps)
            changed.append(rest_of(steps, step.latents() + np.float32(factor)) - expected)
        assert np.abs(changed[0]).max() > 0.01
        assert_near(changed[1], 2 * changed[0])


def rest_of(steps: Generator[DenoiseStep, Array | None, Array], given: Array) -> Array:
    """The last state of a run that goes on from other latents."""
    try:
        steps.send(given)
    except StopIteration as end:
        state: Array = end.value
        return state
    return last_state(steps)


def test_latents_sent_after_the_last_step_are_the_result() -> None:
    run = RUNS["euler"]
    with engines_of(linear_engine()) as engines:
        steps = denoise(engines, task_of([run]), Timings())
        for _ in range(run.table.steps_run):
            step = next(steps)
        given = np.full(step.shape, 0.25, np.float32)
        np.testing.assert_array_equal(rest_of(steps, given), given)


def test_a_table_of_any_length_has_room() -> None:
    run = run_of("heun", 200, guidance=1.0)
    assert run.table.evaluations > TABLE_ROWS
    with engines_of(linear_engine()) as engines:
        assert_near(run_through(engines, run)[0], by_definition(run, SHAPE))


def test_a_refused_recording_is_said_once_and_costs_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engines_of(linear_engine()) as engines:

        def refuse() -> None:
            raise CaptureError("the stream cannot record this")

        monkeypatch.setattr(engines.runner.device.stream, "capture", refuse)
        with caplog.at_level(logging.WARNING):
            for shape in (SHAPE, SHAPE, (4, 5, 7)):
                assert_near(run_through(engines, RUNS["euler"], shape=shape)[0], by_definition(RUNS["euler"], shape))
    assert len(caplog.records) == 1
    assert "the stream cannot record this" in caplog.text


def test_a_workspace_that_grows_has_its_steps_recorded_anew() -> None:
    engine = linear_engine(workspace_bytes=lambda rows: 1 << 10 * rows)
    one, two = RUNS["euler without guidance"], RUNS["euler"]
    with engines_of(engine) as engines:
        counts = engines.runner.device.counts
        run_through(engines, one)
        assert counts.captures == 1
        run_through(engines, two)  # needs more, so the workspace moves
        assert counts.captures == 2
        assert_near(run_through(engines, one)[0], by_definition(one, SHAPE))
        assert counts.captures == 3
        run_through(engines, one)
        run_through(engines, two)
        assert counts.captures == 3


def test_plans_beyond_the_limit_are_dropped_and_made_again(caplog: pytest.LogCaptureFixture) -> None:
    run = RUNS["euler"]
    with engines_of(linear_engine(), limit=60_000) as engines, caplog.at_level(logging.INFO):
        for size in (SHAPE, (4, 6, 9), (4, 6, 8), SHAPE):
            assert_near(run_through(engines, run, shape=size)[0], by_definition(run, size))
    assert "dropped the plan for latents of 10x6, 2 rows for 1 at a time" in caplog.messages[0]
    assert engines.runner.device.memory()[0] == engines.runner.device.memory()[1]


def test_what_does_not_fit_is_refused_and_what_fits_still_runs() -> None:
    run = RUNS["euler"]
    device = HostDevice(limit=200_000)
    engine = linear_engine(workspace_bytes=lambda rows: 50_000)
    with engines_of(engine, device=device, limit=10**9) as engines:
        expected = run_through(engines, run)
        with pytest.raises(DeviceMemoryError, match=r"the host: not enough memory .* GB free .* lower width, height"):
            run_through(engines, run, shape=(4, 60, 60))
        np.testing.assert_array_equal(run_through(engines, run), expected)
        for height in range(1, 7):  # one more plan than fits makes the oldest go
            run_through(engines, run, shape=(4, height, 10))
    assert device.memory()[0] == 200_000


def test_a_failed_device_fails_the_run_and_breaks_the_pipeline() -> None:
    run, engine = RUNS["euler"], linear_engine()
    engines = engines_of(engine)
    expected = run_through(engines, run)
    assert np.isfinite(expected).all()

    def fail(inputs: object) -> dict[str, np.ndarray]:
        raise DeviceError("GPU 0: CUDA_ERROR_ILLEGAL_ADDRESS")

    engine.function = fail
    with pytest.raises(DeviceError, match="ILLEGAL_ADDRESS"):
        run_through(engines, run)
    with pytest.raises(EngineError, match="broken since an earlier call: GPU 0: CUDA_ERROR_ILLEGAL_ADDRESS"):
        run_through(engines, run)
    engines.close()


def test_an_engine_that_refuses_once_does_not_break_the_pipeline() -> None:
    run, engine = RUNS["euler"], linear_engine()
    with engines_of(engine) as engines:
        expected, function = run_through(engines, run), engine.function

        def refuse(inputs: object) -> dict[str, np.ndarray]:
            raise EngineError("denoiser: refused")

        engine.function = refuse
        with pytest.raises(EngineError, match="refused"):
            run_through(engines, run)
        engine.function = function
        np.testing.assert_array_equal(run_through(engines, run), expected)


def test_a_run_inside_of_another_one_s_step_has_a_plan_of_its_own() -> None:
    outer, inner = RUNS["dpm++ 2m sde"], replace(RUNS["dpm++ 2m sde"], seed=99)
    with engines_of(linear_engine()) as engines:
        expected = run_through(engines, outer)
        steps = denoise(engines, task_of([outer]), Timings())
        next(steps)
        assert_near(run_through(engines, inner)[0], by_definition(inner, SHAPE))
        np.testing.assert_array_equal(last_state(steps), expected)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_an_estimate_is_the_prediction_of_the_model(rescale: float) -> None:
    """After one deterministic step of order 1, x0 = x - sigma eps of the state before the step."""
    run, engine = run_of("euler", 5, guidance=3.0, guidance_rescale=rescale), linear_engine()
    calls: list[tuple[np.ndarray, np.ndarray]] = []

    def record(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = linear(inputs)
        calls.append((inputs["sample"].copy(), outputs["model_output"]))
        return outputs

    engine.function = record
    with engines_of(engine) as engines:
        for k, step in enumerate(denoise(engines, task_of([run]), Timings())):
            sample, (conditional, unconditional) = calls[k]
            eps = unconditional + 3 * (conditional - unconditional)
            eps = eps * (1 - rescale + rescale * conditional.std() / eps.std())
            x = sample[0] / run.table.input_scale[k]
            np.testing.assert_allclose(step.denoised()[0], x - run.table.state_noise[k] * eps, atol=2e-4)


@pytest.mark.parametrize("name", ["edit", "skipped layers"])
def test_an_estimate_of_three_rows_ends_where_the_run_ends(name: str) -> None:
    with engines_of(engine_for(RUNS[name])) as engines:
        for step in denoise(engines, task_of([RUNS[name]]), Timings()):
            estimate, latents = step.denoised(), step.latents()
    np.testing.assert_allclose(estimate, latents, atol=1e-5)  # the last state has no noise
