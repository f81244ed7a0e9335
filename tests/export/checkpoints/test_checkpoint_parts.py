"""Components from elsewhere take the place of a checkpoint's own, if they belong to its family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.runtime.errors import InputError

from ...tiny_checkpoints import save_tiny_vae, save_vae


def refused(checkpoint: Callable[[], Checkpoint]) -> str:
    with pytest.raises(InputError) as error:
        components_from_checkpoint(checkpoint(), "fp32")
    return str(error.value)


def test_an_autoencoder_from_elsewhere(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    own = read_checkpoint(family_checkpoint("sd1"))
    other = read_checkpoint(family_checkpoint("sd1"), {"vae": tmp_path / "vae"})
    assert other.weights["vae"] == (tmp_path / "vae" / "diffusion_pytorch_model.safetensors",)
    assert other.digest("vae") != own.digest("vae")
    assert other.digest("unet") == own.digest("unet")
    decoder = components_from_checkpoint(other, "fp32")[3]
    assert decoder.where == str(tmp_path / "vae")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"latent_channels": 16}, "the autoencoder is not this denoiser's | received: 16 latent channels"),
        (
            {"scaling_factor": 0.13025},
            "an autoencoder of another family | received: scaling_factor 0.13025 | expected:",
        ),
    ],
)
def test_an_autoencoder_of_another_family(
    family_checkpoint: Callable[[str], Path], tmp_path: Path, settings: dict[str, float], expected: str
) -> None:
    save_vae(tmp_path / "vae", **settings)
    assert expected in refused(lambda: read_checkpoint(family_checkpoint("sd1"), {"vae": tmp_path / "vae"}))


def test_what_is_no_autoencoder(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = family_checkpoint("sd1")
    message = refused(lambda: read_checkpoint(checkpoint, {"vae": checkpoint / "unet"}))
    assert f"{checkpoint / 'unet'}: not an autoencoder (VAE) | received: UNet2DConditionModel" in message
    message = refused(lambda: read_checkpoint(checkpoint, {"vae": checkpoint}))
    assert f"{checkpoint}: a whole checkpoint" in message
    assert message.endswith(f"give --vae {checkpoint / 'vae'}")


def test_a_tiny_autoencoder(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_vae(tmp_path / "tiny")
    checkpoint = read_checkpoint(family_checkpoint("sd1"), {"tiny_vae": tmp_path / "tiny"})
    *_, decoder, tiny = components_from_checkpoint(checkpoint, "fp32")
    assert tiny.name == "tiny_decoder"
    assert (tiny.inputs, tiny.outputs) == (decoder.inputs, decoder.outputs)


def test_a_tiny_autoencoder_of_another_family(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_vae(tmp_path / "tiny", latent_channels=16)
    message = refused(lambda: read_checkpoint(family_checkpoint("sd1"), {"tiny_vae": tmp_path / "tiny"}))
    assert "another family | received: 16 latent channels, 2 pixels each | expected: 4 and 2" in message


def test_what_is_no_tiny_autoencoder(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    for path in (tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"):
        message = refused(lambda path=path: read_checkpoint(family_checkpoint("sd1"), {"tiny_vae": path}))
        assert "AutoencoderTiny" in message


def test_a_part_that_the_family_does_not_have(family_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    message = refused(lambda: read_checkpoint(family_checkpoint("sd1"), {"text_encoder_2": tmp_path}))
    assert "--text-encoder-2: sd1 has no such part | expected: --vae, --text-encoder" in message


def test_a_tokenizer_that_the_family_does_not_have_or_that_is_none(
    family_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizer = family_checkpoint("sd3") / "tokenizer_3"
    assert read_checkpoint(family_checkpoint("sd3"), {"tokenizer_3": tokenizer}).place("tokenizer_3") == tokenizer
    message = refused(lambda: read_checkpoint(family_checkpoint("sd1"), {"tokenizer_3": tokenizer}))
    assert "--tokenizer-3: sd1 has no such part | expected: --vae, --text-encoder" in message
    for path, received in ((tmp_path, "a folder without them"), (tmp_path / "nowhere", "no such folder")):
        message = refused(lambda path=path: read_checkpoint(family_checkpoint("sd3"), {"tokenizer_3": path}))
        assert f"{path}: no tokenizer | received: {received} | expected: a folder with tokenizer.json" in message


def test_a_prediction_type_in_place_of_the_checkpoints(family_checkpoint: Callable[[str], Path]) -> None:
    checkpoint = read_checkpoint(family_checkpoint("sd1"), prediction_type="v_prediction")
    assert checkpoint.scheduler_config["prediction_type"] == "v_prediction"
    message = refused(lambda: read_checkpoint(family_checkpoint("sd1"), prediction_type="velocity"))
    assert "--prediction-type | received: velocity | expected: epsilon or v_prediction" in message
    message = refused(lambda: read_checkpoint(family_checkpoint("sd3"), prediction_type="epsilon"))
    assert "--prediction-type" in message
