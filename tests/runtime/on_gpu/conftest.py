"""Fixtures of the tests with real providers: the emoji checkpoint, built for this machine's GPU by each of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from latentrt.runtime.errors import MissingDependencyError
from latentrt.runtime.providers import PROVIDERS

from .answers import Answers
from .calls import loaded

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

T = TypeVar("T")

GPU_PROVIDERS = [name for name, info in PROVIDERS.items() if info.needs_gpu]

#: Provider -> the module that builds for it, asked directly whether it runs on this GPU.
_ASKED = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@pytest.fixture(scope="session")
def answers() -> Answers:
    return Answers()


@pytest.fixture(scope="session", params=GPU_PROVIDERS)
def provider(request: pytest.FixtureRequest, answers: Answers) -> str:
    """A provider whose library runs on this GPU; the exact answer of one that does not is kept."""
    name: str = request.param
    if name in _ASKED:
        reason = _ask(_ASKED[name], name, answers)
        if reason:
            pytest.skip(reason)
    else:
        module = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        answers.keep(name, "the library alone", module.get_available_providers())
    return name


def _ask(module: str, provider: str, answers: Answers) -> str:
    """Why a library does not run the smallest network here, or nothing."""
    if importlib.util.find_spec(module) is None:
        answers.keep(provider, "the library alone", reason := f"{module} is not installed")
        return reason
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe_tensorrt.py")), module]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    stages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    told = {"status": done.returncode, "stages": stages, "errors": done.stderr[-2000:]}
    answers.keep(provider, "the library alone", told)
    if stages and stages[-1][:2] == ["ran", "the result is right"]:  # however it ended
        return ""
    stage, answer, logged = stages[-1] if stages else ("import", done.stderr.strip()[-500:], [])
    return f"{module} on this GPU ended with status {done.returncode}: {stage}: {answer}; {'; '.join(logged)}"


@pytest.fixture(scope="session")
def portable(once: Callable[[str, Callable[[Path], object]], Path], emoji_checkpoint: Path) -> Callable[[str], Path]:
    """``portable(precision)``: the emoji checkpoint's graphs."""

    def get(precision: str) -> Path:
        from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint

        options = BuildOptions(precision=precision, onnx_only=True)
        return once(f"emoji-{precision}", lambda path: bundle_from_checkpoint(emoji_checkpoint, path, options))

    return get


@pytest.fixture(scope="session")
def built(
    provider: str, portable: Callable[[str], Path], answers: Answers, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``built(precision)``: the same with this provider's engines for this GPU. Tests must not change it."""
    for needed in ("diffusers", "onnx_ir", "onnxruntime", "tokenizers", "PIL"):  # to build bundles, and to compare
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    made: dict[str, Path | Exception] = {}

    def get(precision: str) -> Path:
        if precision not in made:
            made[precision] = _built(portable(precision), tmp_path_factory.mktemp(provider) / precision, provider)
            told = _text(made[precision]) if isinstance(made[precision], Exception) else "built"
            answers.keep(provider, f"engines in {precision}", told)
        return _given(made[precision])

    return get


def _built(graphs: Path, path: Path, provider: str) -> Path | Exception:
    from latentrt.export.build_engine import EngineOptions
    from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle

    try:
        bundle_from_bundle(graphs, path, EngineBuildOptions(EngineOptions(provider)))
    except Exception as error:  # whatever it is: it is the answer
        return error
    return path


@pytest.fixture(scope="session")
def opened(provider: str, built: Callable[[str], Path], answers: Answers) -> Iterator[Callable[[str], Pipeline]]:
    """``opened(precision)``: that bundle, loaded once and used by all tests."""
    pipes: dict[str, Pipeline | Exception] = {}

    def get(precision: str) -> Pipeline:
        if precision not in pipes:
            path = built(precision)
            try:
                pipes[precision] = loaded(path, provider)
            except Exception as error:  # the answer, too
                pipes[precision] = error
                answers.keep(provider, f"loading in {precision}", _text(error))
            else:
                answers.keep(provider, f"loading in {precision}", "loaded")
        return _given(pipes[precision])

    yield get
    for pipe in pipes.values():
        if not isinstance(pipe, Exception):
            pipe.close()


def _given(found: T | Exception) -> T:
    """What was made, once for all tests; or the reason why it was not, each time."""
    if isinstance(found, MissingDependencyError):
        pytest.skip(str(found))
    if isinstance(found, Exception):
        raise found
    return found


def _text(error: object) -> str:
    return f"{type(error).__name__}: {error}"


@pytest.fixture
def gpu(opened: Callable[[str], Pipeline]) -> Pipeline:
    """The bundle in fp16, loaded."""
    return opened("fp16")


@pytest.fixture(scope="session")
def reference(emoji_checkpoint: Path) -> Iterator[Callable[[str], Any]]:
    """``reference(precision)``: diffusers' pipeline on the GPU, with products and convolutions in that precision."""
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    held: dict[str, Any] = {}

    def get(precision: str) -> Any:
        if precision not in held:
            dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
            kind = diffusers.StableDiffusionXLPipeline
            pipe = kind.from_pretrained(emoji_checkpoint, torch_dtype=dtype, add_watermarker=False).to("cuda")
            pipe.set_progress_bar_config(disable=True)
            held[precision] = pipe
        return held[precision]

    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
    yield get
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before
