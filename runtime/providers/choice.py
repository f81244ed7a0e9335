"""Which provider runs a bundle on this machine, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..bundles.bundle import Bundle
from ..bundles.manifest import EngineRecord
from ..checks import shown
from ..device.driver import gpu_target
from ..errors import BundleError, EngineError, LatentRTError, RequestError
from . import PROVIDERS, Provider, import_provider
from .gpu import check_cuda


@dataclass(frozen=True)
class Choice:
    """A provider that can run a bundle here: its name, its module, and the engines that it runs, by component."""

    name: str
    module: Provider
    engines: Mapping[str, EngineRecord]


def choose_provider(bundle: Bundle, provider: str) -> Choice:
    """What to run a bundle with; ``"auto"`` is the first of ``PROVIDERS`` that can here.

    Raises:
        RequestError: a name that is not a provider.
        BundleError: the bundle holds no engines for it; with ``"auto"``, why each that it has was passed over.
        LatentRTError: as ``provider_here``.
    """
    if not isinstance(provider, str) or provider not in ("auto", *PROVIDERS):
        raise RequestError("provider", received=shown(provider), expected=f"auto or one of {', '.join(PROVIDERS)}")
    held = [name for name in PROVIDERS if bundle.engines(name)]
    if provider != "auto" and provider in held:
        return provider_here(bundle, provider)
    if provider != "auto" or not held:
        raise BundleError(
            f"{bundle.path}: no engines for {provider}",
            received=", ".join(held) or "a bundle without engines (--onnx-only)",
            expected=" or ".join(PROVIDERS) if provider == "auto" else provider,
            remedy="build them: latentrt build-engines CHECKPOINT --out BUNDLE --provider PROVIDER",
        )
    reasons = []
    for name in held:
        try:
            return provider_here(bundle, name)
        except LatentRTError as error:
            reasons.append(error)
    if len(reasons) == 1:
        raise reasons[0]
    subject = f"{bundle.path}: no provider that it has engines for can run here"
    raise BundleError(subject, received="; ".join(str(reason) for reason in reasons))


def provider_here(bundle: Bundle, provider: str) -> Choice:
    """A provider with the engines of a bundle that this machine can run with it.

    Raises:
        EngineError: it needs a GPU and there is none, or its library is not one that runs these engines.
        BundleError: the bundle's engines are for other GPUs.
        MissingDependencyError: its library is not installed.
    """
    records = engines_here(bundle, provider)
    if PROVIDERS[provider].needs_gpu:
        check_cuda()
    module = import_provider(provider)
    module.check(records.values())
    return Choice(provider, module, records)


def engines_here(bundle: Bundle, provider: str) -> dict[str, EngineRecord]:
    """A bundle's engines of a provider for this machine's GPU, by component; for the processor, where it needs none.

    Raises:
        EngineError: there is no GPU.
        BundleError: the engine of a component is for other GPUs.
    """
    if not PROVIDERS[provider].needs_gpu:
        return bundle.engines(provider)
    target = gpu_target()
    if target is None:
        raise EngineError(
            f"the provider {provider} needs an NVIDIA GPU",
            received="no driver (libcuda.so.1), or no GPU that it may use",
            remedy="install NVIDIA's driver; in a container, start it with --gpus all",
        )
    here = bundle.engines(provider, target)
    for component in bundle.engines(provider):
        if component not in here:
            engines = [e for e in bundle.manifest.engines if (e.component, e.provider) == (component, provider)]
            held = ", ".join(dict.fromkeys(name for engine in engines for name in engine.targets))
            raise BundleError(
                f"{bundle.path}: {component} has no {provider} engine for this GPU",
                received=f"engines for {held}",
                expected=target,
                remedy=f"build it: latentrt build-engines {bundle.path} --provider {provider} "
                f"--target-sm {target.removeprefix('sm')}",
            )
    return here
