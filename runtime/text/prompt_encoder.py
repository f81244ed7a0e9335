"""The texts of requests as what the denoiser is shown: tokenizers, text encoders, and what is kept of their work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundles.manifest import TextEncoding
from ..engines import Engines
from ..errors import DeviceError
from ..requests.request import Request
from ..timing import Timings
from .conditioning import conditioning_rows, encode_texts, unique_texts
from .embeddings import EmbeddingsCache
from .tokenizer import token_ids

logger = logging.getLogger(__name__)


class PromptEncoder:
    """Encodes each text once, as long as it is kept. ``offloads``: text encoders are released after each use."""

    def __init__(
        self, engines: Engines, tokenizers: Mapping[str, Tokenizer], embeddings: EmbeddingsCache, *, offloads: bool
    ):
        self.embeddings = embeddings
        self.offloads = offloads
        self._engines = engines
        self._tokenizers = dict(tokenizers)

    def rows(self, request: Request, timings: Timings) -> dict[str, NDArray[Any]]:
        """The denoiser's inputs ``[rows, ...]`` that come of a request's texts; see ``conditioning_rows``."""
        manifest = self._engines.bundle.manifest
        texts = unique_texts(request, zero_omitted=manifest.force_zeros_for_empty_prompt)
        cut: dict[str, list[str]] = {}  # what there is to say of a prompt -> the encoders of which that is true

        def reporter(component: str) -> Callable[[str], None]:
            return lambda said: cut.setdefault(said, []).append(component)

        with timings.stage("tokenize"):
            ids = {
                encoding.component: token_ids(
                    self._tokenizers[encoding.component],
                    encoding,
                    [of_encoders[number] for of_encoders in texts],
                    request.max_sequence_length if encoding.max_tokens > encoding.tokens else None,
                    reporter(encoding.component),
                )
                for number, encoding in enumerate(manifest.text_encodings)
                if encoding.tokenizer is not None
            }
        for said, components in cut.items():
            logger.warning("%s: %s", ", ".join(components), said)
        with timings.stage("text"):
            states = encode_texts(manifest, ids, lambda encoding, tokens: self._encode(encoding, tokens, timings))
            return conditioning_rows(manifest, request, texts, states)

    def _encode(self, encoding: TextEncoding, tokens: NDArray[np.int64], timings: Timings) -> dict[str, NDArray[Any]]:
        """One text encoder's outputs; an offloaded one is loaded where the texts are new, and released at once."""
        component, offloads = encoding.component, self.offloads
        try:
            return self.embeddings.encode(
                self._engines.contents[component],  # another model may have the same one under another name
                tokens,
                lambda ids: self._engines.run(component, {"input_ids": ids}, timings),
            )
        except DeviceError:
            offloads = False  # a failed device gives nothing back before it is closed
            raise
        finally:
            if offloads:
                self._engines.release(component)
