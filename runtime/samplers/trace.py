"""Records a solver that runs on symbols, and reads the update of every evaluation off its states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .grid import Grid
from .linear_form import LinearForm, symbol
from .parameterization import Mixture, Point, conversion


@dataclass(frozen=True)
class Evaluation:
    """One call of the denoiser: at which point, in which step, and what is stored of it."""

    point: Point
    step: int
    state_to_stored: float
    output_to_stored: float


@dataclass(frozen=True)
class Draw:
    """One noise tensor: in the update after which evaluation it is drawn, and between which sigmas it acts."""

    evaluation: int
    sigmas: tuple[float, float]


@dataclass
class Trace:
    """The run of one solver over ``grid`` from step ``begin`` on. ``output_of`` is what the denoiser predicts.

    ``updates[k]`` is the state after evaluation ``k`` in terms of ``x_k``, the stored outputs and the noises.
    """

    grid: Grid
    output_of: Callable[[Point], Mixture]
    begin: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    updates: list[LinearForm] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    _step: int = field(default=0, init=False)

    @property
    def points(self) -> tuple[Point, ...]:
        """The grid's points."""
        return self.grid.points

    @property
    def count(self) -> int:
        """Steps of the whole schedule, of which this run may skip the first ones."""
        return len(self.grid.points) - 1

    def steps(self) -> Iterator[int]:
        """The indices of the steps that this run takes; evaluations are counted to the step at hand."""
        for index in range(self.begin, self.count):
            self._step = index - self.begin
            yield index

    def point_of(self, level: float) -> Point:
        """A point between the grid's own, by its sigma, or by its timestep where those are what counts."""
        assert self.grid.point_of is not None
        return self.grid.point_of(level)

    def behind(self, index: int, count: int) -> tuple[Point, ...]:
        """Point ``index`` and those before it, newest first, ``count`` at most."""
        return self.points[max(0, index - count + 1) : index + 1][::-1]

    def predict(self, wanted: Mixture | None, x: LinearForm, point: Point) -> tuple[LinearForm, LinearForm]:
        """Evaluates the denoiser on ``x`` at ``point``; returns ``x`` as the new base state, and the stored output.

        ``wanted`` is what to keep of the evaluation (X0, EPS, ...); None keeps the model output as it is.
        """
        k = len(self.evaluations)
        if k > 0:
            self.updates.append(self.in_newest_base(x))
        p, q = (0.0, 1.0) if wanted is None else conversion(wanted, self.output_of(point), point)
        self.evaluations.append(Evaluation(point, self._step, p, q))
        return symbol("x", k), symbol("d", k)

    def noise(self, here: Point, there: Point) -> LinearForm:
        """The next noise tensor of the request's stream, drawn for the update after the latest evaluation.

        It is the normalized increment of a Brownian motion between two noise levels, or simply a new tensor.
        """
        self.draws.append(Draw(len(self.evaluations) - 1, (here.sigma, there.sigma)))
        return symbol("z", len(self.draws) - 1)

    def finish(self, x: LinearForm) -> None:
        """Ends the run in state ``x``."""
        self.updates.append(self.in_newest_base(x))

    def in_newest_base(self, form: LinearForm) -> LinearForm:
        """``form`` with every older state x_i replaced by what update i says about it.

        Solvers that keep a state over many steps do this themselves, so that it does not reach back further and
        further.
        """
        newest = len(self.evaluations) - 1
        oldest = min((index for kind, index in form.terms if kind == "x"), default=newest)
        for index in range(oldest, newest):
            weight = form.weight(("x", index))
            if weight:
                update = self.updates[index]  # x_{i+1} = a x_i + rest, hence x_i = (x_{i+1} - rest) / a
                share = update.weight(("x", index))
                old = (symbol("x", index + 1) - update.without(("x", index))) / share
                form = form.without(("x", index)) + weight * old
        return form
