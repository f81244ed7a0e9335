"""Faults on a GPU: too little memory, an illegal access."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from latentrt.kernels.launch import KernelSet
from latentrt.runtime.errors import DeviceMemoryError

from ...kernels.slot_runs import RUNS
from ..table_loop import run_through
from .on_gpu import on_gpu

pytestmark = pytest.mark.gpu


def test_what_does_not_fit_is_refused_and_what_fits_still_runs(gpu: Any) -> None:
    total = gpu.memory()[1]
    with closing(on_gpu(gpu)) as engines:
        expected = run_through(engines, RUNS["euler"])
        with pytest.raises(DeviceMemoryError, match=r"GPU 0 .*: not enough memory .* GB free .* lower width, height"):
            gpu.allocate((2 * total,), np.uint8)
        engines["denoiser"].workspace_bytes = 2 * total  # type: ignore[attr-defined]
        with pytest.raises(DeviceMemoryError):
            run_through(engines, RUNS["euler"], shape=(4, 64, 64))
        engines["denoiser"].workspace_bytes = 1 << 20  # type: ignore[attr-defined]
        np.testing.assert_array_equal(run_through(engines, RUNS["euler"]), expected)


def test_an_illegal_access_fails_the_run_and_breaks_the_pipeline(kernels: KernelSet, tmp_path: Path) -> None:
    """In a process of its own, whose GPU context it ends."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    for kernel in kernels.index.kernels:
        (folder / kernel.file).write_bytes(kernels.read(kernel.file))
    (folder / "kernels.json").write_bytes(msgspec.json.encode(kernels.index))
    program = """
        import sys
        from pathlib import Path
        import msgspec, numpy as np
        from latentrt.kernels.launch import KernelIndex, KernelSet
        from latentrt.runtime.device.cuda import CudaDevice
        from latentrt.runtime.errors import DeviceError, EngineError
        from latentrt.runtime.device.runner import DeviceRunner
        folder = Path(sys.argv[1])
        index = msgspec.json.decode((folder / "kernels.json").read_bytes(), type=KernelIndex)
        device = CudaDevice(KernelSet(index, lambda file: (folder / file).read_bytes()))
        runner = DeviceRunner(device)
        decoded, pixels = device.allocate((1, 3, 4, 4), np.float32), device.allocate((1, 4, 4, 3), np.uint8)
        decoded.pointer = 1 << 40
        launch = device.bind("image_from_decoded", {"decoded": decoded, "pixels": pixels, "area": 16},
                             elements=48, outer=1, dtype="float32")
        try:
            with runner.turn():
                device.stream.launch(launch)
                device.stream.synchronize()
        except DeviceError as error:
            print("failed:", error)
        try:
            with runner.turn():
                print("went on")
        except EngineError as error:
            print("refused:", error)
        runner.close()
        print("closed")
    """
    result = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program), str(folder)], capture_output=True, text=True
    )
    assert "failed: GPU 0" in result.stdout, result.stderr
    assert "ILLEGAL_ADDRESS" in result.stdout
    assert "refused: the pipeline is broken since an earlier call" in result.stdout
    assert "went on" not in result.stdout
    assert "closed" in result.stdout
