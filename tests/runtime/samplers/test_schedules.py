"""Formulas that diffusers does not have, against independent statements of them; and explicit schedules against it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from diffusers.schedulers.scheduling_utils import AysSchedules

from latentrt.runtime.samplers import build_table, model_schedule_from_config
from latentrt.runtime.samplers.beta_quantiles import beta_quantiles
from latentrt.runtime.samplers.settings import training_schedule

from .diffusers_probe import make, probe, row_error
from .parity_cases import COSINE, LINEAR, STABLE_DIFFUSION

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

SD = model_schedule_from_config({"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION})
SIGMAS = training_schedule(SD).sigmas


def sigmas(schedule: str, steps: int, sampler: str = "euler") -> np.ndarray:
    return build_table(sampler, schedule, steps, SD).sigmas


@pytest.mark.parametrize("betas", [STABLE_DIFFUSION, LINEAR, COSINE])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_training_schedule(betas: dict[str, object], zero_snr: bool):
    """alphas_cumprod to the last bit; after rescaling, by torch's float32 square root, which is not to the last bit."""
    config = {**betas, "rescale_betas_zero_snr": zero_snr, "clip_sample": False}
    theirs = make("DDIMScheduler", config).alphas_cumprod.numpy()
    ours = training_schedule(model_schedule_from_config({"_class_name": "DDIMScheduler", **config})).alphas_cumprod
    np.testing.assert_allclose(ours, theirs, rtol=1e-5 if zero_snr else 0, atol=0)
    assert ours[-1] == 0 or not zero_snr


def test_trained_betas():
    betas = np.linspace(0.001, 0.02, 1000).tolist()
    config = {"trained_betas": betas, "clip_sample": False}
    theirs = make("DDIMScheduler", config).alphas_cumprod.numpy()
    ours = training_schedule(model_schedule_from_config({"_class_name": "DDIMScheduler", **config})).alphas_cumprod
    np.testing.assert_array_equal(ours, theirs)


def test_beta_quantiles_equal_scipy():
    probabilities = np.concatenate([np.linspace(0, 1, 1001), [1e-12, 1e-6, 1 - 1e-6, 1 - 1e-12]])
    expected = scipy.stats.beta.ppf(probabilities, 0.6, 0.6)
    np.testing.assert_allclose(beta_quantiles(probabilities), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 10, 30])
def test_beta_timesteps(steps: int):
    """Lee et al. 2024: timesteps at the quantiles of a Beta distribution, as ComfyUI takes them from its sigmas."""
    probabilities = 1 - np.linspace(0, 1, steps, endpoint=False)
    expected = SIGMAS[np.rint(scipy.stats.beta.ppf(probabilities, 0.6, 0.6) * 999).astype(int)]
    tie = probabilities == 0.5  # timestep 499.5
    np.testing.assert_allclose(sigmas("beta_timesteps", steps)[:-1][~tie], expected[~tie], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 30, 64, 999])
def test_what_comfyui_calls_simple_and_sgm_uniform_and_ddim_uniform(steps: int):
    """ComfyUI's samplers.py (and A1111's sd_schedulers.py) round in other places than diffusers' spacings.

    simple: 999 - int(1000 i / steps); sgm_uniform: steps + 1 even fractional timesteps without the last; ddim_uniform:
    every (1000 // steps)-th timestep from 1 up to the end, however many that are.
    """
    index = np.arange(steps)
    ours = build_table("euler", "simple", steps, SD).timesteps
    np.testing.assert_array_equal(ours, build_table("euler", "sgm_uniform", steps, SD).timesteps)
    assert set(999 - (1000 / steps * index).astype(int) - ours) <= {0, 1}
    assert np.abs(np.linspace(999, 0, steps + 1)[:-1] - ours).max() < 1.5
    every = np.arange(1, 1000, 1000 // steps)[::-1]
    np.testing.assert_array_equal(build_table("euler", "ddim_uniform", steps, SD).timesteps, every[-steps:])


@pytest.mark.parametrize("steps", [2, 10, 30])
def test_kl_optimal(steps: int):
    """Sabour et al. 2024, theorem 3.1: sigma_i = tan(i/n atan(lowest) + (1 - i/n) atan(highest))."""
    low, high = math.atan(SIGMAS[0]), math.atan(SIGMAS[-1])
    expected = [math.tan(i / (steps - 1) * low + (1 - i / (steps - 1)) * high) for i in range(steps)]
    np.testing.assert_allclose(sigmas("kl_optimal", steps)[:-1], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "name"), [("ays_sd1", "StableDiffusionSigmas"), ("ays_sdxl", "StableDiffusionXLSigmas")]
)
def test_align_your_steps(schedule: str, name: str):
    """Ten steps are diffusers' list; others lie between its points, in proportion to the logarithm."""
    np.testing.assert_allclose(sigmas(schedule, 10), AysSchedules[name], rtol=1e-6)
    twenty = sigmas(schedule, 20)
    np.testing.assert_allclose(twenty[:-1:2], AysSchedules[name][:-1], rtol=1e-6)
    middles = [math.sqrt(a * b) for a, b in pairwise(AysSchedules[name][:-1])]
    np.testing.assert_allclose(twenty[1:-2:2], middles, rtol=1e-6)
    assert twenty[-1] == 0


def test_karras_and_exponential_and_lu():
    n = 12
    karras = [
        (SIGMAS[-1] ** (1 / 7) + i / (n - 1) * (SIGMAS[0] ** (1 / 7) - SIGMAS[-1] ** (1 / 7))) ** 7 for i in range(n)
    ]
    np.testing.assert_allclose(sigmas("karras", n, "dpmpp_2m")[:-1], karras, rtol=1e-6)
    ratios = np.diff(np.log(sigmas("exponential", n, "dpmpp_2m")[:-1]))
    np.testing.assert_allclose(ratios, np.log(SIGMAS[0] / SIGMAS[-1]) / (n - 1), rtol=1e-5)
    np.testing.assert_allclose(sigmas("lu", n, "dpmpp_2m"), sigmas("exponential", n, "dpmpp_2m"), rtol=1e-6)


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_a", "heun", "lms", "dpmpp_2m", "dpmpp_3m_sde", "unipc", "dpmpp_sde"]
)
@pytest.mark.parametrize("schedule", ["karras", "exponential", "beta", "beta_timesteps", "kl_optimal", "ays_sd1", "lu"])
def test_samplers_on_sigmas_share_their_spacings(sampler: str, schedule: str):
    table = build_table(sampler, schedule, 12, SD)
    first = np.concatenate([[True], np.diff(table.step) > 0])
    np.testing.assert_allclose(table.sigmas[:-1][first], sigmas(schedule, 12)[:-1], rtol=1e-6)


@pytest.mark.parametrize(
    ("class_name", "config", "timesteps"),
    [
        ("EulerDiscreteScheduler", {}, [999, 600.5, 300, 20]),
        ("HeunDiscreteScheduler", {}, [999, 600, 300, 20]),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, [999, 850, 700, 450, 200, 24]),
        ("DPMSolverSinglestepScheduler", {}, [999, 850, 700, 450, 200, 24]),
        ("DDPMScheduler", {"clip_sample": False}, [999, 700, 400, 100]),
        ("LCMScheduler", {}, [999, 759, 499, 259]),
        ("TCDScheduler", {}, [999, 759, 499, 259]),
    ],
)
def test_explicit_timesteps(class_name: str, config: dict[str, object], timesteps: list[float]):
    scheduler = make(class_name, {**STABLE_DIFFUSION, **config})
    scheduler.set_timesteps(timesteps=timesteps)
    table = build_table(
        None,
        None,
        None,
        model_schedule_from_config({"_class_name": class_name, **STABLE_DIFFUSION, **config}),
        timesteps=timesteps,
    )
    reference = probe(scheduler)
    assert row_error(table.linear_map(), reference.states) <= 1e-5
    np.testing.assert_array_equal(table.timesteps, reference.timesteps)
    assert table.num_inference_steps == len(timesteps)


def test_explicit_sigmas():
    levels = [14.6, 7.0, 3.0, 1.0, 0.2, 0.0]
    scheduler = make("EulerDiscreteScheduler", STABLE_DIFFUSION)
    scheduler.set_timesteps(sigmas=levels)
    table = build_table("euler", None, None, SD, sigmas=levels)
    reference = probe(scheduler)
    assert row_error(table.linear_map(), reference.states) <= 1e-5
    np.testing.assert_allclose(table.timesteps, reference.timesteps, atol=2e-3)
    np.testing.assert_allclose(build_table("dpmpp_2m", None, None, SD, sigmas=levels).sigmas, levels, rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"sigmas": [1.0, 0.7, 0.4, 0.1]}, {"timesteps": [1000.0, 700.0, 400.0, 100.0]}])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_explicit_flow_schedules(shift: float, arguments: dict[str, list[float]]):
    scheduler = make("FlowMatchEulerDiscreteScheduler", {"shift": shift})
    scheduler.set_timesteps(**arguments)
    model = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift})
    table = build_table(None, None, None, model, **arguments)
    reference = probe(scheduler)
    assert row_error(table.linear_map(), reference.states) <= 1e-5
    np.testing.assert_allclose(table.timesteps, reference.timesteps, rtol=1e-6)


def test_image_size_gives_the_shift():
    """calculate_shift of diffusers' SD3 pipeline."""
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    config = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.16}
    model = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", **config})
    for patches in (1024, 4096, 6400):
        scheduler = make("FlowMatchEulerDiscreteScheduler", config)
        scheduler.set_timesteps(20, mu=calculate_shift(patches, 256, 4096, 0.5, 1.16))
        reference = probe(scheduler)
        ours = build_table(None, None, 20, model, image_seq_len=patches)
        assert row_error(ours.linear_map(), reference.states) <= 1e-5
        np.testing.assert_allclose(ours.timesteps, reference.timesteps, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_dpmpp_3m_sde(steps: int, eta: float):
    """k-diffusion's sample_dpmpp_3m_sde, stated in its own variance-exploding terms."""
    table = build_table("dpmpp_3m_sde", "karras", steps, SD, eta=eta)
    levels, n, draws = table.sigmas, table.evaluations, int(table.draws_noise.sum())
    basis = np.eye(1 + n + draws)
    x, history, gaps = basis[0] * np.hypot(levels[0], 1), [], []  # its states are ours times sqrt(1 + sigma²)
    for k in range(n):
        sigma, sigma_next = levels[k], levels[k + 1]
        np.testing.assert_allclose(table.linear_map()[k], x / np.hypot(sigma, 1), atol=1e-9)
        denoised = x - sigma * basis[1 + k]
        history.insert(0, denoised)
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        h_eta = h * (eta + 1)
        x = math.exp(-h_eta) * x + -math.expm1(-h_eta) * denoised
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        phi_3 = phi_2 / h_eta - 0.5
        if len(history) >= 3:
            r0, r1 = gaps[0] / h, gaps[1] / h
            d1_0, d1_1 = (history[0] - history[1]) / r0, (history[1] - history[2]) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            x = x + phi_2 * d1 - phi_3 * (d1_0 - d1_1) / (r0 + r1)
        elif len(history) == 2:
            x = x + phi_2 * (history[0] - history[1]) / (gaps[0] / h)
        if eta:
            x = x + basis[1 + n + k] * sigma_next * math.sqrt(-math.expm1(-2 * h * eta))
        gaps.insert(0, h)
    np.testing.assert_allclose(table.linear_map()[n], x, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpmpp_2s_ancestral(steps: int):
    """k-diffusion's sample_dpmpp_2s_ancestral, stated in t = -log(sigma)."""
    table = build_table("dpmpp_2s_a", "karras", steps, SD)
    first = np.concatenate([[True], np.diff(table.step) > 0])
    levels = np.append(table.sigmas[:-1][first], 0.0)
    n, draws = table.evaluations, int(table.draws_noise.sum())
    basis = np.eye(1 + n + draws)
    x, k, drawn = basis[0], 0, 0
    for sigma, sigma_next in pairwise(levels):
        denoised = x - sigma * basis[1 + k]
        k += 1
        if sigma_next == 0:
            x = denoised
            continue
        up = min(sigma_next, math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
        down = math.sqrt(sigma_next**2 - up**2)
        t, t_next = -math.log(sigma), -math.log(down)
        h = t_next - t
        s = t + h / 2
        x_2 = math.exp(-s) / math.exp(-t) * x - math.expm1(-h / 2) * denoised
        np.testing.assert_allclose(table.linear_map()[k], x_2, atol=1e-9)
        denoised_2 = x_2 - math.exp(-s) * basis[1 + k]
        k += 1
        x = math.exp(-t_next) / math.exp(-t) * x - math.expm1(-h) * denoised_2 + up * basis[1 + n + drawn]
        drawn += 1
    np.testing.assert_allclose(table.linear_map()[n], x, atol=1e-9)


def test_ipndm_on_sigmas():
    """Zhang and Chen 2022 as ComfyUI has it: Adams-Bashforth weights for equal steps on unequal ones."""
    table = build_table("ipndm", "karras", 6, SD)
    basis, levels = np.eye(7), table.sigmas
    x = basis[0]
    weights = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for k in range(6):
        slopes = [basis[1 + k - j] for j in range(min(k + 1, 4))]
        x = x + (levels[k + 1] - levels[k]) * sum(w * d for w, d in zip(weights[len(slopes) - 1], slopes, strict=True))
    np.testing.assert_allclose(table.linear_map()[6], x, atol=1e-12)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_brownian_noise_names_the_sigmas_of_every_draw(sampler: str):
    table = build_table(sampler, "karras", 5, SD, noise="brownian")
    assert table.noise == "brownian"
    assert table.noise_range == (pytest.approx(SIGMAS[0], rel=1e-6), pytest.approx(SIGMAS[-1], rel=1e-6))
    assert (table.noise_sigmas[:, 0] > table.noise_sigmas[:, 1]).all()
    assert set(table.noise_sigmas[:, 0]) <= set(table.sigmas)
    gaussian = build_table(sampler, "karras", 5, SD)
    assert gaussian.noise == "gaussian"
    np.testing.assert_array_equal(gaussian.linear_map(), table.linear_map())
