"""Everything that pictures of certain sizes need, prepared before the first one is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import numpy as np

from ...kernels.table_rows import NextRows
from ..bundles.manifest import Manifest
from ..engines import Engines
from ..images.decode import warm_decoder
from ..images.encode import warm_encoder
from ..noise.philox import warm_noise
from ..requests.decoding import DECODERS
from ..timing import Timings
from .denoise_plan import DenoisePlan, PlanSize

logger = logging.getLogger(__name__)

#: The first round may move the workspace that its recordings compute in; then the second one makes them anew. What
#: runs once in a round comes at its end, where the workspace stays, and is recorded in the second one.
_ROUNDS = 2


def warm_up(
    engines: Engines,
    sizes: Sequence[tuple[int, int]],
    images: int,
    *,
    texts: bool,
    pictures: bool = False,
    decodes: bool = True,
) -> None:
    """Record what a call with a prompt, and one with a prompt and a negative one, does for ``images`` of each size.

    Args:
        engines: of any bundle with a denoiser.
        sizes: (height, width) of the latents.
        images: how many at a time.
        texts: whether the text encoders stay loaded, so that what they do is worth recording.
        pictures: whether calls start from pictures; those of bundles that cannot do without always do.
        decodes: whether it is this bundle that decodes the latents.

    Raises:
        DeviceMemoryError: not all of it fits; what does not is left out, the rest can be used.
    """
    manifest, runner, scale = engines.bundle.manifest, engines.runner, engines.bundle.manifest.latent_space.scale
    engine, contract = engines["denoiser"], manifest.components["denoiser"]
    groups = tuple(NextRows) if manifest.task == "edit" else (NextRows.CONDITIONAL, NextRows.UNCONDITIONAL)
    ordered = [
        PlanSize(images, groups, height, width, _tokens(manifest))
        for height, width in sorted(sizes, key=lambda size: -size[0] * size[1])  # the largest workspace comes first
    ]
    with runner.turn():
        for _ in range(_ROUNDS):
            before = runner.dropped
            for size in ordered:
                with runner.plan((engine, size), partial(DenoisePlan, runner, engine, contract, size)) as plan:
                    plan.warm()
                warm_noise(runner, manifest.latent_space.channels * size.height * size.width)
                for decoder in manifest.components.keys() & DECODERS.values() if decodes else ():
                    warm_decoder(engines, decoder, size.height, size.width)
                if pictures or manifest.task in ("inpainting", "edit"):
                    warm_encoder(engines, scale * size.height, scale * size.width)
            for encoding in manifest.text_encodings if texts else ():
                if encoding.tokenizer is not None:
                    ids = np.zeros((1, encoding.tokens), manifest.components[encoding.component].inputs[0].dtype)
                    engines.run(encoding.component, {"input_ids": ids}, Timings())
        if runner.dropped != before:
            logger.warning("%d sizes take more memory than is kept for plans: some are not prepared", len(ordered))


def _tokens(manifest: Manifest) -> int:
    """Tokens of ``encoder_hidden_states``: segments follow one another, encoders of one segment stand side by side."""
    return sum({encoding.segment: encoding.tokens for encoding in manifest.text_encodings}.values())
