"""The LatentRT runtime: runs bundles, with numpy and one provider. Never imports torch, diffusers or onnx.

from latentrt.runtime import load

with load("bundles/sdxl") as pipe:
    pipe("a lighthouse at dusk", seed=7).save("lighthouse.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import LatentRTError
    from .images.output import Output
    from .loading import load
    from .pipeline import Pipeline
    from .refiner import RefinedPipeline
    from .version import __version__

__all__ = ["LatentRTError", "Output", "Pipeline", "RefinedPipeline", "__version__", "load"]

#: Public name -> the module that has it. Imported on first use, so that the command line and the export side, which
#: need only a small part of this package, start quickly.
_HOME = {
    "LatentRTError": ".errors",
    "Output": ".images.output",
    "Pipeline": ".pipeline",
    "RefinedPipeline": ".refiner",
    "__version__": ".version",
    "load": ".loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
