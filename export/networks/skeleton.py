"""A network without its weights, and with them."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...runtime.errors import CheckpointError
from ..checkpoints.lazy_weights import LazyWeight, Weights, quantized
from ..checkpoints.safetensors_header import misfit_text

#: What files of a text encoder may hold beside it: positions, and the rest of a whole CLIP or T5.
_BESIDE = re.compile(
    r"(.*\.)?position_ids|logit_scale"
    r"|(vision_model|visual_projection|text_projection|lm_head|decoder\.(block|embed_tokens|final_layer_norm))\..*"
)


def network_class(name: str) -> Any:
    """A class by its full name, such as ``"diffusers.AutoencoderKL"``: its library is imported here."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


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
        CheckpointError: a parameter without a weight, or with one of another shape or quantized; a weight that the
            network has no place for. ``where`` is the subject.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    missing = [name for name in parameters if name not in weights]
    found = {name: weights[name] for name in network.state_dict() if name in weights}
    used = {id(weight) for weight in found.values()}  # a weight may have several names
    left: dict[int, str] = {}
    for name, weight in weights.items():
        if id(weight) not in used and not _BESIDE.fullmatch(name):
            left.setdefault(id(weight), name)
    unexpected = list(left.values())
    if missing or unexpected:
        raise CheckpointError(
            f"{where}: its weights do not fit its config",
            received=misfit_text(missing, unexpected),
            expected=f"every weight of {type(network).__name__}, and no others",
            remedy="copy the whole folder again, weights and config",
        )
    for name, tensor in network.state_dict().items():
        if name in found and tensor.is_floating_point() and not found[name].dtype.is_floating_point:
            raise quantized(where, name, found[name].dtype)
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
