"""Every sampler: its names, the diffusers scheduler it equals, its solver and its grid."""

from __future__ import annotations

from .flow_schedules import angular, edm, flow, flow_solver, flow_unipc
from .model_schedule import Value
from .sampler import Sampler
from .schedules import (
    exploding,
    exploding_whole_karras,
    preserving,
    preserving_singlestep,
    preserving_to_lowest,
    preserving_unipc,
)
from .solvers.ddim import ddim, ddpm, lcm, tcd
from .solvers.dpm2 import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde
from .solvers.dpm_multistep import dpm_multistep, dpmpp_3m_sde
from .solvers.dpm_singlestep import dpm_singlestep
from .solvers.euler import euler, euler_ancestral, flow_euler, flow_heun, heun
from .solvers.linear_multistep import deis, ipndm, lms, plms
from .solvers.sa_solver import sa_solver
from .solvers.unipc import unipc
from .trained_schedules import ddim_grid, ddpm_grid, distilled_grid

EPS_V = ("epsilon", "v_prediction")
SOLVER_KINDS = ("trained", "flow")


def algorithm(order: int, kind: str = "dpmsolver++") -> tuple[tuple[str, Value], ...]:
    """The fields that choose among DPM-Solvers."""
    return (("algorithm_type", kind), ("solver_order", order))


SAMPLERS: tuple[Sampler, ...] = (
    Sampler("euler", "Euler", "EulerDiscreteScheduler", euler, exploding, 1, aliases=("k_euler",)),
    Sampler(
        "euler_a",
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        euler_ancestral,
        exploding,
        1,
        aliases=("euler_ancestral", "k_euler_a"),
        prediction_types=EPS_V,
        stochastic=True,
    ),
    Sampler("heun", "Heun", "HeunDiscreteScheduler", heun, exploding, 2, aliases=("k_heun",), evaluations_per_step=2),
    Sampler(
        "dpm2",
        "DPM2",
        "KDPM2DiscreteScheduler",
        dpm2,
        exploding_whole_karras,
        2,
        aliases=("dpm_2", "k_dpm_2"),
        prediction_types=EPS_V,
        evaluations_per_step=2,
    ),
    Sampler(
        "dpm2_a",
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        dpm2_ancestral,
        exploding_whole_karras,
        2,
        aliases=("dpm_2_ancestral", "dpm2_ancestral", "k_dpm_2_a"),
        prediction_types=EPS_V,
        evaluations_per_step=2,
        stochastic=True,
    ),
    Sampler("lms", "LMS", "LMSDiscreteScheduler", lms, exploding, 4, aliases=("k_lms",)),
    Sampler("ddim", "DDIM", "DDIMScheduler", ddim, ddim_grid, 1),
    Sampler("ddpm", "DDPM", "DDPMScheduler", ddpm, ddpm_grid, 1, stochastic=True),
    Sampler(
        "plms",
        "PLMS",
        "PNDMScheduler",
        plms,
        ddim_grid,
        2,
        aliases=("pndm",),
        fixed=(("skip_prk_steps", True),),
        prediction_types=EPS_V,
    ),
    Sampler("ipndm", "IPNDM", "EulerDiscreteScheduler", ipndm, exploding, 2, from_diffusers=False),
    Sampler(
        "ipndm_v",
        "IPNDM on angular time",
        "IPNDMScheduler",
        ipndm,
        angular,
        2,
        kinds=("angular",),
        prediction_types=("v_prediction",),
    ),
    Sampler(
        "deis",
        "DEIS",
        "DEISMultistepScheduler",
        deis,
        preserving_to_lowest,
        2,
        fixed=(("algorithm_type", "deis"), ("solver_type", "logrho")),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
    ),
    Sampler(
        "dpmpp_2m",
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        dpm_multistep,
        preserving,
        2,
        aliases=("k_dpmpp_2m",),
        fixed=algorithm(2),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
    ),
    Sampler(
        "dpmpp_3m",
        "DPM++ 3M",
        "DPMSolverMultistepScheduler",
        dpm_multistep,
        preserving,
        2,
        fixed=algorithm(3),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
    ),
    Sampler(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        dpm_multistep,
        preserving,
        2,
        aliases=("dpmpp_2m_sde_gpu",),
        fixed=algorithm(2, "sde-dpmsolver++"),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
        stochastic=True,
        brownian=True,
    ),
    Sampler(
        "dpmpp_3m_sde",
        "DPM++ 3M SDE",
        "DPMSolverMultistepScheduler",
        dpmpp_3m_sde,
        preserving,
        2,
        aliases=("dpmpp_3m_sde_gpu",),
        fixed=algorithm(3, "sde-dpmsolver++"),
        from_diffusers=False,
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
        stochastic=True,
        brownian=True,
    ),
    Sampler(
        "dpmpp_2s",
        "DPM++ 2S",
        "DPMSolverSinglestepScheduler",
        dpm_singlestep,
        preserving_singlestep,
        2,
        fixed=algorithm(2),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
    ),
    Sampler(
        "dpmpp_2s_a",
        "DPM++ 2S a",
        "DPMSolverSDEScheduler",
        dpmpp_2s_ancestral,
        exploding,
        2,
        aliases=("dpmpp_2s_ancestral",),
        from_diffusers=False,
        prediction_types=EPS_V,
        evaluations_per_step=2,
        stochastic=True,
    ),
    Sampler(
        "dpmpp_sde",
        "DPM++ SDE",
        "DPMSolverSDEScheduler",
        dpmpp_sde,
        exploding,
        1,
        aliases=("dpmpp_sde_gpu",),
        prediction_types=EPS_V,
        evaluations_per_step=2,
        stochastic=True,
        brownian=True,
    ),
    Sampler(
        "unipc",
        "UniPC",
        "UniPCMultistepScheduler",
        unipc,
        preserving_unipc,
        3,
        aliases=("uni_pc_bh2",),
        fixed=(("solver_order", 2), ("solver_type", "bh2"), ("predict_x0", True)),
        kinds=SOLVER_KINDS,
        flow_grid=flow_unipc,
    ),
    Sampler(
        "unipc_bh1",
        "UniPC bh1",
        "UniPCMultistepScheduler",
        unipc,
        preserving_unipc,
        3,
        aliases=("uni_pc",),
        fixed=(("solver_order", 2), ("solver_type", "bh1"), ("predict_x0", True)),
        kinds=SOLVER_KINDS,
        flow_grid=flow_unipc,
    ),
    Sampler(
        "sa_solver",
        "SA-Solver",
        "SASolverScheduler",
        sa_solver,
        preserving_to_lowest,
        2,
        fixed=(("algorithm_type", "data_prediction"),),
        kinds=SOLVER_KINDS,
        flow_grid=flow_solver,
        stochastic=True,
    ),
    Sampler("lcm", "LCM", "LCMScheduler", lcm, distilled_grid, 1, stochastic=True),
    Sampler("tcd", "TCD", "TCDScheduler", tcd, distilled_grid, 1, stochastic=True),
    Sampler("edm_euler", "EDM Euler", "EDMEulerScheduler", euler, edm, 1, kinds=("edm",), prediction_types=EPS_V),
    Sampler(
        "flow_euler",
        "Flow Euler",
        "FlowMatchEulerDiscreteScheduler",
        flow_euler,
        flow,
        1,
        kinds=("flow",),
        prediction_types=(),
    ),
    Sampler(
        "flow_heun",
        "Flow Heun",
        "FlowMatchHeunDiscreteScheduler",
        flow_heun,
        flow,
        2,
        kinds=("flow",),
        prediction_types=(),
        evaluations_per_step=2,
    ),
)

BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}

# What a sampler's usual name means on a rectified-flow model.
FLOW_FORMS = {"euler": "flow_euler", "heun": "flow_heun"}


def sampler_names() -> tuple[str, ...]:
    """The samplers' names, in the order of the registry."""
    return tuple(BY_NAME)
