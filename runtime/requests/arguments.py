"""What a call may say besides its prompt. The defaults are in ``request``; names are diffusers' where it has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import RequestError

Size = tuple[int, int]  # (height, width) in image pixels, the order of diffusers' size arguments

#: Pictures that go in: PIL, uint8 or float in 0..1 ``[H, W, 3]`` or ``[n, H, W, 3]``, or a list of those; or latents.
Pictures = Image.Image | NDArray[Any] | Sequence[Image.Image] | Sequence[NDArray[Any]]


class CallArguments(TypedDict, total=False):
    """The keyword arguments of ``Pipeline.__call__``, all of which may be left out.

    What is drawn

    - ``negative_prompt``: one for all prompts or one for each. Omitted, it is what the checkpoint was trained with:
      zeros in place of embeddings, or the empty text.
    - ``prompt_2``, ``prompt_3``, ``negative_prompt_2``, ``negative_prompt_3``: for the second and third text encoder of
      models that have several, one for all prompts or one for each; omitted or ``""``, the same as the first.
    - ``num_images_per_prompt``: pictures per prompt, ordered by prompt.
    - ``width``, ``height``: image pixels; multiples of the model's stride inside the bundle's profile. With a picture
      they default to its own size, otherwise to the bundle's; a PIL picture or bytes are resized to them.
    - ``seed``: image ``i`` has ``seed + i``, unless there is one seed per image. The same seed gives the same picture
      alone, in a batch and beside any neighbours, up to rounding: engines may add in another order for another number
      of rows. Omitted, a random one is drawn; ``Output.seeds`` tells.
    - ``rng``: where a seed's noise comes from: ``"torch-cpu"``, what ``torch.randn`` draws with a generator on the CPU,
      or ``"philox"``, what it draws with one on an NVIDIA GPU that holds the latents at once; noise of Brownian paths
      (``sampler_options``) is the same with both.
    - ``latents``: the noise, float32 ``[images, C, height/scale, width/scale]`` of unit variance. It and pictures may
      be tensors of torch, cupy or jax, also on the GPU that the pipeline runs on.
    - ``max_sequence_length``: tokens of the text encoders that can take more than they do by default (T5).

    How it is drawn

    - ``num_inference_steps``: 1 to 1000.
    - ``guidance_scale``: classifier-free guidance; at 1 or less it is off, and a step costs half. A list has one for
      each step that runs.
    - ``guidance_interval``: fractions of the run, ``(start, stop)``, outside which guidance is off.
    - ``guidance_rescale``: 0 to 1, how far guided predictions are scaled back to the deviation of the prompt's own
      (Lin et al. 2023): less glaring pictures at high guidance.
    - ``sampler``, ``schedule``: see ``latentrt samplers``; omitted, those of the checkpoint's scheduler config.
    - ``sampler_options``: settings of the sampler by name, such as ``eta``, ``solver_order``, ``timesteps``,
      ``sigmas`` or ``noise="brownian"``; see ``samplers.build_table``.
    - ``skip_layer_guidance_scale``, ``skip_layer_guidance_start``, ``skip_layer_guidance_stop``: guidance away from
      the same model without some of its layers, in the steps between two fractions of the run; a scale of 0 is off.
      Only for bundles that say which layers (Stable Diffusion 3.5 Medium); omitted, off.

    From a picture

    - ``image``: one picture for all images, one for each prompt or one for each image; or latents, float32
      ``[n, C, h, w]``. The run starts from it, or the denoiser looks at it, as the checkpoint was trained to.
    - ``strength``: how much of the run is done, 0 to 1; omitted, the family's default, and 1 with a mask.
    - ``mask_image``: one-channel pictures, white (0.5 and more) where the picture is drawn anew.
    - ``image_guidance_scale``: how closely an instruct-pix2pix checkpoint follows ``image``.
    - ``depth_map``: for checkpoints that take one: ``[H, W]`` or ``[n, H, W]`` of any size and range, near is high.
    - ``denoising_start``, ``denoising_end``: fractions of the schedule between which a run takes place. One that
      starts takes ``image``, or ``latents`` in its place, as the state that a run which ended there has left, and adds
      no noise.

    Size conditioning of SDXL: (height, width) or (top, left) in pixels

    - ``original_size``, ``crops_coords_top_left``, ``target_size``: by default the picture's own size, uncropped.
    - ``negative_original_size``, ``negative_crops_coords_top_left``, ``negative_target_size``: the same for the
      unconditional rows, used when both of its sizes are given.
    - ``aesthetic_score``, ``negative_aesthetic_score``: the refiner's, about 1 to 10.

    What comes out

    - ``output_type``: ``"pil"``, ``"np"`` (float32 ``[images, H, W, 3]`` in 0..1), ``"latent"`` (float32
      ``[images, C, h, w]``), or, on the device, for ``torch.from_dlpack`` and its like: ``"dlpack"``, uint8
      ``[images, H, W, 3]``, and ``"latent-dlpack"``.
    - ``decoder``: ``"vae"``, or ``"tiny"`` for the bundle's fast approximate one.
    - ``tile_size``: decode in square tiles of that many pixels; omitted, only where the decoder's profile ends.
    - ``tile_overlap``: the share of a tile that it has in common with the next one, 0 to 0.5.
    """

    prompt_2: str | Sequence[str] | None
    prompt_3: str | Sequence[str] | None
    negative_prompt: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    negative_prompt_3: str | Sequence[str] | None
    num_images_per_prompt: int
    width: int | None
    height: int | None
    seed: int | Sequence[int] | None
    rng: str
    latents: NDArray[np.float32] | None
    max_sequence_length: int | None
    num_inference_steps: int | None
    guidance_scale: float | Sequence[float] | None
    guidance_interval: tuple[float, float] | None
    guidance_rescale: float
    sampler: str | None
    schedule: str | None
    sampler_options: Mapping[str, Any] | None
    skip_layer_guidance_scale: float | None
    skip_layer_guidance_start: float | None
    skip_layer_guidance_stop: float | None
    image: Pictures | None
    strength: float | None
    mask_image: Pictures | None
    image_guidance_scale: float | None
    depth_map: NDArray[Any] | Image.Image | None
    denoising_start: float | None
    denoising_end: float | None
    original_size: Size | None
    crops_coords_top_left: Size
    target_size: Size | None
    negative_original_size: Size | None
    negative_crops_coords_top_left: Size
    negative_target_size: Size | None
    aesthetic_score: float
    negative_aesthetic_score: float
    output_type: str
    decoder: str
    tile_size: int | None
    tile_overlap: float


def check_names(arguments: Mapping[str, object]) -> None:
    """Refuse names that no call has.

    Raises:
        RequestError: with the nearest names.
    """
    for name in arguments:
        if name not in CallArguments.__annotations__:
            raise unknown_argument("a call", name, CallArguments.__annotations__)


def unknown_argument(function: str, name: str, known: Iterable[str]) -> RequestError:
    """The error for an argument that ``function`` does not have, with the nearest of those that it has."""
    near = " or ".join(get_close_matches(name, known, n=3)) or None
    return RequestError(f"an argument that {function} does not have", received=name, expected=near)
