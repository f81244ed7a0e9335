"""The least time that each stage of a call can take on this machine (Williams, Waterman and Patterson 2009).

Arithmetic is that of convolutions, products and attention, counted from the bundle's portable graphs at the shapes of
the call. Bytes are weights, inputs and outputs, once per engine call: what passes between operators may stay in a
cache, and so may the weights of a small model, for which the arithmetic decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..export.graphs.flops import graph_work
from ..runtime.bundles.bundle import Bundle
from ..runtime.bundles.spec import TensorSpec, resolve_shape
from ..runtime.loop.tables import table_of
from ..runtime.requests.request import request_from_arguments
from ..runtime.samplers import model_schedule_from_config
from ..runtime.text.conditioning import unique_texts
from .results import Bound, Peaks
from .workload import Workload

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Calls:
    """Calls of one component in one request. ``sizes``: of those of its axes that the request decides."""

    stage: str
    component: str
    count: int
    sizes: dict[str, int]


def bounds(bundle: Bundle, work: Workload, peaks: Peaks) -> list[Bound]:
    """The bound of every stage that runs engines: ``text``, ``denoise``, ``decode``."""
    flops: dict[str, float] = {}
    moved: dict[str, float] = {}
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for calls in calls_of(bundle, work):
        component = bundle.manifest.components[calls.component]
        sizes = {axis: allowed.opt for axis, allowed in component.profile.items()} | calls.sizes
        graph = graph_work(bundle.file(component.onnx), sizes)
        tensors = (*component.inputs, *component.outputs)
        once = graph.weight_bytes + sum(_bytes_of(tensor, sizes) for tensor in tensors)
        least = max(graph.flops / peaks.matmul, once / peaks.copy)
        for totals, value in ((flops, graph.flops), (moved, once), (seconds, least)):
            totals[calls.stage] = totals.get(calls.stage, 0.0) + calls.count * value
        counts[calls.stage] = counts.get(calls.stage, 0) + calls.count
    return [Bound(work.label, stage, counts[stage], flops[stage], moved[stage], seconds[stage]) for stage in seconds]


def calls_of(bundle: Bundle, work: Workload) -> list[Calls]:
    """The engine calls of one request without a negative prompt, by the pipeline's own rules of what is guided."""
    manifest = bundle.manifest
    request = request_from_arguments(
        manifest,
        work.prompt,
        width=work.width,
        height=work.height,
        num_inference_steps=work.num_inference_steps,
        guidance_scale=work.guidance_scale,
        num_images_per_prompt=work.images,
    )
    table = table_of(request, manifest, model_schedule_from_config(manifest.scheduler))
    height, width = work.height // manifest.latent_space.scale, work.width // manifest.latent_space.scale
    guided = sum(1 for scale in table.guidance.tolist() if scale != 1)
    texts = len(unique_texts(request, zero_omitted=manifest.force_zeros_for_empty_prompt))
    encoders = [encoding.component for encoding in manifest.text_encodings if encoding.component in manifest.components]
    latent = {"height": height, "width": width}
    calls = [Calls("text", encoder, 1, {"texts": texts}) for encoder in encoders]
    for count, rows in ((guided, 2), (table.evaluations - guided, 1)):
        if count:
            calls.append(Calls("denoise", "denoiser", count, {"rows": rows * work.images, **latent}))
    if "vae_decoder" in manifest.components:
        calls.append(Calls("decode", "vae_decoder", work.images, {"images": 1, **latent}))
    return calls


def _bytes_of(tensor: TensorSpec, sizes: dict[str, int]) -> int:
    count = 1
    for size in resolve_shape(tensor, sizes):
        count *= size
    return count * _BYTES[tensor.dtype]
