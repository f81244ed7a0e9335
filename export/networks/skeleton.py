"""A network without its weights, and with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...runtime.errors import CheckpointError
from .lazy_weights import LazyWeight, Weights


def skeleton(kind: Any, config: dict[str, Any]) -> nn.Module:
    """The fp32 network of a diffusers or transformers class and a ``config.json``, its parameters on the meta device.

    What a network computes when it is made (position ids, sinusoids) is real. Nothing is allocated for parameters.
    """
    with quiet(), _parameters_on_meta():
        if hasattr(kind, "config_class"):  # transformers
            module = kind._from_config(kind.config_class.from_dict(config), dtype=torch.float32)
        else:
            module = kind.from_config(config)
    network: nn.Module = module.eval().requires_grad_(False)
    return network


def fitting_weights(network: nn.Module, weights: Weights, where: str) -> dict[str, LazyWeight]:
    """The weight of every parameter of a network, and of those buffers that the checkpoint holds.

    Raises:
        CheckpointError: a parameter without a weight, or with one of another shape. ``where`` is the subject.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    missing = sorted(name for name in parameters if name not in weights)
    if missing:
        raise CheckpointError(
            f"{where}: its weights do not fit its config",
            received=f"nothing for {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            expected=f"every weight of {type(network).__name__}",
            remedy="copy the whole folder again, weights and config",
        )
    found = {name: weights[name] for name in network.state_dict() if name in weights}
    for name, tensor in network.state_dict().items():
        if name in found and found[name].shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{where}: its weights do not fit its config",
                received=f"{name} {list(found[name].shape)}",
                expected=f"{list(tensor.shape)}",
                remedy="copy the whole folder again, weights and config",
            )
    return found


def materialize(network: nn.Module, weights: Weights, where: str) -> nn.Module:
    """Give a skeleton its weights, in fp32, one after another. It is changed and returned.

    Raises:
        CheckpointError: the weights do not fit.
    """
    for name, weight in fitting_weights(network, weights, where).items():
        path, _, attribute = name.rpartition(".")
        owner, content = network.get_submodule(path), weight.read()
        if attribute in owner._parameters:
            owner._parameters[attribute] = nn.Parameter(content.float(), requires_grad=False)
        else:
            owner._buffers[attribute] = content.to(owner._buffers[attribute].dtype)
    return network


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings from the libraries: what matters of them becomes an error."""
    import diffusers
    import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Every parameter that a module registers loses its content; buffers and other tensors keep theirs."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(self, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
