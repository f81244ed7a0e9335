"""What a request gets where it says nothing: the family's defaults, or those of models distilled to few steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runtime.bundles.manifest import Defaults
from ..buckets import Bucket
from .checkpoint import Checkpoint

#: Schedulers that only make sense for consistency models (arXiv:2310.04378, arXiv:2402.19159).
_CONSISTENCY_SCHEDULERS = ("LCMScheduler", "TCDScheduler")

#: Schedulers that Turbo and Lightning models are published with (arXiv:2311.17042, arXiv:2402.13929).
_EULER_SCHEDULERS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")

_FEW_STEPS = 4  # all of these models are published for this number of steps, too

#: What a denoiser that embeds its guidance scale is published with; diffusers' ``LatentConsistencyModelPipeline``.
_EMBEDDED_GUIDANCE = 8.5


def defaults_of(checkpoint: Checkpoint, bucket: Bucket) -> Defaults:
    """The defaults of a checkpoint's requests, for pictures of the size ``bucket``."""
    family = checkpoint.family
    steps, guidance_scale = family.num_inference_steps, family.guidance_scale
    if is_few_step(checkpoint.scheduler_config):
        steps, guidance_scale = _FEW_STEPS, 1.0
    if checkpoint.configs[family.denoiser_folder].get("time_cond_proj_dim") is not None:
        steps, guidance_scale = _FEW_STEPS, _EMBEDDED_GUIDANCE
    width, height = bucket
    return Defaults(width, height, steps, guidance_scale, family.strength)


def is_few_step(scheduler: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is one that models distilled to few steps without guidance are published with.

    That is the scheduler of a consistency model, or Euler steps at ``trailing`` timesteps. Models that were trained
    to zero signal-to-noise ratio need trailing timesteps too, but many steps: they say ``rescale_betas_zero_snr`` or
    predict velocity.
    """
    if scheduler.get("_class_name") in _CONSISTENCY_SCHEDULERS:
        return True
    return (
        scheduler.get("_class_name") in _EULER_SCHEDULERS
        and scheduler.get("timestep_spacing") == "trailing"
        and scheduler.get("prediction_type", "epsilon") != "v_prediction"
        and not scheduler.get("rescale_betas_zero_snr", False)
    )
