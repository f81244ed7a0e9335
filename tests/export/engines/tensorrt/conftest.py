"""Fixtures of the tests that build with TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.export.engines.tensorrt.build import EngineTask

from .one_convolution import OUTPUT, PROFILE, SAMPLE, write_graph


@pytest.fixture
def task(tmp_path: Path) -> EngineTask:
    return EngineTask(
        provider="tensorrt-rtx",
        component="denoiser",
        graph=write_graph(tmp_path),
        out=tmp_path / "engines" / "denoiser.engine",
        inputs=(SAMPLE,),
        outputs=(OUTPUT,),
        profiles=(PROFILE,),
        targets=("sm89",),
        types={"the_convolution": "float16"},
    )
