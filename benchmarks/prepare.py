"""From what somebody asks for to a plan, with everything that can be wrong told before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ..runtime.bundles.bundle import Bundle, open_bundle
from ..runtime.bundles.manifest import Manifest
from ..runtime.errors import LatentRTError, RequestError
from ..runtime.providers import PROVIDERS, available_threads
from ..runtime.providers.choice import choose_provider, provider_here
from .baselines import Installed, Missing, cache_folder, find, left_out, provider_side, sides_named
from .machine import machine
from .plan import Plan, device_of, variations_of
from .results import SCHEMA_VERSION, Record, Results, Subject
from .run import SHORT, SUITES
from .weights_check import check_reference
from .workload import Workload

PROMPTS = ("a rocket on a blue background", "a fox on a green background", "a birthday cake on a pink background")


@dataclass(frozen=True)
class Wishes:
    """What to measure. Of sizes, steps, guidance and images, the first is the headline's and the others vary it;
    without sizes, it is the bundle's own. ``suites`` may hold ``all``. ``other_providers`` are those measured beside
    ``provider``: None for every one that can run on the same device, if that is ``auto``."""

    suites: tuple[str, ...] = SHORT
    sides: tuple[str, ...] = ()
    also: Mapping[str, Path] = field(default_factory=dict)
    prompts: tuple[str, ...] = PROMPTS
    sizes: tuple[tuple[int, int], ...] = ()
    steps: tuple[int, ...] = (20,)
    guidance: tuple[float, ...] = (5.0,)
    images: tuple[int, ...] = (1,)
    seed: int = 7
    threads: int | None = None
    runs: int = 15
    warm_up: int = 3
    variation_runs: int = 6
    cold_runs: int = 3
    load_seconds: float = 10.0
    judge: Path | None = None
    cache: Path | None = None
    provider: str = "auto"
    other_providers: tuple[str, ...] | None = None
    allow_different_weights: bool = False


@dataclass(frozen=True)
class Prepared:
    """A plan, the sides that are not there, and what the results will say about both."""

    plan: Plan
    suites: tuple[str, ...]
    missing: tuple[Missing, ...]
    subject: Subject
    started: str
    machine: Mapping[str, str]

    def without(self, missing: Sequence[Missing]) -> Prepared:
        """The same, with more sides that are not there; of one that was missing already, the new reason counts."""
        named = {one.side.name for one in missing}
        return replace(self, missing=(*missing, *(one for one in self.missing if one.side.name not in named)))

    def results(self, command: Sequence[str], records: Sequence[Record], partial: str | None) -> Results:
        """The results, with what has been recorded so far."""
        return Results(
            schema_version=SCHEMA_VERSION,
            started=self.started,
            command=tuple(command),
            partial=partial,
            suites=self.suites,
            subject=self.subject,
            workload=self.plan.workload,
            threads=self.plan.threads,
            machine=dict(self.machine),
            records=tuple(records),
        )


def prepare(
    bundle_path: Path, reference: Path, wishes: Wishes, progress: Callable[[str], None] = lambda text: None
) -> Prepared:
    """Check everything and find the sides.

    Raises:
        InputError: a bundle, checkpoint, suite, side, size, guidance or count that cannot be measured.
    """
    suites = _suites(wishes)
    for name, least, values in (
        ("--runs", 1, (wishes.runs,)),
        ("--warm-up", 0, (wishes.warm_up,)),
        ("--cold-runs", 0, (wishes.cold_runs,)),
        ("--steps", 1, wishes.steps),
        ("--images", 1, wishes.images),
        ("--threads", 1, () if wishes.threads is None else (wishes.threads,)),
    ):
        _at_least(name, values, least)
    for scale in wishes.guidance:
        if not 0 <= scale < float("inf"):
            raise RequestError("--guidance-scale", received=scale, expected="a number of at least 0")
    if not 0 < wishes.load_seconds < float("inf"):
        raise RequestError("--load-seconds", received=wishes.load_seconds, expected="seconds, more than 0")
    bundle = open_bundle(bundle_path, verify=False)
    if bundle.manifest.task != "text-to-image":
        raise RequestError(f"{bundle_path}", received=bundle.manifest.task, expected="a bundle for text-to-image")
    for width, height in wishes.sizes:
        _fits(bundle.manifest, width, height)
    provider = choose_provider(bundle, wishes.provider).name
    same, digest = check_reference(bundle, reference, allow_different_weights=wishes.allow_different_weights)
    others = [name for name in PROVIDERS if name != provider and bundle.engines(name)]
    unable = _unable(bundle, others)
    able = [name for name in others if name not in unable and device_of(name) == device_of(provider)]
    beside = wishes.other_providers
    if beside is None:
        beside = tuple(able) if wishes.provider == "auto" else ()
    named = sides_named(wishes.sides, wishes.also, beside)
    for path in wishes.also.values():
        open_bundle(path, verify=False)
    cache = wishes.cache or cache_folder()
    components = bundle.manifest.components
    found = [find(side, cache / "environments", device_of(provider), components) for side in named]
    defaults = bundle.manifest.defaults
    (width, height), *sizes = wishes.sizes or ((defaults.width, defaults.height),)
    work = Workload(
        wishes.prompts[0], width, height, wishes.steps[0], wishes.guidance[0], wishes.seed, wishes.images[0]
    )
    variations = variations_of(work, tuple(sizes), wishes.steps[1:], wishes.guidance[1:], wishes.images[1:])
    plan = Plan(
        bundle=bundle,
        provider=provider,
        reference=reference,
        reference_hash=digest,
        sides=tuple(side for side in found if isinstance(side, Installed)),
        workload=work,
        variations=variations,
        sizes=((width, height), *sizes),
        threads=wishes.threads or available_threads(),
        runs=wishes.runs,
        warm_up=wishes.warm_up,
        variation_runs=wishes.variation_runs,
        cold_runs=wishes.cold_runs,
        load_seconds=wishes.load_seconds,
        prompts=wishes.prompts,
        cache=cache,
        progress=progress,
        judge=wishes.judge,
    )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = bundle.manifest
    precision = ", ".join(sorted({component.precision for component in manifest.components.values()}))
    subject = Subject(manifest.name, bundle.hash, manifest.family, precision, provider, same)
    missing = [side for side in found if isinstance(side, Missing)]
    missing += [Missing(provider_side(name), reason) for name, reason in unable.items()]
    return Prepared(plan, suites, (*missing, *left_out(wishes.sides)), subject, started, machine())


def _unable(bundle: Bundle, providers: Sequence[str]) -> dict[str, str]:
    """The providers that cannot run on this machine, and why."""
    reasons = {}
    for name in providers:
        try:
            provider_here(bundle, name)
        except LatentRTError as error:
            reasons[name] = str(error)
    return reasons


def _suites(wishes: Wishes) -> tuple[str, ...]:
    for name in wishes.suites:
        if name not in SUITES and name != "all":
            raise RequestError("--suite", received=name, expected=", ".join(("all", *SUITES)))
    if "recognition" in wishes.suites and wishes.judge is None:
        expected = "a folder with retrieval.py and vocabulary.py, such as examples/emoji/training"
        raise RequestError("the suite recognition needs --judge", expected=expected)
    if "all" in wishes.suites:
        return tuple(name for name in SUITES if name != "recognition" or wishes.judge is not None)
    return tuple(name for name in SUITES if name in wishes.suites)


def _at_least(name: str, values: Sequence[int], least: int) -> None:
    for value in values:
        if value < least:
            raise RequestError(name, received=value, expected=f"an integer of at least {least}")


def _fits(manifest: Manifest, width: int, height: int) -> None:
    """Check a size against the denoiser's profile."""
    space, profile = manifest.latent_space, manifest.components["denoiser"].profile
    for name, pixels in (("width", width), ("height", height)):
        allowed = profile[name]
        if pixels % space.stride or pixels // space.scale not in allowed:
            low, high = allowed.min * space.scale, allowed.max * space.scale
            expected = f"a multiple of {space.stride} from {low} to {high}"
            raise RequestError(f"--size: {name}", received=pixels, expected=expected)
