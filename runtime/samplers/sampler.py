"""What a sampler is: a solver, the grid it walks along, and the models that it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from .grid import Grid
from .linear_form import LinearForm
from .model_schedule import Value

Solver = Callable[..., LinearForm]  # (trace, initial state, *, settings) -> final state
GridFunction = Callable[..., Grid]  # (training schedule, steps, *, settings) -> points


@dataclass(frozen=True)
class Sampler:
    """One sampler. ``solver`` and ``grid`` name the settings they honour as keyword-only parameters.

    - ``fixed``: the fields of ``diffusers_class`` that make its scheduler this sampler;
    - ``from_diffusers``: False where the class lends only its fields, and the sampler is not in diffusers;
    - ``kinds``: the models it runs: ``trained`` on betas, rectified ``flow``, ``edm``, ``angular``;
    - ``order``: its error falls as steps^-order (that of the distribution, where it draws noise);
    - ``brownian``: its noise may be taken from one Brownian motion per seed.
    """

    name: str
    title: str
    diffusers_class: str
    solver: Solver
    grid: GridFunction
    order: int
    aliases: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Value], ...] = ()
    from_diffusers: bool = True
    kinds: tuple[str, ...] = ("trained",)
    flow_grid: GridFunction | None = None
    prediction_types: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
    evaluations_per_step: int = 1
    stochastic: bool = False
    brownian: bool = False

    @property
    def solver_settings(self) -> tuple[str, ...]:
        """The settings that the solver honours."""
        return keyword_parameters(self.solver)

    @property
    def grid_settings(self) -> tuple[str, ...]:
        """The settings that the usual grid honours."""
        return keyword_parameters(self.grid)

    def settings_of(self, grid: GridFunction, *, solver: bool = True) -> dict[str, None]:
        """The settings that ``grid`` and, unless told otherwise, the solver honour."""
        return dict.fromkeys((*keyword_parameters(grid), *(self.solver_settings if solver else ())))


@cache
def keyword_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """The names of the keyword-only parameters of ``function``."""
    parameters = inspect.signature(function).parameters
    return tuple(name for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY)
