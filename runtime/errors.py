"""Every error that LatentRT raises on purpose.

    LatentRTError                  base class; ``exit_code`` is what the command line returns
    ├── InputError (ValueError)    2: something the caller gave cannot be used
    │   ├── RequestError               a prompt, size, step count, seed, sampler or latents
    │   ├── CheckpointError            a checkpoint folder or one of its files
    │   ├── BundleError                a bundle: missing, damaged, too new, or leaving its folder
    │   ├── OutputError                a place to write to: occupied, not writable, full
    │   └── MissingDependencyError     an optional dependency that this call needs is not installed
    └── RunError (RuntimeError)    1: the input was fine, the work failed
        ├── ExportError                a component could not be turned into an engine
        ├── GateError                  an engine is further from its reference than allowed
        └── EngineError                a provider failed while loading or running an engine
            ├── DeviceError                the device failed: what was on it is lost
            ├── DeviceMemoryError          the device has too little memory for this
            └── CaptureError               work that cannot be recorded in a graph

A message reads ``subject | received | expected | remedy``, so that it can be understood without the source at hand.
"""

from __future__ import annotations


class LatentRTError(Exception):
    """Base class. ``exit_code`` is the status of the command line when this error ends it."""

    exit_code = 1

    def __init__(self, subject: str, *, received: object = None, expected: object = None, remedy: str | None = None):
        self.subject = subject
        self.received = received
        self.expected = expected
        self.remedy = remedy
        parts = [subject]
        if received is not None:
            parts.append(f"received: {received}")
        if expected is not None:
            parts.append(f"expected: {expected}")
        if remedy is not None:
            parts.append(remedy)
        super().__init__(" | ".join(parts))


class InputError(LatentRTError, ValueError):
    """Something the caller gave cannot be used."""

    exit_code = 2


class RequestError(InputError):
    """A generation request that cannot be run: prompt, size, steps, guidance, seed, sampler, latents."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read or whose family is not known."""


class BundleError(InputError):
    """A bundle that is missing, damaged, newer than this version, or that points outside its own folder."""


class OutputError(InputError):
    """A place to write to that is occupied, not writable or full."""


class MissingDependencyError(InputError):
    """An optional dependency is not installed; the remedy names the extra to install."""


class RunError(LatentRTError, RuntimeError):
    """The input was acceptable and the work failed."""


class ExportError(RunError):
    """A component could not be exported or compiled."""


class GateError(RunError):
    """An engine differs from its PyTorch reference by more than its precision allows."""


class EngineError(RunError):
    """A provider failed to load or to run an engine."""


class DeviceError(EngineError):
    """The device failed. Whatever was on it is lost, so nothing that it gives from then on may be used."""


class DeviceMemoryError(EngineError):
    """The device has less free memory than something needs; it can be used for what is smaller."""


class CaptureError(EngineError):
    """Work that cannot be recorded in a graph; it can be put on the stream step by step."""
