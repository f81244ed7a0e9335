"""The scheduler configurations whose linear maps are compared with diffusers'.

Every scheduler has factors (prediction type, spacing, order, ...), each with a few values. The quick tests take a
pairwise covering: every two values of every two factors meet in some case. The slow test samples the full product.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

STEPS = (1, 2, 3, 5, 10, 20, 25, 50)

Fields = Mapping[str, object]
Factor = Sequence[Fields]  # alternative sets of fields

# Arguments of set_timesteps and of step; everything else is a field of the scheduler.
SET_TIMESTEPS = frozenset({"mu"})
STEP = frozenset({"eta"})


def values(name: str, *choices: object) -> Factor:
    """One field with several values."""
    return [{name: choice} for choice in choices]


STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
BETAS: Factor = [STABLE_DIFFUSION, LINEAR, COSINE]
BETAS_OR_ZERO_SNR: Factor = [*BETAS, {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True}]
EPS_V = values("prediction_type", "epsilon", "v_prediction")
EPS_V_SAMPLE = [*EPS_V, {"prediction_type": "sample"}]
SPACINGS: Factor = [
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
]
RAMPS: Factor = [{}, *({flag: True} for flag in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"))]
RANGES: Factor = [{}, {"sigma_min": 0.05, "sigma_max": 10.0}]
ORDERS = values("solver_order", 1, 2, 3)
ALGORITHMS: Factor = [
    {"algorithm_type": "dpmsolver++"},
    {"algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
]
SOLVER_TYPES = values("solver_type", "midpoint", "heun")
LOWER_ORDER: Factor = values("lower_order_final", True, False)
CLIPPED = values("lambda_min_clipped", -math.inf, -2.0)
FLOW: Factor = [{"use_flow_sigmas": True, "flow_shift": 1.0}, {"use_flow_sigmas": True, "flow_shift": 3.0}]
FLOW_PREDICTIONS = values("prediction_type", "flow_prediction", "epsilon", "sample")
SHIFTED: Factor = [*FLOW, {"use_flow_sigmas": True, "use_dynamic_shifting": True, "mu": 0.8}]
SA_ORDERS = (values("predictor_order", 1, 2, 3), values("corrector_order", 1, 2, 3))
SA_TYPES = values("algorithm_type", "data_prediction", "noise_prediction")
UNIPC: Sequence[Factor] = (
    ORDERS,
    values("solver_type", "bh1", "bh2"),
    [
        {},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "predict_x0": False},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"disable_corrector": [0, 2]},
    ],
)

# Per scheduler, one or more products of factors.
FACTORS: list[tuple[str, Sequence[Factor]]] = [
    (
        "EulerDiscreteScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            SPACINGS,
            RAMPS,
            values("interpolation_type", "linear", "log_linear"),
            values("final_sigmas_type", "zero", "sigma_min"),
            values("timestep_type", "discrete", "continuous"),
            RANGES,
        ),
    ),
    ("EulerAncestralDiscreteScheduler", (BETAS_OR_ZERO_SNR, EPS_V, SPACINGS)),
    ("HeunDiscreteScheduler", (BETAS, EPS_V_SAMPLE, SPACINGS, RAMPS)),
    ("KDPM2DiscreteScheduler", (BETAS, EPS_V, SPACINGS, RAMPS)),
    ("KDPM2AncestralDiscreteScheduler", (BETAS, EPS_V, SPACINGS, RAMPS)),
    ("LMSDiscreteScheduler", (BETAS, EPS_V_SAMPLE, SPACINGS, RAMPS)),
    ("DPMSolverSDEScheduler", (BETAS, EPS_V, SPACINGS, RAMPS)),
    (
        "DDIMScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            SPACINGS,
            values("set_alpha_to_one", True, False),
            values("eta", 0.0, 0.5, 1.0),
            values("clip_sample", False),
        ),
    ),
    (
        "DDPMScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            SPACINGS,
            values("variance_type", "fixed_small", "fixed_small_log", "fixed_large"),
            values("clip_sample", False),
        ),
    ),
    (
        "PNDMScheduler",
        (BETAS, EPS_V, SPACINGS, values("set_alpha_to_one", True, False), values("skip_prk_steps", True)),
    ),
    (
        "LCMScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            values("original_inference_steps", 50, 100),
            values("timestep_scaling", 10.0, 1.0),
        ),
    ),
    (
        "TCDScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            values("original_inference_steps", 50, 100),
            values("eta", 0.0, 0.3, 1.0),
        ),
    ),
    (
        "DPMSolverMultistepScheduler",
        (
            BETAS_OR_ZERO_SNR,
            EPS_V_SAMPLE,
            SPACINGS,
            [*RAMPS, {"use_lu_lambdas": True}],
            ORDERS,
            [*ALGORITHMS, {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}],
            SOLVER_TYPES,
            [*LOWER_ORDER, {"euler_at_final": True}],
            CLIPPED,
        ),
    ),
    ("DPMSolverMultistepScheduler", (SHIFTED, FLOW_PREDICTIONS, ORDERS, ALGORITHMS, SOLVER_TYPES)),
    (
        "DPMSolverSinglestepScheduler",
        (BETAS, EPS_V_SAMPLE, RAMPS, ORDERS, ALGORITHMS, SOLVER_TYPES, LOWER_ORDER, CLIPPED),
    ),
    ("DPMSolverSinglestepScheduler", (SHIFTED, FLOW_PREDICTIONS, ORDERS, ALGORITHMS, SOLVER_TYPES)),
    ("DEISMultistepScheduler", (BETAS, EPS_V_SAMPLE, SPACINGS, RAMPS, ORDERS, LOWER_ORDER)),
    ("DEISMultistepScheduler", (SHIFTED, FLOW_PREDICTIONS, ORDERS)),
    ("UniPCMultistepScheduler", (BETAS_OR_ZERO_SNR, EPS_V_SAMPLE, SPACINGS, RAMPS, *UNIPC, RANGES)),
    ("UniPCMultistepScheduler", (SHIFTED, FLOW_PREDICTIONS, *UNIPC, values("shift_terminal", None, 0.1))),
    ("SASolverScheduler", (BETAS, EPS_V_SAMPLE, SPACINGS, RAMPS, *SA_ORDERS, SA_TYPES, LOWER_ORDER, CLIPPED)),
    ("SASolverScheduler", (FLOW, FLOW_PREDICTIONS, *SA_ORDERS, SA_TYPES)),
    ("IPNDMScheduler", ([{}],)),
    (
        "EDMEulerScheduler",
        (
            EPS_V,
            values("sigma_schedule", "karras", "exponential"),
            values("final_sigmas_type", "zero", "sigma_min"),
            values("sigma_data", 0.5, 1.0),
            values("rho", 7.0, 5.0),
        ),
    ),
    (
        "FlowMatchEulerDiscreteScheduler",
        (
            [
                {"shift": 1.0},
                {"shift": 3.0},
                {"use_dynamic_shifting": True, "mu": 0.8},
                {"use_dynamic_shifting": True, "time_shift_type": "linear", "mu": 0.8},
            ],
            RAMPS,
            values("stochastic_sampling", False, True),
            values("shift_terminal", None, 0.1),
        ),
    ),
    ("FlowMatchHeunDiscreteScheduler", (values("shift", 1.0, 3.0),)),
]


@dataclass(frozen=True)
class Case:
    """A scheduler's class and fields, and the options that ``set_timesteps`` and ``step`` take beside them."""

    class_name: str
    config: Fields
    set_timesteps: Fields
    step: Fields

    @property
    def name(self) -> str:
        """A test's name."""
        changes = {**self.config, **self.set_timesteps, **self.step}
        shown = [f"{key}={value}" for key, value in changes.items() if key not in ("beta_start", "beta_end")]
        return ",".join([self.class_name.removesuffix("Scheduler"), *shown])


def case_of(class_name: str, parts: Sequence[Fields]) -> Case:
    """The case that all ``parts`` make."""
    fields = {key: value for part in parts for key, value in part.items()}
    return Case(
        class_name,
        {key: value for key, value in fields.items() if key not in SET_TIMESTEPS | STEP},
        {key: value for key, value in fields.items() if key in SET_TIMESTEPS},
        {key: value for key, value in fields.items() if key in STEP},
    )


def pairwise_cases() -> Iterator[Case]:
    """Per scheduler, cases in which every two values of every two factors meet."""
    for class_name, factors in FACTORS:
        for choice in covering([len(factor) for factor in factors]):
            yield case_of(class_name, [factor[index] for factor, index in zip(factors, choice, strict=True)])


def sampled_cases(count: int, seed: int) -> Iterator[Case]:
    """``count`` cases of the full products, with probabilities that give every scheduler its share."""
    source = random.Random(seed)
    for _ in range(count):
        class_name, factors = source.choice(FACTORS)
        yield case_of(class_name, [source.choice(list(factor)) for factor in factors])


def covering(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Rows of indices below ``sizes`` in which every pair of values of every two columns occurs (greedily few)."""
    pairs = [
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(sizes)), 2)
        for a, b in itertools.product(range(sizes[i]), range(sizes[j]))
    ]
    if not pairs:
        yield from ((index,) for index in range(sizes[0]))
    missing = set(pairs)
    for i, a, j, b in pairs:
        if (i, a, j, b) not in missing:
            continue
        row = {i: a, j: b}
        for column in (c for c in range(len(sizes)) if c not in row):
            gains = [
                sum(pair_of(column, value, other, there) in missing for other, there in row.items())
                for value in range(sizes[column])
            ]
            row[column] = gains.index(max(gains))
        missing -= {pair_of(c, row[c], d, row[d]) for c, d in itertools.combinations(row, 2)}
        yield tuple(row[column] for column in range(len(sizes)))


def pair_of(i: int, a: int, j: int, b: int) -> tuple[int, int, int, int]:
    """The pair, lower column first."""
    return (i, a, j, b) if i < j else (j, b, i, a)
