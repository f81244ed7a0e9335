"""The constructor fields of diffusers' schedulers and their defaults: what a ``scheduler_config.json`` may hold."""

from __future__ import annotations

import math

from .model_schedule import Value

Fields = dict[str, Value]

TRAINING: Fields = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
}
STABLE_DIFFUSION: Fields = {**TRAINING, "beta_start": 0.00085, "beta_end": 0.012}
SPACING: Fields = {"timestep_spacing": "linspace", "steps_offset": 0}
RAMPS: Fields = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
EPSILON: Fields = {"prediction_type": "epsilon"}
THRESHOLDING: Fields = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIPPING: Fields = {"clip_sample": True, "clip_sample_range": 1.0}
FLOW: Fields = {"use_flow_sigmas": False, "flow_shift": 1.0}
SHIFTING: Fields = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
#: How the shift of a rectified flow grows with the size, also where a scheduler does not say.
DYNAMIC_SHIFT: dict[str, float] = {
    "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
}  # fmt: skip
ZERO_SNR: Fields = {"rescale_betas_zero_snr": False}
SOLVER: Fields = {**TRAINING, **EPSILON, **RAMPS, **THRESHOLDING, **FLOW, "lower_order_final": True}
DISTILLED: Fields = {
    **STABLE_DIFFUSION,
    **SPACING,
    **EPSILON,
    **THRESHOLDING,
    **CLIPPING,
    **ZERO_SNR,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "timestep_spacing": "leading",
    "set_alpha_to_one": True,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}
DPM_SOLVER: Fields = {
    **SOLVER,
    **SHIFTING,
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}

CLASSES: dict[str, Fields] = {
    "EulerDiscreteScheduler": {
        **TRAINING,
        **SPACING,
        **RAMPS,
        **EPSILON,
        **ZERO_SNR,
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**TRAINING, **SPACING, **EPSILON, **ZERO_SNR},
    "HeunDiscreteScheduler": {
        **STABLE_DIFFUSION,
        **SPACING,
        **RAMPS,
        **EPSILON,
        **CLIPPING,
        "clip_sample": False,
    },
    "KDPM2DiscreteScheduler": {**STABLE_DIFFUSION, **SPACING, **RAMPS, **EPSILON},
    "KDPM2AncestralDiscreteScheduler": {**STABLE_DIFFUSION, **SPACING, **RAMPS, **EPSILON},
    "LMSDiscreteScheduler": {**TRAINING, **SPACING, **RAMPS, **EPSILON},
    "DPMSolverSDEScheduler": {**STABLE_DIFFUSION, **SPACING, **RAMPS, **EPSILON, "noise_sampler_seed": None},
    "DDIMScheduler": {
        **TRAINING,
        **SPACING,
        **EPSILON,
        **THRESHOLDING,
        **CLIPPING,
        **ZERO_SNR,
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
    },
    "DDPMScheduler": {
        **TRAINING,
        **SPACING,
        **EPSILON,
        **THRESHOLDING,
        **CLIPPING,
        **ZERO_SNR,
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
    },
    "PNDMScheduler": {
        **TRAINING,
        **SPACING,
        **EPSILON,
        "timestep_spacing": "leading",
        "skip_prk_steps": False,
        "set_alpha_to_one": False,
    },
    "LCMScheduler": DISTILLED,
    "TCDScheduler": DISTILLED,
    "DPMSolverMultistepScheduler": {
        **DPM_SOLVER,
        **SPACING,
        **ZERO_SNR,
        "euler_at_final": False,
        "use_lu_lambdas": False,
    },
    "DPMSolverSinglestepScheduler": {**DPM_SOLVER, "lower_order_final": False},
    "DEISMultistepScheduler": {
        **SOLVER,
        **SPACING,
        **SHIFTING,
        "solver_order": 2,
        "algorithm_type": "deis",
        "solver_type": "logrho",
    },
    "UniPCMultistepScheduler": {
        **SOLVER,
        **SPACING,
        **SHIFTING,
        **ZERO_SNR,
        "solver_order": 2,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": (),
        "solver_p": None,
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    },
    "SASolverScheduler": {
        **SOLVER,
        **SPACING,
        "predictor_order": 2,
        "corrector_order": 2,
        "tau_func": None,
        "algorithm_type": "data_prediction",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    },
    "IPNDMScheduler": {"num_train_timesteps": 1000, "trained_betas": None},
    "EDMEulerScheduler": {
        **EPSILON,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_data": 0.5,
        "sigma_schedule": "karras",
        "num_train_timesteps": 1000,
        "rho": 7.0,
        "final_sigmas_type": "zero",
    },
    "FlowMatchEulerDiscreteScheduler": {
        **RAMPS,
        **SHIFTING,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        **DYNAMIC_SHIFT,
        "invert_sigmas": False,
        "shift_terminal": None,
        "stochastic_sampling": False,
    },
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
}

# Fields that a scheduler's constructor takes and its sampling never reads.
UNREAD: dict[str, frozenset[str]] = {
    "LCMScheduler": frozenset({"timestep_spacing", "steps_offset", "set_alpha_to_one"}),
    "TCDScheduler": frozenset({"timestep_spacing", "steps_offset", "set_alpha_to_one", "timestep_scaling"}),
    "DEISMultistepScheduler": frozenset({"algorithm_type", "solver_type"}),  # one choice each
}

# Fields of the solvers that are not read where ``use_flow_sigmas`` spaces the steps.
UNREAD_WITH_FLOW = frozenset({"timestep_spacing", "steps_offset", "lambda_min_clipped", "sigma_min", "sigma_max"})

# Fields whose values depend on the scheduler.
CLASS_CHOICES: dict[str, dict[str, tuple[Value, ...]]] = {
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
        "solver_type": ("midpoint", "heun"),
        "solver_order": (1, 2, 3),
        "time_shift_type": ("exponential",),
        "variance_type": (None, "learned", "learned_range"),
    },
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"),
        "solver_type": ("midpoint", "heun"),
        "solver_order": (1, 2, 3),
        "time_shift_type": ("exponential",),
        "variance_type": (None, "learned", "learned_range"),
    },
    "DEISMultistepScheduler": {
        "algorithm_type": ("deis",),
        "solver_type": ("logrho",),
        "solver_order": (1, 2, 3),
        "time_shift_type": ("exponential",),
    },
    "UniPCMultistepScheduler": {"solver_type": ("bh1", "bh2"), "solver_order": (1, 2, 3)},
    "SASolverScheduler": {
        "algorithm_type": ("data_prediction", "noise_prediction"),
        "predictor_order": (1, 2, 3, 4),
        "corrector_order": (1, 2, 3, 4),
        "variance_type": (None, "learned", "learned_range"),
    },
    "DDPMScheduler": {
        "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
    },
    "EDMEulerScheduler": {"sigma_schedule": ("karras", "exponential")},
}
