"""Picture sizes of the model families, as (width, height) in image pixels."""

from __future__ import annotations

Bucket = tuple[int, int]

#: What users of Stable Diffusion 1 work with: both sides at least the trained one, as smaller pictures get worse.
SD1_BUCKETS: tuple[Bucket, ...] = ((512, 512), (640, 512), (512, 640), (768, 512), (512, 768))

#: The same aspect ratios at the side that Stable Diffusion 2 was trained on.
SD2_BUCKETS: tuple[Bucket, ...] = ((768, 768), (960, 768), (768, 960), (1152, 768), (768, 1152))

#: Sizes of one megapixel that users of SDXL and Stable Diffusion 3 work with: a part of SDXL's training buckets, or
#: one of them on its side.
MEGAPIXEL_BUCKETS: tuple[Bucket, ...] = (
    (1024, 1024),
    (1152, 896),
    (896, 1152),
    (1216, 832),
    (832, 1216),
    (1344, 768),
    (768, 1344),
    (1536, 640),
    (640, 1536),
)

# Height, and the widths that go with it (arXiv:2307.01952, appendix I).
_SDXL_TRAINING_WIDTHS = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408, 1344),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
    1024: (1024, 960),
    1088: (960, 896),
    1152: (896, 832),
    1216: (832,),
    1280: (768,),
    1344: (768,),
    1408: (704,),
    1472: (704,),
    1536: (640,),
    1600: (640,),
    1664: (576,),
    1728: (576,),
    1792: (576,),
    1856: (512,),
    1920: (512,),
    1984: (512,),
    2048: (512,),
}

#: All 40 sizes that SDXL was trained on, from 4:1 to 1:4.
SDXL_TRAINING_BUCKETS: tuple[Bucket, ...] = tuple(
    (width, height) for height, widths in _SDXL_TRAINING_WIDTHS.items() for width in widths
)
