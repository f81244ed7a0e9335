"""Train the emoji checkpoint on a CPU: a tiny SDXL (autoencoder, two text encoders, UNet), from random weights.

    python examples/emoji/training/train.py --bpe bpe_simple_vocab_16e6.txt.gz --out build/emoji-retrained

The five stages share the work folder; --stage runs one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

from checkpoint_from_training import write_checkpoint
from clip_tokenizer_files import write_tokenizers
from diffusion import train_diffusion
from latents import encode_latents
from settings import Settings
from vae import train_vae, tune_decoder

STAGES = {
    "vae": train_vae,
    "latents": encode_latents,
    "diffusion": train_diffusion,
    "decoder": tune_decoder,
    "export": write_checkpoint,
}


def parse(arguments: Sequence[str] | None = None) -> tuple[list[str], Settings]:
    """The command line -> the stages to run, and their settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all", help="all, or one stage (default: all)")
    hints = get_type_hints(Settings, include_extras=True)
    for option in fields(Settings):
        flag = "--" + option.name.replace("_", "-")
        kind, text = get_args(hints[option.name])
        text += " (default: %(default)s)"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=option.default, help=text)
        else:
            parser.add_argument(flag, type=kind, default=option.default, help=text)
    values = vars(parser.parse_args(arguments))
    stage = values.pop("stage")
    return list(STAGES) if stage == "all" else [stage], Settings(**values)


def main() -> None:
    stages, settings = parse()
    settings.work.mkdir(parents=True, exist_ok=True)
    if not (settings.work / "tokenizers").exists():
        write_tokenizers(settings.bpe, settings.work / "tokenizers")
    for stage in stages:
        STAGES[stage](settings)


if __name__ == "__main__":
    main()
