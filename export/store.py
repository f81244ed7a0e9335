"""Writing a bundle: whole or not at all, and taking over from the previous one what has not changed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from ..runtime.bundles.bundle import Bundle, open_bundle
from ..runtime.bundles.manifest import MANIFEST_NAME, FileRecord, Manifest, encode_manifest
from ..runtime.errors import BundleError, OutputError

#: The record of the build, which lies in the bundle but is no part of it.
RECORD_NAME = "build.json"

#: All that a bundle's folder holds. One with anything else in it belongs to somebody, whatever its manifest says.
_CONTENT = frozenset({MANIFEST_NAME, RECORD_NAME, "onnx", "engines", "tokenizers", "kernels"})

_DAMAGED = f"a damaged {MANIFEST_NAME}"

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class BundleWriter:
    """A bundle under construction, in a hidden folder beside its final place.

    ``commit`` writes the manifest and puts the folder in place with a rename. Leaving the context without it, for any
    reason, removes everything; what a killed build left is removed by the next one. One build at a time: a second one
    of the same output calls ``waiting`` and waits. A bundle whose manifest is damaged is replaced by ``force`` only.
    ``previous`` is the bundle that is there, or ``unreadable`` says why it is none to take anything over from.

    Raises:
        OutputError: the place is taken by something that is no bundle, or it cannot be written to.
    """

    def __init__(self, out: str | os.PathLike[str], waiting: Callable[[], None] = lambda: None, *, force: bool = False):
        self.out = Path(os.path.realpath(out))  # a link to a bundle stays one: what it leads to is rebuilt
        self.folder = self._beside("partial")
        self.files: dict[str, FileRecord] = {}
        self.previous: Bundle | None = None
        self.unreadable = ""
        self._replaced = self._beside("old")
        self._verified: set[Path] = set()
        self._waiting = waiting
        self._force = force
        self._lock: IO[bytes] | None = None
        self._new_parents: list[Path] = []

    def __enter__(self) -> BundleWriter:
        self._check_not_taken()
        try:
            with self._writing():
                self._new_parents = [parent for parent in self.out.parents if not parent.exists()]
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self._beside("lock"), self._waiting)
            self._check_not_taken()  # a build that was waited for may have changed that
            with self._writing():
                if self._replaced.exists() and not self.out.exists():  # killed between the two renames of ``commit``
                    self._replaced.rename(self.out)
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
            if (self.out / MANIFEST_NAME).is_file():
                try:
                    self.previous = open_bundle(self.out, verify=False)
                except BundleError as error:  # there is nothing to take over
                    self.unreadable = error.subject
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def write(self, name: str, chunks: bytes | Iterable[bytes]) -> None:
        """Write a new file of the bundle, chunk by chunk, and record its size and SHA-256."""
        path = self.folder / name
        digest, size = hashlib.sha256(), 0
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            # "x": a file that was taken over may be linked to the previous bundle's, which must not be written to.
            file = path.open("xb")
        try:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:  # to read them may fail in its own way
                with self._writing():
                    file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        finally:
            with self._writing():
                file.close()
        self.files[name] = FileRecord(size, digest.hexdigest())

    def rename(self, name: str, new: str) -> None:
        """Give a file of the bundle another name, which may depend on its content."""
        with self._writing():
            (self.folder / name).rename(self.folder / new)
        self.files[new] = self.files.pop(name)

    def add(self, name: str) -> None:
        """Record a file that somebody else wrote into ``folder``."""
        path = self.folder / name
        with self._writing(), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.files[name] = FileRecord(path.stat().st_size, digest)

    def write_unlisted(self, name: str, data: bytes) -> Path:
        """Write a file that is no part of the bundle: the record of the build, or one that is removed again."""
        path = self.folder / name
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def verify(self, names: Iterable[str], source: Bundle) -> None:
        """Check files of a bundle, each of which is read once, however often it is asked about.

        Raises:
            BundleError: a file is not what the bundle's manifest says.
        """
        new = {name: path for name in names if (path := source.file(name)) not in self._verified}
        source.verify(list(new))
        self._verified.update(new.values())

    def intact(self, names: Iterable[str]) -> bool:
        """Whether files of the previous bundle are still what its manifest says."""
        if self.previous is None:
            return False
        try:
            self.verify(names, self.previous)
        except BundleError:
            return False
        return True

    def take_over(self, names: Iterable[str]) -> None:
        """Take files of the previous bundle over.

        Raises:
            BundleError: there is none, or a file is not what its manifest says (see ``intact``).
        """
        if self.previous is None:
            raise BundleError(f"{self.out}: there was no bundle to take files over from")
        self.take(names, self.previous)

    def take(self, names: Iterable[str], source: Bundle) -> None:
        """Take files of a bundle over, which may be the previous one.

        Raises:
            BundleError: a file is not what the bundle's manifest says.
        """
        names = [name for name in names if name not in self.files]
        self.verify(names, source)
        self._link(names, source)

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest and put the bundle in place of the previous one."""
        with self._writing():
            (self.folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
            shutil.rmtree(self._replaced, ignore_errors=True)
            try:
                if self.out.exists():
                    self.out.rename(self._replaced)
                self.folder.rename(self.out)
            except BaseException:
                if self._replaced.exists() and not self.out.exists():
                    self._replaced.rename(self.out)
                raise

    def _link(self, names: Iterable[str], source: Bundle) -> None:
        with self._writing():
            for name in names:
                held, target = source.file(name), self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(held, target)  # files of a bundle are never changed in place
                except OSError:
                    shutil.copyfile(held, target)
                self.files[name] = source.manifest.files[name]

    def _beside(self, role: str) -> Path:
        return self.out.parent / f".{self.out.name}.{role}"

    def _check_not_taken(self) -> None:
        with self._writing():
            found = _content_of_somebody(self.out)
        if found == _DAMAGED:
            if self._force:
                return
            raise OutputError(
                f"{self.out}: a bundle with a damaged {MANIFEST_NAME}",
                remedy="give --force to replace it, or choose another --out",
            )
        if found:
            raise OutputError(
                f"{self.out}: exists and is not a bundle",
                received=found,
                expected="a new folder, an empty one, or a bundle to rebuild",
                remedy="choose another --out, or remove it",
            )

    def _leave(self) -> None:
        """Remove everything that is not the bundle, and let the next build in."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.out.exists():
                shutil.rmtree(self._replaced, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._beside("lock").unlink()
            self._lock.close()
            self._lock = None
        for parent in self._new_parents:
            with contextlib.suppress(OSError):  # it was never made, or holds the bundle or files of someone else
                parent.rmdir()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn the system's errors into OutputError."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.out}: cannot be written",
                received=error.strerror or str(error),
                remedy="make room or choose another --out"
                if error.errno in _FULL
                else "choose an --out in a folder that you may write to",
            ) from error


def _locked(path: Path, waiting: Callable[[], None]) -> IO[bytes]:
    """Create and lock a file; its holder removes it before it lets go."""
    told = False
    while True:
        file = path.open("wb")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # the file that was locked is the one that the previous holder removed: lock the next


class _Mark(msgspec.Struct):
    """What a manifest of any schema version has."""

    schema_version: int
    latentrt: str
    files: dict[str, FileRecord]


def _content_of_somebody(out: Path) -> str:
    """What is there that a build must not replace; empty if there is nothing, or a bundle."""
    if not out.is_dir():
        return "no folder" if out.exists() or out.is_symlink() else ""
    names = sorted(path.name for path in out.iterdir())
    others = [name for name in names if name not in _CONTENT]
    if others:
        return ", ".join(others[:5]) + (f" and {len(others) - 5} more" if others[5:] else "")
    if not names:
        return ""
    try:
        msgspec.json.decode((out / MANIFEST_NAME).read_bytes(), type=_Mark)
    except FileNotFoundError:
        return f"a folder without {MANIFEST_NAME}"
    except msgspec.ValidationError:  # JSON of something else: web applications have such files too
        return _DAMAGED if (out / "onnx").is_dir() else f"a {MANIFEST_NAME} that LatentRT did not write"
    except msgspec.DecodeError:
        return _DAMAGED
    return ""
