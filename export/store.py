"""Writing a bundle: whole or not at all, and taking over from the previous one what has not changed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from ..runtime.bundle import Bundle, open_bundle
from ..runtime.errors import BundleError, OutputError
from ..runtime.manifest import MANIFEST_NAME, FileRecord, Manifest, encode_manifest


class BundleWriter:
    """A bundle under construction, in a hidden folder beside its final place.

    ``commit`` writes the manifest and puts the folder in place with a rename. Leaving the context without it, for any
    reason, removes everything; what a killed build left is removed by the next one. A lock keeps a second build of the
    same output from starting.

    Raises:
        OutputError: the place is taken by something that is no bundle, is being built, or cannot be written to.
    """

    def __init__(self, out: str | os.PathLike[str]):
        self.out = Path(out).absolute()
        self.folder = self.out.with_name(f".{self.out.name}.partial")
        self.files: dict[str, FileRecord] = {}
        self.previous: Bundle | None = None
        self._old = self.out.with_name(f".{self.out.name}.old")
        self._lock_path = self.out.with_name(f".{self.out.name}.lock")
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> BundleWriter:
        if _is_taken(self.out):
            raise OutputError(
                f"{self.out}: exists and is not a bundle",
                expected="a new folder, an empty one, or a bundle to rebuild",
                remedy="choose another --out, or remove it",
            )
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock_path.open("wb")
        except OSError as error:
            raise self._output_error(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = self._lock_path.stat().st_ino == os.fstat(self._lock.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:  # or the file that was locked is one that the other build has just removed
            self._lock.close()
            remedy = "wait for it, or choose another --out"
            raise OutputError(f"{self.out}: another build is writing this bundle", remedy=remedy)
        try:
            if self._old.exists() and not self.out.exists():  # killed between the two renames of ``commit``
                self._old.rename(self.out)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
        except OSError as error:
            self._unlock()
            raise self._output_error(error) from None
        if self.out.exists() and (self.out / MANIFEST_NAME).is_file():
            with suppress(BundleError):  # a bundle that cannot be read has nothing to take over
                self.previous = open_bundle(self.out, verify=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
            raise self._output_error(error) from None

    def write(self, name: str, chunks: bytes | Iterable[bytes]) -> None:
        """Write a file of the bundle and record its size and SHA-256."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self.files[name] = FileRecord(size, digest.hexdigest())

    def take_over(self, names: Iterable[str]) -> bool:
        """Take files of the previous bundle over, if every one of them is still what its manifest says."""
        names = [name for name in names if name not in self.files]
        if self.previous is None:
            return False
        try:
            self.previous.verify(names)
        except BundleError:
            return False
        for name in names:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.previous.file(name), target)  # files of a bundle are never changed in place
            except OSError:
                shutil.copyfile(self.previous.file(name), target)
            self.files[name] = self.previous.manifest.files[name]
        return True

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest and put the bundle in place of the previous one."""
        (self.folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
        shutil.rmtree(self._old, ignore_errors=True)
        try:
            if self.out.exists():
                self.out.rename(self._old)
            self.folder.rename(self.out)
        except BaseException:
            if self._old.exists() and not self.out.exists():
                self._old.rename(self.out)
            raise
        shutil.rmtree(self._old, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock_path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _output_error(self, error: OSError) -> OutputError:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        return OutputError(
            f"{self.out}: cannot be written",
            received=error.strerror or str(error),
            remedy="make room or choose another --out" if full else "choose an --out in a folder that you may write to",
        )


def _is_taken(out: Path) -> bool:
    """Whether something is there that a build must not replace."""
    if not out.is_dir():
        return out.exists() or out.is_symlink()
    return not (out / MANIFEST_NAME).is_file() and any(out.iterdir())


def changed_parts(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What differs between two keys, as ``name: old -> new``; hashes are shortened."""
    names = [*new, *(name for name in old if name not in new)]
    return [
        f"{name} changed: {_short(old.get(name, 'none'))} -> {_short(new.get(name, 'none'))}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _short(text: str) -> str:
    return text[:12] if len(text) == 64 and all(c in "0123456789abcdef" for c in text) else text
