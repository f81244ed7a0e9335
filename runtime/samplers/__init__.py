"""Samplers as tables: every solver and schedule of the family compiled to the weights of one fused update."""

from .build import build_table
from .config import model_schedule_from_config
from .model_schedule import ModelSchedule
from .registry import sampler_names
from .schedule_names import schedule_names
from .table import SamplerTable

__all__ = [
    "ModelSchedule",
    "SamplerTable",
    "build_table",
    "model_schedule_from_config",
    "sampler_names",
    "schedule_names",
]
