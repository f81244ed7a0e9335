"""The compiled kernels of a bundle."""

from __future__ import annotations

import msgspec

from ...kernels.launch import INDEX_NAME, SCHEMA_VERSION, KernelIndex, KernelSet
from ...kernels.layout import LAYOUT
from ..errors import BundleError
from .bundle import Bundle
from .manifest import REBUILD

KERNEL_FOLDER = "kernels"


def kernels_of(bundle: Bundle) -> KernelSet | None:
    """The kernels that a bundle holds for GPUs, or None where it holds none.

    Raises:
        BundleError: their list cannot be read, or is of another version than this LatentRT's.
    """
    name = f"{KERNEL_FOLDER}/{INDEX_NAME}"
    if name not in bundle.manifest.files:
        return None
    try:
        index = msgspec.json.decode(bundle.read(name), type=KernelIndex)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{bundle.path}: {name} cannot be read", received=str(error), remedy=REBUILD) from None
    if (index.schema_version, index.layout) != (SCHEMA_VERSION, LAYOUT):
        raise BundleError(
            f"{bundle.path}: kernels of another LatentRT",
            received=f"schema version {index.schema_version}, layout {index.layout}",
            expected=f"{SCHEMA_VERSION}, {LAYOUT}",
            remedy=REBUILD,
        )
    return KernelSet(index, lambda file: bundle.read(f"{KERNEL_FOLDER}/{file}"))
