"""How much memory a device has and something needs, said in one way."""

from __future__ import annotations

from ..errors import DeviceMemoryError

#: What helps where memory is short.
REMEDY = "lower width, height or num_images_per_prompt, load with offload='text', or free what others hold"


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB"


def not_enough_memory(device: str, free: int, needed: int) -> DeviceMemoryError:
    """The error where ``needed`` bytes are more than a device gives, of which it says that ``free`` are free."""
    return DeviceMemoryError(
        f"{device}: not enough memory",
        received=f"{gigabytes(free)} free",
        expected=gigabytes(needed),
        remedy=REMEDY,
    )
