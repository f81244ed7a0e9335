"""diffusers' and transformers' networks, loaded from a checkpoint's folders with every weight accounted for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ..runtime.errors import CheckpointError


def from_pretrained(kind: Any, folder: Path) -> nn.Module:
    """Load weights from safetensors only and never from a hub.

    Raises:
        CheckpointError: the weights do not fit the config. Libraries would draw missing ones at random.
    """
    with _quiet():
        try:
            model, report = kind.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # diffusers and transformers raise many kinds for weights that do not fit
            lines = str(error).splitlines() or [type(error).__name__]
            raise CheckpointError(f"{folder}: its weights cannot be loaded", received=lines[0]) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder}: its weights do not fit its config",
            received=f"nothing for {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            expected=f"every weight of {kind.__name__}",
            remedy="copy the whole folder again, weights and config",
        )
    loaded: nn.Module = model
    return loaded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
