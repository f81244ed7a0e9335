"""A bundle on disk: opened, checked against its manifest, read. Nothing outside of its folder is ever opened."""

from __future__ import annotations

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..checks import path as checked_path
from ..errors import BundleError
from .manifest import MANIFEST_NAME, REBUILD, EngineRecord, Manifest, decode_manifest


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. ``hash`` is the SHA-256 of the manifest, which in turn holds that of every file."""

    path: Path
    manifest: Manifest
    hash: str

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            BundleError: the name is not listed, is absolute, or leads out of the bundle (also through a link).
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: {name}", expected="a file listed in the manifest", remedy=REBUILD)
        root = self.path.resolve()
        path = (root / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(root):
            raise BundleError(
                f"{self.path}: a file outside the bundle",
                received=name,
                expected="paths inside the folder",
                remedy="do not use this bundle; " + REBUILD,
            )
        return path

    def sha256(self, name: str) -> str:
        """The SHA-256 that the manifest has of a listed file."""
        self.file(name)
        return self.manifest.files[name].sha256

    def read(self, name: str) -> bytes:
        """The content of a listed file."""
        try:
            return self.file(name).read_bytes()
        except OSError as error:
            raise self._unreadable(name, error) from None

    def map(self, name: str) -> memoryview:
        """A read-only memory map of a listed file: weights are paged in once, and never copied by us."""
        try:
            with self.file(name).open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise self._unreadable(name, error) from None

    def engines(self, provider: str, target: str | None = None) -> dict[str, EngineRecord]:
        """The engines that the bundle holds for a provider, by component; with ``target``, those that run on that GPU.

        Where it holds a component's engines for several GPUs, ``target`` (``"sm89"``) says which is meant.
        """
        return {
            engine.component: engine
            for engine in self.manifest.engines
            if engine.provider == provider and (target is None or not engine.targets or target in engine.targets)
        }

    def verify(self, names: list[str] | None = None) -> None:
        """Check size and SHA-256 of the given files (all that the manifest lists by default).

        Raises:
            BundleError: a file is missing or differs; the message names it.
        """
        chosen = list(self.manifest.files) if names is None else names
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter lock
            for _ in pool.map(self._verify_file, chosen):
                pass

    def _verify_file(self, name: str) -> None:
        path, record = self.file(name), self.manifest.files[name]
        try:
            size = path.stat().st_size
            if size == record.size:
                with path.open("rb") as file:
                    received = hashlib.file_digest(file, "sha256").hexdigest() if size else hashlib.sha256().hexdigest()
                if received == record.sha256:
                    return
                raise BundleError(
                    f"{self.path}: {name} is damaged",
                    received=f"sha256 {received[:16]}…",
                    expected=f"{record.sha256[:16]}…",
                    remedy=REBUILD,
                )
        except OSError as error:
            raise self._unreadable(name, error) from None
        raise BundleError(
            f"{self.path}: {name} is damaged",
            received=f"{size} bytes",
            expected=f"{record.size} bytes",
            remedy=REBUILD,
        )

    def _unreadable(self, name: str, error: Exception) -> BundleError:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        return BundleError(f"{self.path}: {name} cannot be read", received=reason, remedy=REBUILD)


def open_bundle(path: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
    """Open a bundle folder, and by default check every file against the manifest.

    ``verify=False`` trusts the folder, for instance when a container image has been checked as a whole.

    Raises:
        BundleError: no bundle there, a newer schema, a damaged or missing file, a path that leaves the folder.
        RequestError: something that is no path.
    """
    folder = checked_path("a bundle's folder", path)
    try:
        data = (folder / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _no_bundle(folder) from None
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read", received=error.strerror or str(error)) from None
    bundle = Bundle(folder, decode_manifest(data, where=str(folder)), hashlib.sha256(data).hexdigest())
    for name in bundle.manifest.files:
        bundle.file(name)
    if verify:
        bundle.verify()
    return bundle


def _no_bundle(folder: Path) -> BundleError:
    """The error for a path without a manifest. A folder that holds something else is not the place to build one in."""
    received, checkpoint, out = "no such folder", "CHECKPOINT", str(folder)
    if folder.exists():
        received, out = f"no {MANIFEST_NAME}" if folder.is_dir() else "a file", "BUNDLE"
    if (folder / "model_index.json").is_file():
        received, checkpoint = "a checkpoint", str(folder)
    return BundleError(
        f"{folder}: no bundle here",
        received=received,
        expected="a folder made by latentrt build-engines",
        remedy=f"build it: latentrt build-engines {checkpoint} --out {out}"
        + (", a new folder" if out == "BUNDLE" else ""),
    )
