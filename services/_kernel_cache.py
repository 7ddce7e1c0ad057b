"""Where numba keeps the compiled kernels.

Numba renews a cached kernel when its own file changes, but not when a kernel or a constant that it uses from another
file does: a changed bound would go on with the old value, in silence. So the folder's name carries a hash of every file
that holds kernels, and any change to one of them compiles all of them anew.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_KERNEL_FOLDERS = ("core", "codec")


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for folder in _KERNEL_FOLDERS:
        for source in sorted((_PACKAGE / folder).glob("*.py")):
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
    os.environ["NUMBA_CACHE_DIR"] = str(base / f"kernels-{_sources_hash()}")
