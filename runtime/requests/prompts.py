"""The texts of a request: what each text encoder of the bundle reads for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..bundles.manifest import Manifest
from ..checks import shown, text
from ..errors import RequestError

#: One text for each text encoder of a bundle, in the manifest's order.
Texts = tuple[str, ...]


def prompts_from_arguments(manifest: Manifest, prompt: Any, prompt_2: Any, prompt_3: Any) -> list[Texts]:
    """The texts of every prompt. An encoder without a text of its own (None or ``""``) reads ``prompt``.

    Raises:
        RequestError: no text, texts of another number than prompts, or for an encoder that the bundle does not have.
    """
    first = [text("prompt", prompt)] if isinstance(prompt, str) else _listed("prompt", prompt)
    if not first:
        raise RequestError("prompt", received="an empty list", expected="at least one prompt ('' is a valid one)")
    return _texts(manifest, first, {"prompt_2": prompt_2, "prompt_3": prompt_3})


def negative_prompts_from_arguments(
    manifest: Manifest, count: int, negative_prompt: Any, negative_prompt_2: Any, negative_prompt_3: Any
) -> list[Texts | None]:
    """The negative texts of ``count`` prompts, likewise; None where they are omitted."""
    others = {"negative_prompt_2": negative_prompt_2, "negative_prompt_3": negative_prompt_3}
    given = [name for name, value in others.items() if not _is_omitted(value)]
    if negative_prompt is None and not given:
        return [None] * count
    if negative_prompt is None and manifest.force_zeros_for_empty_prompt:
        expected = "negative_prompt as well, which may be ''; omitted, zeros take the place of all of them"
        raise RequestError(f"{given[0]} without a negative_prompt", expected=expected)
    first = _one_for_each("negative_prompt", "" if negative_prompt is None else negative_prompt, count)
    return [*_texts(manifest, first, others)]


def _texts(manifest: Manifest, first: list[str], others: dict[str, Any]) -> list[Texts]:
    columns = [first]
    for number, (name, value) in enumerate(others.items(), start=1):
        if not _is_omitted(value):
            _check_encoder(manifest, name, number)
            columns.append(_one_for_each(name, value, len(first)))
        elif number < len(manifest.text_encodings):
            columns.append(first)
    return list(zip(*columns, strict=True))


def _check_encoder(manifest: Manifest, name: str, number: int) -> None:
    """Refuse a text for an encoder that the model does not have, or that the bundle was built without."""
    encodings = manifest.text_encodings
    if number >= len(encodings):
        received = f"a text, for {manifest.name}, which has {len(encodings)}"
        raise RequestError(name, received=received, expected=f"a model with {number + 1} text encoders")
    if encodings[number].tokenizer is None:
        component = encodings[number].component
        remedy = f"build it: latentrt build-engines CHECKPOINT --out BUNDLE --component {component}"
        raise RequestError(name, received=f"a text, for a bundle without {component}", remedy=remedy)


def _one_for_each(name: str, value: Any, count: int) -> list[str]:
    if isinstance(value, str):
        return [text(name, value)] * count
    texts = _listed(name, value)
    if len(texts) != count:
        raise RequestError(
            name,
            received=f"{len(texts)} texts for {count} prompt{'s' * (count != 1)}",
            expected="one string for all prompts, or one for each",
        )
    return texts


def _listed(name: str, value: Any) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, bytes) or not all(isinstance(one, str) for one in value):
        raise RequestError(name, received=shown(value), expected="a string or a list of strings")
    return [text(name, one) for one in value]


def _is_omitted(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)
