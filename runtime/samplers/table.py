"""The compiled form of a sampler: numbers, and nothing that changes while a request runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .request import TableRequest

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class SamplerTable:
    """A sampler and a schedule as the weights of one fused update. ``N`` is the number of denoiser evaluations.

    Evaluation ``k`` reads and writes, with ``g`` the guidance, ``c`` and ``u`` the conditional and unconditional model
    outputs, and ``noise_j`` the draws so far (``j = 0``: the newest, one drawn for this update included)::

        in  = input_scale[k] * x
        m   = u + guidance[k] * (c - u)
        d_k = state_to_stored[k] * x + output_to_stored[k] * m
        x   = state_weight[k] * x + sum_j history_weights[k, j] * d_{k-j} + sum_j noise_weights[k, j] * noise_j

    Shapes (all float64 unless said, read-only):

    - ``timesteps`` [N], ``input_scale`` [N], ``guidance`` [N];
    - ``state_to_stored`` [N], ``output_to_stored`` [N];
    - ``state_weight`` [N], ``history_weights`` [N, K] with K at most 5, newest first, the newest 1 or 0: what a solver
      keeps (x0, eps, ...) is stored times its first weight;
    - ``noise_weights`` [N, J]: J = 0 for a deterministic run, 1, or 2 when an update also uses the draw before;
    - ``draws_noise`` [N] bool: the update takes a tensor from the request's noise stream, even where its weight is 0,
      because diffusers takes one there;
    - ``noise_sigmas`` [M, 2]: the noise levels that draw ``j`` leads between. With ``noise`` "gaussian" every draw is
      a new tensor; with "brownian" the increment of the seed's path between the two (``noise.brownian``), whose path
      spans ``noise_range``, the lowest and the highest sigma of the whole schedule;
    - ``step`` [N] int64: the inference step an evaluation belongs to, counted from the first one that runs;
    - ``state_signal`` [N + 1], ``state_noise`` [N + 1]: clean latents with the noise of state ``k`` are
      ``state_signal[k] * latents + state_noise[k] * noise``; row N is the last state, of no evaluation;
    - ``output_signal`` [N], ``output_noise`` [N]: what the model predicts, ``output_signal * latents + output_noise *
      noise``;
    - ``sigmas`` [N + 1]: noise over signal of every state (rectified flow: the share of noise), for plots and logs.

    ``num_inference_steps`` counts the whole schedule, of which a partial run takes ``steps_run``.

    A text-to-image run starts from ``initial_noise_scale * noise``, an image-to-image run from row 0 of the state.
    """

    timesteps: Floats
    input_scale: Floats
    state_to_stored: Floats
    output_to_stored: Floats
    state_weight: Floats
    history_weights: Floats
    noise_weights: Floats
    draws_noise: NDArray[np.bool_]
    noise_sigmas: Floats
    noise: str
    noise_range: tuple[float, float]
    guidance: Floats
    step: NDArray[np.int64]
    state_signal: Floats
    state_noise: Floats
    output_signal: Floats
    output_noise: Floats
    sigmas: Floats
    initial_noise_scale: float
    num_inference_steps: int
    order: int
    sampler: str
    schedule: str
    request: TableRequest

    def __repr__(self) -> str:
        return repr(self.request)

    @property
    def start_signal(self) -> float:
        """The share of the clean latents in the state that an image-to-image run starts from."""
        return float(self.state_signal[0])

    @property
    def start_noise(self) -> float:
        """The share of the noise in the state that an image-to-image run starts from."""
        return float(self.state_noise[0])

    @property
    def evaluations(self) -> int:
        """N, the number of denoiser evaluations."""
        return len(self.timesteps)

    @property
    def steps_run(self) -> int:
        """Inference steps that this run takes: ``num_inference_steps``, or fewer for a partial run."""
        return int(self.step[-1]) + 1

    @property
    def stochastic(self) -> bool:
        """Whether the run draws noise after its start."""
        return bool(self.draws_noise.any())

    def linear_map(self) -> Floats:
        """Every state as a function of what enters the run.

        Returns float64 ``[N + 1, 1 + N + M]``: row ``k`` is the state before evaluation ``k`` (row N the final one),
        the columns are the initial state, the N guided model outputs and the M noise tensors in draw order.
        """
        n, draws = self.evaluations, int(self.draws_noise.sum())
        states = np.zeros((n + 1, 1 + n + draws))
        states[0, 0] = 1.0
        stored = np.zeros((n, 1 + n + draws))
        drawn = 0
        for k in range(n):
            stored[k] = self.state_to_stored[k] * states[k]
            stored[k, 1 + k] += self.output_to_stored[k]
            states[k + 1] = self.state_weight[k] * states[k]
            for j in range(min(self.history_weights.shape[1], k + 1)):
                states[k + 1] += self.history_weights[k, j] * stored[k - j]
            drawn += int(self.draws_noise[k])
            for j in range(self.noise_weights.shape[1]):
                if self.noise_weights[k, j]:
                    states[k + 1, n + drawn - j] += self.noise_weights[k, j]
        return states
