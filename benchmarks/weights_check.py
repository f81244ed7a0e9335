"""Are the reference and the bundle the same model?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from ..runtime.bundles.bundle import Bundle
from ..runtime.errors import RequestError


def check_reference(bundle: Bundle, reference: Path, *, allow_different_weights: bool) -> tuple[bool, str]:
    """Whether every component of a bundle was made from the reference's weights; and a hash of these.

    Raises:
        CheckpointError: the reference cannot be read.
        RequestError: it is a single file, which the other programs do not load; it is of another family, or has other
            weights, which may be allowed.
    """
    if reference.is_file():
        raise RequestError(
            f"--reference {reference}",
            received="a file",
            expected="a diffusers folder, which the other programs load",
            remedy="save it as one: diffusers' from_single_file and save_pretrained",
        )
    checkpoint = read_checkpoint(reference)
    manifest = bundle.manifest
    if checkpoint.family.name != manifest.family:
        raise RequestError(
            f"--reference {reference}: another family",
            received=checkpoint.family.name,
            expected=f"{manifest.family}, which {bundle.path} is of",
        )
    digests = _digests(checkpoint)
    other = sorted(name for name, record in manifest.components.items() if record.key.get("weights") not in digests)
    if other and not allow_different_weights:
        raise RequestError(
            f"--reference {reference}: other weights than the bundle's",
            received=f"other hashes of {', '.join(other)}",
            expected=f"the checkpoint that {bundle.path} was built from",
            remedy="build the bundle again, or give --allow-different-weights to measure speed alone",
        )
    return not other, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _digests(checkpoint: Checkpoint) -> set[str]:
    return {checkpoint.digest(folder) for folder in checkpoint.weights}
