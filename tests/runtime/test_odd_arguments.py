"""Whatever a call is given, it makes a picture that can be saved or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from latentrt.runtime import Pipeline, load
from latentrt.runtime.errors import InputError
from latentrt.runtime.images.provenance import png_bytes
from latentrt.runtime.loading import LoadOptions
from latentrt.runtime.requests.arguments import CallArguments

T = TypeVar("T")

SIDE = 64
SMALL: dict[str, Any] = {
    "prompt": "a fox", "num_inference_steps": 2, "width": SIDE, "height": SIDE, "guidance_scale": 1.0, "seed": 1,
}  # fmt: skip

SINGLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3) | st.sampled_from([2**24 + 1, 2**64, 10**30, -(10**400)]),
    st.floats(-1e3, 1e3) | st.sampled_from([float("nan"), float("inf"), 1e308]),
    st.text(st.characters(), max_size=3) | st.sampled_from(["euler", "karras", "0.5", "\ud800"]),
    st.binary(max_size=2),
    st.complex_numbers(),
    st.builds(object),
    st.sampled_from([np.float32(0.5), np.int64(2), np.bool_(False), np.str_("tiny"), np.float64("nan")]),
    hnp.arrays(
        st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "U1", "object"]), hnp.array_shapes(max_dims=4)
    ),
    st.sampled_from([(1, 4, 8, 8), (8, 8), (SIDE, SIDE), (0, 4, 8, 8)]).map(lambda shape: np.ones(shape, np.float32)),
    st.sampled_from(["1", "L", "P", "RGBA", "CMYK", "LAB", "La", "I", "I;16", "F"]).flatmap(
        lambda mode: st.sampled_from([(SIDE, SIDE), (3, 5), (0, 4)]).map(lambda size: Image.new(mode, size))
    ),
)
ODD = SINGLE | st.lists(SINGLE, max_size=3) | st.tuples(SINGLE, SINGLE) | st.dictionaries(st.text(max_size=2), SINGLE)
OPTIONS = st.dictionaries(
    st.sampled_from(
        ["eta", "solver_order", "timesteps", "sigmas", "noise", "schedule", "use_karras_sigmas", "rho", "?"]
    )
    | st.integers(0, 1),
    ODD,
    max_size=2,
)

#: What has to come with an argument for it to mean anything.
COMPANY: dict[str, dict[str, Any]] = {
    "strength": {"image": Image.new("RGB", (SIDE, SIDE))},
    "mask_image": {"image": Image.new("RGB", (SIDE, SIDE))},
    "denoising_start": {"image": np.ones((1, 4, 8, 8), np.float32)},
    "negative_prompt_2": {"negative_prompt": "", "guidance_scale": 2.0},
    "guidance_interval": {"guidance_scale": 2.0},
}

#: Of what is drawn for arguments of ``load``: which of it is good, and nothing else.
GOOD: dict[str, Callable[[Any], bool]] = {
    "threads": lambda value: value in (1, 2, 3),
    "verify": lambda value: isinstance(value, bool | np.bool_),
    "embeddings_cache": lambda value: isinstance(value, int | np.integer) and value >= 0,
    "plans_memory": lambda value: isinstance(value, int | np.integer) and value >= 0,
    "provider_options": lambda value: value == {},
}

settings.register_profile(
    "odd", derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
of_profile = settings(settings.get_profile("odd"))


def accepted(call: Callable[[], T]) -> T | None:
    """What a call gives, or None where it says in one printable line what is wrong."""
    try:
        return call()
    except InputError as error:
        message = str(error)
    assert message.isprintable()
    return None


def assert_saved_or_refused(pipe: Pipeline, call: dict[str, Any]) -> None:
    output = accepted(lambda: pipe(**call))
    if output is None:
        return
    assert len(output.provenance) == len(output.images)
    for image, made in zip(output.images, output.provenance, strict=True):
        if isinstance(image, Image.Image):
            assert png_bytes(image, made)
        assert msgspec.json.decode(msgspec.json.encode(made), type=type(made)).seed == made.seed


@pytest.mark.parametrize("name", ["prompt", "callback_on_step_end", *CallArguments.__annotations__])
def test_any_value_of_an_argument(name: str, emoji: Pipeline) -> None:
    @of_profile
    @given(ODD)
    def call(value: Any) -> None:
        assert_saved_or_refused(emoji, {**SMALL, **COMPANY.get(name, {}), name: value})

    call()


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_any_option_of_a_sampler(sampler: str, emoji: Pipeline) -> None:
    @of_profile
    @given(OPTIONS)
    def call(options: dict[Any, Any]) -> None:
        steps = None if {"timesteps", "sigmas"} & options.keys() else 2
        assert_saved_or_refused(
            emoji, {**SMALL, "sampler": sampler, "sampler_options": options, "num_inference_steps": steps}
        )

    call()


@pytest.mark.parametrize("name", ["bundle", "refiner", *LoadOptions.__annotations__])
def test_any_value_of_an_argument_of_load(name: str, emoji_bundle: Path) -> None:
    @of_profile
    @given(ODD.filter(lambda value: value is not None))
    def call(value: Any) -> None:
        loaded = accepted(lambda: load(**{"bundle": emoji_bundle, "verify": False, name: value}))
        if loaded is not None:
            loaded.close()
            assert name in GOOD
            assert GOOD[name](value)

    call()
