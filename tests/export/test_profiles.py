"""``--aspects`` and ``--batch`` become axis ranges."""

from __future__ import annotations

import pytest

from latentrt.export.checkpoints.families import SD1, SD3, SDXL
from latentrt.export.profiles import (
    Batch,
    Tuning,
    batch_from_text,
    buckets_from_text,
    default_bucket,
    profile_for,
    profiles,
)
from latentrt.runtime.bundles.spec import AxisRange
from latentrt.runtime.errors import RequestError


def test_a_full_size_model_gets_its_familys_buckets() -> None:
    assert buckets_from_text(None, SDXL, 1024, 32) == SDXL.buckets
    assert buckets_from_text("sd1", SD1, 512, 64) == SD1.buckets


def test_a_familys_name_stands_for_all_that_it_was_trained_on() -> None:
    assert set(SDXL.buckets) != set(SDXL.training_buckets)
    assert buckets_from_text("sdxl", SDXL, 1024, 32) == SDXL.training_buckets


def test_a_denoiser_with_a_limited_number_of_positions() -> None:
    assert max(max(bucket) for bucket in buckets_from_text(None, SD3, 1024, 16, 1344)) == 1344
    with pytest.raises(
        RequestError, match=r"received: 1360x512 \| expected: sides that are multiples of 16, up to 1344"
    ):
        buckets_from_text("1344x512,1360x512", SD3, 1024, 16, 1344)


def test_a_small_model_gets_them_scaled_to_multiples_of_its_stride() -> None:
    buckets = buckets_from_text(None, SDXL, 128, 32)
    assert buckets[0] == (128, 128)
    assert len(set(buckets)) == len(buckets)
    assert all(side % 32 == 0 and side > 0 for bucket in buckets for side in bucket)
    assert (192, 96) not in buckets
    assert (160, 96) in buckets


def test_a_list_of_sizes() -> None:
    assert buckets_from_text("128x96, 96x128,128x96", SDXL, 128, 32) == ((128, 96), (96, 128))


@pytest.mark.parametrize("text", ["", "128", "128x", "128x96x3", "ax96", "-128x96", "128x96,", "sd1"])
def test_text_that_is_no_list_of_sizes(text: str) -> None:
    with pytest.raises(RequestError, match=r"--aspects .* expected: WIDTHxHEIGHT,\.\.\. or sdxl"):
        buckets_from_text(text, SDXL, 128, 32)


@pytest.mark.parametrize("text", ["130x96", "128x100", "0x96", "16x32"])
def test_sides_that_the_model_cannot_halve(text: str) -> None:
    with pytest.raises(RequestError, match=rf"received: {text} \| expected: sides that are multiples of 32"):
        buckets_from_text(f"128x128,{text}", SDXL, 128, 32)


def test_a_slip_of_the_pen_is_no_size() -> None:
    with pytest.raises(RequestError, match=r"received: 10240x1024 \| expected: .* multiples of 32, up to 8192"):
        buckets_from_text("1024x1024,10240x1024", SDXL, 1024, 32)


def test_batch() -> None:
    assert batch_from_text("1:2:8") == Batch(1, 2, 8)
    assert batch_from_text("4") == Batch(4, 4, 4)


@pytest.mark.parametrize("text", ["", "0", "0:1:2", "3:2:8", "1:9:8", "1:2", "1:2:3:4", "a", "1:b:3", "-1", "1.5"])
def test_text_that_is_no_batch(text: str) -> None:
    with pytest.raises(RequestError) as error:
        batch_from_text(text)
    assert f"--batch | received: {text} | expected: MIN:OPT:MAX with 1 <= MIN" in str(error.value)


def test_a_batch_made_by_hand_is_checked_too() -> None:
    with pytest.raises(RequestError, match=r"received: 2:1:4"):
        Batch(2, 1, 4)


def test_ranges() -> None:
    ranges = profiles(((160, 96), (128, 128), (96, 160)), Batch(1, 2, 8), 8, 128, SDXL)
    assert ranges["width"] == ranges["height"] == AxisRange(12, 16, 20)
    assert ranges["rows"] == AxisRange(1, 4, 16)
    assert ranges["images"] == AxisRange(1, 2, 8)
    assert ranges["texts"] == AxisRange(1, 4, 16)
    assert ranges["tokens"] == AxisRange(77, 77, 308)
    assert "prompt_tokens" not in ranges


def test_ranges_of_texts_for_an_encoder_that_reads_several_lengths() -> None:
    ranges = profiles(((128, 128),), Batch(1, 1, 1), 8, 128, SD3)
    assert ranges["prompt_tokens"] == AxisRange(77, 256, 512)
    assert ranges["tokens"] == AxisRange(154, 333, 589)


def test_the_tuning_point_is_the_native_square_or_the_first_bucket() -> None:
    assert default_bucket(((160, 96), (128, 128)), 128) == (128, 128)
    assert default_bucket(((160, 96), (96, 160)), 128) == (160, 96)


def test_profiles_for_people() -> None:
    buckets = ((128, 128), (160, 96), (256, 128))
    ranges = profiles(buckets, Batch(1, 1, 8), 8, 128, SDXL)
    rest = "rows 1..2..16, images 1..1..8, texts 1..2..16, tokens 77..77..308"
    assert Tuning(buckets, 8).text(ranges) == f"profile 0: 128x96..128x128..256x128, {rest}"
    assert Tuning(buckets, 8, each=True).text(ranges).splitlines() == [
        f"profile {number}: {width}x{height}, {rest}" for number, (width, height) in enumerate(buckets)
    ]
    texts = profile_for({"texts"}, ranges)
    assert Tuning(buckets, 8, each=True).text(texts) == "profile 0: texts 1..2..16"


def test_a_component_gets_the_axes_it_has() -> None:
    ranges = profiles(((128, 128),), Batch(1, 1, 1), 8, 128, SDXL)
    assert list(profile_for({"texts"}, ranges)) == ["texts"]
    assert set(profile_for({"rows", "height", "width", "tokens"}, ranges)) == {"rows", "height", "width", "tokens"}
