"""Where numba keeps the compiled kernels.

Numba renews a cached kernel when its own file changes, but not when a kernel or a constant that it uses from another
file does: a changed bound would go on with the old value, in silence. So the folder's name carries a hash of every file
that holds kernels or what they use, and any change to one of them compiles all of them anew. A test finds every kernel
and checks that its file, and those of what it uses, are hashed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

_PACKAGE = Path(__file__).parent
KERNEL_FOLDERS: Final = ("codec", "core", "inference")
"""All files of these folders and of those below them are hashed."""


def kernel_sources() -> list[Path]:
    """Return every file that is hashed."""
    return [source for folder in KERNEL_FOLDERS for source in sorted((_PACKAGE / folder).rglob("*.py"))]


def sources_hash() -> str:
    digest = hashlib.sha256()
    for source in kernel_sources():
        digest.update(source.relative_to(_PACKAGE).as_posix().encode() + b"\0")
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def use_kernel_cache() -> None:
    """Point numba at a folder for these sources; ``NUMBA_CACHE_DIR`` is left alone where it is set.

    Must run before numba is imported. Prefers the package's own folder, else the user's cache folder.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proact"
    base = _PACKAGE / "__pycache__" if os.access(_PACKAGE, os.W_OK) else user_cache
    os.environ["NUMBA_CACHE_DIR"] = str(base / f"kernels-{sources_hash()}")
