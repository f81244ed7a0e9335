"""TensorRT and TensorRT-RTX: the Python module that a provider names, and everything in which they and their versions
differ. The rest of this package is one code path over whichever it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....runtime.device.driver import gpu_target
from ....runtime.errors import MissingDependencyError, RequestError
from ....runtime.providers import PROVIDERS

#: What TensorRT-RTX calls the GPU of the machine that builds, whichever it is.
_HERE = "CURRENT"


@dataclass(frozen=True)
class Library:
    """One installed TensorRT. ``module`` is ``tensorrt`` or ``tensorrt_rtx``: the same classes by the same names."""

    provider: str
    module: Any

    @property
    def version(self) -> str:
        """Its version; engines run only with the one that built them."""
        return str(self.module.__version__)

    @property
    def targets(self) -> tuple[str, ...]:
        """The compute capabilities (``"sm89"``) it can build for without that GPU at hand: none for TensorRT."""
        return tuple(name.lower() for name in self._capabilities if name.startswith("SM"))

    @property
    def _capabilities(self) -> Mapping[str, Any]:
        capabilities = getattr(self.module, "ComputeCapability", None)
        return {} if capabilities is None else dict(capabilities.__members__)

    def check_targets(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The targets to build for: those asked for, or the GPU of this machine.

        That GPU may be one that TensorRT-RTX does not list: whether it builds for it then is for RTX to say.

        Raises:
            RequestError: a target that this library cannot build for, or none given and no GPU here.
        """
        here = gpu_target()
        unlisted = here is not None and here not in self.targets
        asks = unlisted and (not self.targets or _HERE in self._capabilities)
        possible = (*self.targets, *((here,) if asks else ()))
        builds_there = f"a machine with the GPU: {self.provider} builds there"
        expected = f"one or more of {', '.join(possible)}" if possible else builds_there
        if not targets and here is None:
            remedy = "name the GPUs to build for: --target-sm 86,89" if self.targets else None
            raise RequestError("--target-sm", received="nothing, and no GPU here", expected=expected, remedy=remedy)
        for target in targets or (here,):
            if target not in possible:
                remedy = "--provider tensorrt builds for the GPU it runs on" if self.targets else None
                subject = f"--target-sm: {self.provider} {self.version} does not build for it"
                raise RequestError(subject, received=target, expected=expected, remedy=remedy)
        if unlisted and here in targets and set(targets) != {here}:
            subject = f"--target-sm: {self.provider} {self.version} builds for this machine's GPU alone, or for others"
            raise RequestError(subject, received=", ".join(targets), expected=f"{here}, or others without it")
        return tuple(sorted(set(targets), key=lambda target: int(target[2:]))) or (str(here),)

    def create_network(self, builder: Any) -> Any:
        """An empty, strongly typed network: each layer computes in the types that the graph gives its tensors."""
        flags = self.module.NetworkDefinitionCreationFlag
        # TensorRT 10 has to be told; 11 and RTX know nothing else, and keep the flag without effect.
        return builder.create_network(1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0)

    def set_targets(self, config: Any, targets: Sequence[str]) -> bool:
        """Build one engine that runs on all of the targets; whether the library agrees.

        TensorRT's engines are for the GPU they are built on.
        """
        if not self.targets:
            return True
        config.num_compute_capabilities = len(targets)
        known = self._capabilities
        wanted = [known[target.upper() if target.upper() in known else _HERE] for target in targets]
        return all(config.set_compute_capability(capability, index) for index, capability in enumerate(wanted))

    def set_memory_by_size(self, config: Any) -> None:
        """Have a run take memory for its own size and not for the largest of the profile (TensorRT 10.10 and newer)."""
        feature = getattr(self.module.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
        if feature is not None:
            config.set_preview_feature(feature, True)

    def set_own_memory(self, config: Any, *, allowed: bool) -> bool:
        """Have the engine run in memory that it is lent, whatever the size, or allow it to take some of its own.

        Returns whether that is a change. Beyond some size TensorRT-RTX would take memory during a run, which then
        cannot be recorded in a CUDA graph; TensorRT has no such choice.
        """
        flag = getattr(self.module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
        if flag is None or config.get_flag(flag) == (not allowed):
            return False
        (config.clear_flag if allowed else config.set_flag)(flag)
        return True

    def check_options(self, *, version_compatible: bool, timing_cache: bool) -> None:
        """Raise RequestError for an option of TensorRT that TensorRT-RTX does not have.

        RTX's builder refuses version compatibility. Since RTX 1.2, timing caches do nothing there: it measures nothing
        while it builds, and two builds give the same bytes anyway.
        """
        given = {"--version-compatible": version_compatible, "--timing-cache": timing_cache}
        for option, asked in given.items():
            if asked and self.provider != "tensorrt":
                raise RequestError(option, received=f"--provider {self.provider}", expected="--provider tensorrt")

    def set_version_compatible(self, config: Any) -> None:
        """Let the lean runtime of the same version run the engine, which then does not bring that along itself."""
        flags = self.module.BuilderFlag
        config.set_flag(flags.VERSION_COMPATIBLE)
        config.set_flag(flags.EXCLUDE_LEAN_RUNTIME)


def is_tensorrt(provider: str) -> bool:
    """Whether a provider's engines are TensorRT's."""
    return PROVIDERS[provider].module == "tensorrt"


def import_library(provider: str) -> Library:
    """The library of a provider.

    Raises:
        MissingDependencyError: it is not installed.
    """
    module, remedy = next(iter(PROVIDERS[provider].libraries.items()))
    try:
        return Library(provider, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        subject = f"--provider {provider} needs the Python module {module}"
        raise MissingDependencyError(subject, remedy=remedy) from None
