"""Where the files that travel with the package lie: beside the sources in a checkout, inside the package in a wheel."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_folder(name: str) -> Path:
    """Return the folder ``schemas`` or ``models``.

    Raises:
        FileNotFoundError: it is in neither place, so the installation is not whole.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name!r} is neither in the package nor beside it")


def cache_folder() -> Path:
    """Return the user's cache folder for downloads that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proact"
