"""An engine on the GPU without a provider: ``linear_denoiser`` in torch, on our stream and our buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from latentrt.runtime.bundles.manifest import Component
from latentrt.runtime.device.cuda import CudaDevice
from latentrt.runtime.device.interface import Buffer, Stream
from latentrt.runtime.providers.contract import axis_sizes, check_buffers, output_shapes


class TorchEngine:
    """Its executions allocate nothing while they run, so they can be recorded, unless it ``waits`` for the stream."""

    def __init__(self, component: str, contract: Component, device: CudaDevice, *, workspace_bytes: int = 1 << 20):
        self.component = component
        self.contract = contract
        self.device = device
        self.capturable = True
        self.waits = False
        self.workspace_bytes = workspace_bytes

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> TorchExecution:
        return TorchExecution(self, shapes)

    def close(self) -> None:
        """There is nothing to close."""


class TorchExecution:
    def __init__(self, engine: TorchEngine, shapes: Mapping[str, tuple[int, ...]]):
        self._engine = engine
        self._sizes = axis_sizes(engine.component, engine.contract, shapes)
        self.outputs = output_shapes(engine.contract, self._sizes)
        self.workspace_bytes = engine.workspace_bytes
        self._scratch = [torch.empty(self.outputs["model_output"][0], device="cuda") for _ in range(2)]
        self._time = torch.empty(shapes["timestep"], device="cuda")

    @property
    def capturable(self) -> bool:
        return self._engine.capturable

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        check_buffers(self._engine.component, self._engine.contract, self._sizes, buffers)
        assert workspace is not None
        assert workspace.nbytes >= self.workspace_bytes
        self._tensors = {name: torch.from_dlpack(buffer) for name, buffer in buffers.items()}
        self._workspace = torch.from_dlpack(workspace)

    def enqueue(self, stream: Stream) -> None:
        """0.6 sample + 0.5 context cos(3 t / 1000) - 0.2 t / 1000, by way of the shared workspace."""
        if self._engine.waits:
            stream.synchronize()
        tensors, (total, term) = self._tensors, self._scratch
        column = self._time.view(-1, 1, 1, 1)
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
            self._workspace.fill_(7)  # what another execution left there must not matter
            torch.mul(tensors["timestep"], 3 / 1000, out=self._time)
            torch.cos(self._time, out=self._time)
            term.copy_(tensors["encoder_hidden_states"].view(term.shape))
            torch.mul(term, column, out=term)
            total.copy_(tensors["sample"])
            torch.mul(total, 0.6, out=total)
            torch.add(total, term, alpha=0.5, out=total)
            torch.mul(tensors["timestep"], 0.2 / 1000, out=self._time)
            torch.sub(total, column, out=total)
            tensors["model_output"].copy_(total)

    def close(self) -> None:
        self._tensors = {}
