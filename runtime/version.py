"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("latentrt")
except PackageNotFoundError:  # run from its sources, which are on the path
    __version__ = "0+sources"
