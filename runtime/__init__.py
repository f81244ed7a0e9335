"""The LatentRT runtime: runs bundles, with numpy and one provider. Never imports torch, diffusers or onnx.

from latentrt.runtime import load

with load("bundles/sdxl") as pipe:
    pipe("a lighthouse at dusk", seed=7).save("lighthouse.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        BundleError,
        DeviceError,
        DeviceMemoryError,
        EngineError,
        InputError,
        LatentRTError,
        MissingDependencyError,
        OutputError,
        RequestError,
        RunError,
    )
    from .images.output import Output
    from .loading import load
    from .loop.callback import StepCallback, StepState
    from .pipeline import Pipeline
    from .refiner import RefinedPipeline
    from .requests.arguments import CallArguments
    from .version import __version__

__all__ = [
    "BundleError",
    "CallArguments",
    "DeviceError",
    "DeviceMemoryError",
    "EngineError",
    "InputError",
    "LatentRTError",
    "MissingDependencyError",
    "Output",
    "OutputError",
    "Pipeline",
    "RefinedPipeline",
    "RequestError",
    "RunError",
    "StepCallback",
    "StepState",
    "__version__",
    "load",
]

#: Public name -> the module that has it. Imported on first use, so that the command line and the export side, which
#: need only a small part of this package, start quickly.
_HOME = {
    "BundleError": ".errors",
    "CallArguments": ".requests.arguments",
    "DeviceError": ".errors",
    "DeviceMemoryError": ".errors",
    "EngineError": ".errors",
    "InputError": ".errors",
    "LatentRTError": ".errors",
    "MissingDependencyError": ".errors",
    "Output": ".images.output",
    "OutputError": ".errors",
    "Pipeline": ".pipeline",
    "RefinedPipeline": ".refiner",
    "RequestError": ".errors",
    "RunError": ".errors",
    "StepCallback": ".loop.callback",
    "StepState": ".loop.callback",
    "__version__": ".version",
    "load": ".loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
