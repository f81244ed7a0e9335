"""Encoded texts are kept, and text encoders can be released."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime import engines, load
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.errors import DeviceError, EngineError, RequestError
from latentrt.runtime.text.embeddings import EmbeddingsCache

TEXTS = np.arange(6, dtype=np.int64).reshape(3, 2)  # token ids of three texts
ENTRY = 2 * 8 + 4 * 4 + 4  # bytes of one text's ids and outputs below


def encoder(calls: list[list[list[int]]]) -> Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]:
    """Notes what it was asked for."""

    def run(ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        calls.append(ids.tolist())
        values = ids.sum(axis=1, dtype=np.float32)[:, np.newaxis]
        return {"hidden_states": np.repeat(values, 4, axis=1), "pooled": values}

    return run


def test_each_text_is_encoded_alone_and_once() -> None:
    cache, calls = EmbeddingsCache(1 << 20), []
    first = cache.encode("text_encoder", TEXTS[:2], encoder(calls))
    assert calls == [[[0, 1]], [[2, 3]]]
    np.testing.assert_array_equal(first["hidden_states"], [[1] * 4, [5] * 4])
    np.testing.assert_array_equal(first["pooled"], [[1], [5]])
    again = cache.encode("text_encoder", TEXTS[[2, 1, 0]], encoder(calls))
    assert calls[2:] == [[[4, 5]]]
    np.testing.assert_array_equal(again["pooled"], [[9], [5], [1]])
    cache.encode("text_encoder_2", TEXTS[:1], encoder(calls))
    assert calls[3:] == [[[0, 1]]], "the same ids mean something else to another encoder"
    cache.encode("text_encoder", TEXTS[:1].reshape(1, 1, 2)[:, 0, :1], encoder(calls))
    assert calls[4:] == [[[0]]], "fewer tokens of the same text"


def test_what_is_given_out_is_the_callers_own() -> None:
    cache, calls = EmbeddingsCache(1 << 20), []
    cache.encode("text_encoder", TEXTS[:1], encoder(calls))["pooled"][...] = 7
    assert cache.encode("text_encoder", TEXTS[:1], encoder(calls))["pooled"] == 1


def test_the_least_recently_used_texts_go_first() -> None:
    cache, calls = EmbeddingsCache(2 * ENTRY), []
    cache.encode("text_encoder", TEXTS[:2], encoder(calls))
    assert cache.nbytes == 2 * ENTRY
    cache.encode("text_encoder", TEXTS[:1], encoder(calls))
    cache.encode("text_encoder", TEXTS[2:], encoder(calls))  # the second goes
    assert cache.nbytes == 2 * ENTRY
    calls.clear()
    cache.encode("text_encoder", TEXTS[[0, 2]], encoder(calls))
    assert calls == []
    cache.encode("text_encoder", TEXTS[1:2], encoder(calls))
    assert calls == [[[2, 3]]]


@pytest.mark.parametrize("limit", [0, ENTRY - 1])
def test_what_does_not_fit_is_not_kept(limit: int) -> None:
    cache, calls = EmbeddingsCache(limit), []
    for _ in range(2):
        cache.encode("text_encoder", TEXTS[:1], encoder(calls))
    assert (len(calls), cache.nbytes) == (2, 0)


def test_a_repeated_prompt_runs_no_text_encoder(emoji_bundle: Path) -> None:
    with load(emoji_bundle, verify=False) as pipe, load(emoji_bundle, verify=False, embeddings_cache=0) as without:
        first = pipe("a fox", seed=3, num_inference_steps=2, output_type="latent")
        held = pipe.prompt_encoder.embeddings.nbytes
        pipe.engines.release("text_encoder")
        pipe.engines.release("text_encoder_2")
        second = pipe("a fox", seed=3, num_inference_steps=2, output_type="latent")
        assert pipe.engines.get("text_encoder") is None, "it was not needed"
        np.testing.assert_array_equal(first.images, second.images)
        assert pipe.prompt_encoder.embeddings.nbytes == held > 0
        third = without("a fox", seed=3, num_inference_steps=2, output_type="latent")
        np.testing.assert_array_equal(first.images, third.images)
        assert without.prompt_encoder.embeddings.nbytes == 0


def test_offloaded_text_encoders_are_there_only_while_they_encode(emoji_bundle: Path, emoji: Any) -> None:
    arguments: dict[str, Any] = {"seed": 3, "num_inference_steps": 2, "output_type": "latent"}
    with load(emoji_bundle, verify=False, offload="text") as pipe:
        encoders = ("text_encoder", "text_encoder_2")
        assert [pipe.engines.get(name) for name in encoders] == [None, None]
        received = pipe("a fox", negative_prompt="a cat", **arguments).images
        assert [pipe.engines.get(name) for name in encoders] == [None, None]
        np.testing.assert_array_equal(received, emoji("a fox", negative_prompt="a cat", **arguments).images)
        other = pipe("a rocket", **arguments).images
        np.testing.assert_array_equal(other, emoji("a rocket", **arguments).images)


def test_options_of_loading_that_cannot_be(emoji_bundle: Path) -> None:
    with pytest.raises(RequestError, match=r"offload \| received: 'all' \| expected: 'text'"):
        load(emoji_bundle, offload="all")
    with pytest.raises(RequestError, match=r"embeddings_cache \| received: -1 \| expected: an integer of at least 0"):
        load(emoji_bundle, embeddings_cache=-1)
    with pytest.raises(RequestError, match=r"plans_memory \| received: '1 GB' \| expected: an integer of at least 0"):
        load(emoji_bundle, plans_memory="1 GB")  # type: ignore[call-overload]
    with pytest.raises(RequestError, match=r"verify \| received: 'no' \| expected: True or False"):
        load(emoji_bundle, verify="no")  # type: ignore[call-overload]
    with pytest.raises(RequestError, match=r"provider_options .* for onnxruntime-cpu .* provider=onnxruntime-cuda"):
        load(emoji_bundle, provider_options={"enable_cuda_graph": "1"})
    with pytest.raises(RequestError, match=r"load does not have \| received: provder \| expected: provider"):
        load(emoji_bundle, provder="auto")  # type: ignore[call-overload]


def test_a_device_that_fails_in_an_offloaded_encoder_is_what_is_told(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(runner: DeviceRunner, *arguments: object) -> Any:
        with runner.turn():
            raise DeviceError("GPU 0: CUDA_ERROR_LAUNCH_FAILED")

    with load(emoji_bundle, verify=False, offload="text") as pipe:
        monkeypatch.setattr(engines, "run_engine", fail)
        with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
            pipe("a fox", num_inference_steps=1)
        with pytest.raises(EngineError, match="broken since an earlier call: GPU 0: CUDA_ERROR_LAUNCH_FAILED"):
            pipe("a fox", num_inference_steps=1)
