"""The tensors of one component in a single file: those whose names start alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ....runtime.errors import CheckpointError
from ..safetensors_header import SafetensorsHeader, TensorEntry, misfit_text
from .converted import ConvertedWeights, Source

#: Channels of one attention head: CLIP ViT-L, OpenCLIP H and bigG, T5, every MMDiT, and the UNets whose projections
#: around attention are linear layers (SD 2 and later). Shapes do not tell.
HEAD_WIDTH = 64


@dataclass(frozen=True)
class Section:
    """The tensors of ``header`` whose names start with ``prefix``, by the rest of their names."""

    header: SafetensorsHeader
    prefix: str

    @cached_property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """The section's tensors, without the prefix."""
        start = len(self.prefix)
        return {name[start:]: entry for name, entry in self.header.tensors.items() if name.startswith(self.prefix)}

    def __contains__(self, key: str) -> bool:
        return f"{self.prefix}{key}" in self.header.tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """A tensor's shape.

        Raises:
            CheckpointError: the file does not hold it.
        """
        entry = self.header.tensors.get(f"{self.prefix}{key}")
        if entry is None:
            raise self.misfit([key], [])
        return entry.shape

    def size(self, key: str, axis: int = 0) -> int:
        """A tensor's size along an axis, and an error that names the tensor where it has no such axis."""
        shape = self.shape(key)
        if len(shape) <= axis:
            received, expected = f"{self.prefix}{key} {list(shape)}", f"at least {axis + 1} axes"
            raise CheckpointError(f"{self.header.path}: a tensor's shape", received=received, expected=expected)
        return shape[axis]

    def heads(self, width: int, network: str) -> int:
        """How many attention heads a network of so many channels has.

        Raises:
            CheckpointError: they do not come out even.
        """
        if width % HEAD_WIDTH:
            raise CheckpointError(
                f"{self.header.path}: the width of its {network}",
                received=width,
                expected=f"a multiple of {HEAD_WIDTH}, the width of one attention head",
            )
        return width // HEAD_WIDTH

    def count(self, pattern: str) -> int:
        """How many distinct numbers the section's names have where ``pattern``, from their start, has its group."""
        matches = (re.match(pattern, name) for name in self.tensors)
        return len({match[1] for match in matches if match})

    def converted(self, sources: Mapping[str, Source], ignored: Callable[[str], bool]) -> ConvertedWeights:
        """The component's weights from sources named without the prefix; tensors that are ``ignored`` may be left over.

        Raises:
            CheckpointError: tensors are missing or left over, or are quantized.
        """
        keys = {source.key for source in sources.values()}
        missing = [key for key in dict.fromkeys(source.key for source in sources.values()) if key not in self.tensors]
        unexpected = [key for key in self.tensors if key not in keys and not ignored(key)]
        if missing or unexpected:
            raise self.misfit(missing, unexpected)
        self._check_formats(keys)
        placed = {name: Source(self.prefix + source.key, source.view) for name, source in sources.items()}
        return ConvertedWeights(self.header, placed)

    def misfit(self, missing: Sequence[str], unexpected: Sequence[str]) -> CheckpointError:
        """An error that lists the first missing and the first unexpected tensors by their names in the file."""
        in_file = ([f"{self.prefix}{name}" for name in names] for names in (missing, unexpected))
        return CheckpointError(
            f"{self.header.path}: its tensors do not make a known network",
            received=misfit_text(*in_file),
            expected="a whole checkpoint in the original layout of its family",
            remedy="download or merge it again; if it is a variant of its own, convert it to a diffusers folder",
        )

    def _check_formats(self, keys: Iterable[str]) -> None:
        for key in keys:
            dtype = self.tensors[key].dtype
            if dtype not in ("F64", "F32", "F16", "BF16"):
                raise CheckpointError(
                    f"{self.header.path}: a quantized checkpoint, which LatentRT does not read",
                    received=f"{self.prefix}{key} in {dtype}",
                    expected="weights in F32, F16 or BF16",
                    remedy="use the file that it was made from, or give the part from elsewhere: --vae, --text-encoder",
                )
