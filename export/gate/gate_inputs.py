"""What the gate compares components on: what they are given while a picture is drawn, seeded.

Prompts go through the bundle's tokenizers and text encoders, a drawn picture through its encoder; latents are noised as
the checkpoint's own sampler does it. The portable graphs compute that, where ONNX Runtime can run them: they passed
through the gate before, and are there also where engines are built without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...runtime.bundles.manifest import Component, Manifest, TextEncoding
from ...runtime.bundles.spec import resolve_shape
from ...runtime.requests.size_conditioning import SizeConditioning
from ...runtime.samplers import SamplerTable, build_table, model_schedule_from_config
from ...runtime.text.conditioning import TextStates, encode_texts, guidance_embedding, time_ids
from ...runtime.text.tokenizer import load_vocabulary, token_ids, tokenizer_for
from .examples import Array
from .graph_gate import cannot_run, open_graph

#: Short enough for every encoder. The empty one is what guidance leads away from.
PROMPTS = (
    "a photograph of an astronaut riding a horse on the moon",
    "",
    "an oil painting of a small red house, autumn, 4k, (detailed)",
    "two owls",
)

_ENCODED_SIDE = 32  # latent pixels: larger latents are the encoded picture and its mirror images
_PICTURES = 2


@dataclass(frozen=True)
class GateInputs:
    """Inputs of the components of a bundle: ``manifest`` says what they are made of.

    ``records`` are the components that ``folder`` holds, and may become more: what computes a component's inputs comes
    before it. Where a bundle lacks an encoder, or it cannot run here, normal values take the place of what it gives.
    """

    manifest: Manifest
    folder: Path
    records: Mapping[str, Component]

    def of(self, component: str, record: Component, sizes: dict[str, int], seed: int) -> dict[str, Array]:
        """Arrays of the contract's shapes and dtypes for the given sizes of its axes; other ones for another seed."""
        names = {spec.name for spec in record.inputs}
        values: dict[str, NDArray[np.generic]]
        if "input_ids" in names:
            (spec,) = record.inputs
            texts, tokens = resolve_shape(spec, sizes)
            values = {"input_ids": self._ids(component, _prompts(texts, seed), tokens)}
        elif "image" in names:
            scale = self.manifest.latent_space.scale
            values = {"image": pictures(sizes["images"], scale * sizes["height"], scale * sizes["width"], seed)}
        elif "latents" in names:
            values = {"latents": self._latents(sizes["images"], sizes["height"], sizes["width"])}
        else:
            values = self._denoiser(record, sizes, seed)
        return {spec.name: values[spec.name].astype(spec.dtype) for spec in record.inputs}

    def _denoiser(self, record: Component, sizes: dict[str, int], seed: int) -> dict[str, NDArray[np.generic]]:
        rows, height, width = sizes["rows"], sizes["height"], sizes["width"]
        rng = np.random.default_rng(seed)
        clean, table, conditioning = self._latents(rows, height, width), self._table, self.manifest.conditioning
        # A late, the first and a middle evaluation in turn: little noise, nothing but noise, as much as picture.
        turns = (table.evaluations - 1, 0, table.evaluations // 2)
        at = np.array([turns[(seed * rows + row) % 3] for row in range(rows)])
        state = _each(table.state_signal[at]) * clean + _each(table.state_noise[at]) * rng.standard_normal(clean.shape)
        sample = _each(table.input_scale[at]) * state
        values: dict[str, NDArray[np.generic]] = {
            "sample": np.concatenate([sample, *self._extra_channels(clean)], axis=1),
            "timestep": table.timesteps[at],
            "skip_layers": np.arange(rows) % 2,
        }
        shapes = {spec.name: resolve_shape(spec, sizes) for spec in record.inputs}
        texts = self._texts
        shape = shapes["encoder_hidden_states"]
        values["encoder_hidden_states"] = (
            rng.standard_normal(shape) if texts is None else _text_rows(texts.hidden_states, rows, shape[1], seed)
        )
        if (pooled := conditioning.pooled) is not None:
            known = rng.standard_normal(shapes[pooled]) if texts is None or texts.pooled is None else texts.pooled
            values[pooled] = known[(seed + np.arange(rows)) % len(known)]
        if conditioning.time_ids:
            pixels = self.manifest.latent_space.scale * height, self.manifest.latent_space.scale * width
            size = SizeConditioning(pixels, (0, 0), pixels, aesthetic_score=6.0)
            values["time_ids"] = np.array([time_ids(conditioning.time_ids, size)] * rows)
        if conditioning.guidance_embedding:
            embedding = guidance_embedding(self.manifest.defaults.guidance_scale, shapes["timestep_cond"][1])
            values["timestep_cond"] = np.tile(embedding, (rows, 1))
        return values

    def _extra_channels(self, clean: Array) -> list[Array]:
        """What a denoiser of another task sees behind the noisy latents ``[rows, C, h, w]``."""
        rows, _, height, width = clean.shape
        mask = np.zeros((rows, 1, height, width))
        mask[..., width // 2 :] = 1
        depth = np.broadcast_to(np.linspace(-1, 1, height)[:, None], mask.shape)
        known = {"mask": mask, "masked_latents": clean * (1 - mask), "image_latents": clean, "depth": depth}
        return [known[extra.name] for extra in self.manifest.extra_channels]

    @cached_property
    def _table(self) -> SamplerTable:
        """The checkpoint's own sampler and steps. A shift that depends on the size is left out: it moves timesteps."""
        schedule = model_schedule_from_config(self.manifest.scheduler)
        fixed: dict[str, Any] = {"use_dynamic_shifting": False} if schedule.settings.get("use_dynamic_shifting") else {}
        return build_table(None, None, self.manifest.defaults.num_inference_steps, schedule, **fixed)

    @cached_property
    def _texts(self) -> TextStates | None:
        """``PROMPTS``, encoded; zeros for an encoder that cannot run and that models do without."""
        encodings = []
        for encoding in self.manifest.text_encodings:
            runs = encoding.tokenizer is None or self._runs(encoding.component)
            if not runs and not self._is_dispensable(encoding):
                return None
            encodings.append(encoding if runs else msgspec.structs.replace(encoding, tokenizer=None))
        present = [encoding for encoding in encodings if encoding.tokenizer is not None]
        if not present:
            return None
        ids = {e.component: self._ids(e.component, PROMPTS, e.tokens) for e in present}
        manifest = msgspec.structs.replace(self.manifest, text_encodings=tuple(encodings))
        return encode_texts(manifest, ids, lambda encoding, ids: self._run(encoding.component, {"input_ids": ids}))

    def _is_dispensable(self, encoding: TextEncoding) -> bool:
        """Whether an encoder has a segment of its own and gives no pooled text, as T5 in Stable Diffusion 3."""
        others = [other.segment for other in self.manifest.text_encodings if other is not encoding]
        return bool(others) and encoding.segment not in others and encoding.pooled is None

    def _ids(self, component: str, prompts: tuple[str, ...], tokens: int) -> NDArray[np.int64]:
        encoding = next(e for e in self.manifest.text_encodings if e.component == component)
        assert encoding.tokenizer is not None  # the bundle has the component
        vocabulary = load_vocabulary((self.folder / encoding.tokenizer).read_bytes())
        return token_ids(tokenizer_for(encoding, vocabulary), encoding, prompts, tokens)

    def _latents(self, images: int, height: int, width: int) -> Array:
        """Latents of pictures ``[images, C, h, w]``, in the sampler's scale."""
        encoded = self._encoded[np.arange(images) % _PICTURES]
        missing = [(0, max(0, size - _ENCODED_SIDE)) for size in (height, width)]
        return np.pad(encoded, [(0, 0), (0, 0), *missing], mode="symmetric")[:, :, :height, :width]

    @cached_property
    def _encoded(self) -> Array:
        """Two pictures' latents ``[2, C, 32, 32]``; noise of low frequency if the bundle has no encoder that runs."""
        space = self.manifest.latent_space
        if self._runs("vae_encoder"):
            side = space.scale * _ENCODED_SIDE
            dtype = self.records["vae_encoder"].inputs[0].dtype
            image = pictures(_PICTURES, side, side, seed=0).astype(dtype)
            return self._run("vae_encoder", {"image": image})["latents_mean"].astype(np.float32)
        coarse = np.random.default_rng(0).standard_normal((_PICTURES, space.channels, 8, 8))
        return np.kron(coarse, np.ones((_ENCODED_SIDE // 8, _ENCODED_SIDE // 8)))

    def _runs(self, component: str) -> bool:
        return component in self.records and not cannot_run(self.records[component])

    def _run(self, component: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        with open_graph(component, self.records[component], self.folder) as graph:
            return graph.run(inputs)


def pictures(images: int, height: int, width: int, seed: int) -> Array:
    """Drawn pictures ``[images, 3, H, W]`` in -1..1: a sky, discs with sharp edges, stripes as fine as pixels."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    drawn = []
    for index in range(images):
        rng = np.random.default_rng((seed, index))
        above, below = rng.uniform(-1, 1, (2, 3, 1, 1))
        picture = above + (below - above) * y + 0 * x  # [3, H, W]
        for _ in range(5):
            (down, across), radius, colour = (
                rng.uniform(0.1, 0.9, 2),
                rng.uniform(0.05, 0.3),
                rng.uniform(-1, 1, (3, 1, 1)),
            )
            picture = np.where((y - down) ** 2 + (x - across) ** 2 < radius**2, colour, picture)
        stripes = 0.3 * np.sin(np.arange(width) * math.pi / 2) * (y > 0.8)
        drawn.append(np.clip(picture + stripes, -1, 1))
    return np.stack(drawn)


def _text_rows(states: Array, rows: int, tokens: int, seed: int) -> Array:
    """``[rows, tokens, D]`` of encoded prompts ``[prompts, S, D]``: longer rows go on with the next prompts."""
    prompts, length, _ = states.shape
    chunks = range(-(-tokens // length))
    return np.stack(
        [np.concatenate([states[(seed + row + chunk) % prompts] for chunk in chunks])[:tokens] for row in range(rows)]
    )


def _prompts(count: int, first: int) -> tuple[str, ...]:
    """So many prompts in turn, beginning with that of index ``first``."""
    return tuple(PROMPTS[(first + index) % len(PROMPTS)] for index in range(count))


def _each(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number for each row, as ``[rows, 1, 1, 1]``."""
    return values[:, None, None, None]
