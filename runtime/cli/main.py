"""The ``latentrt`` command: finds a subcommand by name and runs it, importing nothing that it does not need."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ..errors import InputError, LatentRTError, MissingDependencyError
from ..version import __version__

if TYPE_CHECKING:
    from typer import Typer

#: Seconds after which a signal comes again whose exception was dropped.
_AGAIN = 0.01


@dataclass(frozen=True)
class Command:
    """A subcommand: the module that has its typer ``app``, what must be installed for it, and a line of help."""

    module: str
    extra: str | None
    help: str


COMMANDS: dict[str, Command] = {
    "build-engines": Command("latentrt.export.cli", "export", "Turn a checkpoint into a bundle of compiled engines."),
    "generate": Command("latentrt.runtime.cli.generate", None, "Make pictures from a prompt with a bundle."),
    "inspect": Command("latentrt.runtime.cli.inspect", None, "Show what a bundle holds, or how a picture was made."),
    "samplers": Command("latentrt.runtime.samplers.cli", None, "List samplers and schedules."),
    "bench": Command("latentrt.benchmarks.cli", "bench", "Measure a bundle beside diffusers on the same checkpoint."),
    "bench-samplers": Command(
        "latentrt.benchmarks.cli_samplers", "bench", "Measure building samplers' tables, and the update on the host."
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 for a failure, 2 for input that cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _handle_signals()
    try:
        return dispatch(arguments)
    except LatentRTError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `latentrt ... | head`
        sys.stderr.close()
        return 0


def dispatch(arguments: list[str]) -> int:
    """Run the command that the first argument names; returns its exit status. Errors come out of it."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"latentrt {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        remedy = f"did you mean {near[0]}?" if near else None
        raise InputError("command", received=name, expected=", ".join(COMMANDS), remedy=remedy)
    try:
        return _run(name, rest)
    except ModuleNotFoundError as error:  # when the command is imported, or when it imports what it needs
        extra = COMMANDS[name].extra
        if extra is None or (error.name or "").startswith("latentrt"):
            raise
        remedy = f"install it: pip install 'latentrt[{extra}]'"
        subject = f"`latentrt {name}` needs the {extra} extra"
        raise MissingDependencyError(subject, received=f"no module {error.name}", remedy=remedy) from None


def _run(name: str, arguments: list[str]) -> int:
    app: Typer = importlib.import_module(COMMANDS[name].module).app

    import typer.main

    try:
        typer.main.get_command(app)(args=arguments, prog_name=f"latentrt {name}")
    except SystemExit as status:
        return status.code if isinstance(status.code, int) else int(status.code is not None)
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        "LatentRT: compiled Stable Diffusion, without torch at run time.\n\n"
        f"usage: latentrt COMMAND [OPTIONS]\n\n{lines}\n\n"
        "latentrt COMMAND --help tells more; latentrt --version prints the version."
    )


def _handle_signals() -> None:
    """SIGTERM raises SystemExit, so that a stopped container leaves nothing half-written.

    Where that, or SIGINT's KeyboardInterrupt, falls into a ``__del__`` or the callback of a weak reference, Python
    drops it and goes on. The signal then comes again a moment later, until its exception is heard.
    """
    others = sys.unraisablehook
    dropped = signal.SIGTERM

    def dropping(what: sys.UnraisableHookArgs) -> None:
        nonlocal dropped
        if not issubclass(what.exc_type, (SystemExit, KeyboardInterrupt)):
            others(what)
            return
        dropped = signal.SIGINT if issubclass(what.exc_type, KeyboardInterrupt) else signal.SIGTERM
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(dropped))
    sys.unraisablehook = dropping


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
