"""Where numba keeps the compiled kernels.

Numba renews a cached kernel when its own file changes, but not when a kernel or a constant that it uses from another
file does: a changed bound would go on with the old value, in silence. So the folder's name carries a hash of every file
that holds kernels or what they use, and any change to one of them compiles all of them anew. A test finds every kernel
and checks that its file, and those of what it uses, are hashed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
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

    Must run before numba is imported. Prefers the package's own folder, else the user's cache folder, else one of the user's own among the
    temporary files, with a warning: numba refuses to compile what it cannot keep. What this process starts finds the variable set.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    name = f"kernels-{sources_hash()}"
    for base in (_PACKAGE / "__pycache__", _user_cache()):
        if base is not None and _can_be_written(base / name):
            os.environ["NUMBA_CACHE_DIR"] = str(base / name)
            return
    folder = _temporary_folder()
    os.environ["NUMBA_CACHE_DIR"] = str(folder / name)
    sys.stderr.write(
        f"proact: neither the package's folder nor the user's cache folder can be written: compiled kernels are kept in {folder} "
        "(NUMBA_CACHE_DIR names another folder)\n"
    )


def _user_cache() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proact"
    except RuntimeError:  # a user without a home
        return None


def _can_be_written(folder: Path) -> bool:
    """Whether files can be put into a folder that may have to be made; only that tells, for a home may be on a read-only file system."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary_folder() -> Path:
    """Return a folder that nobody else can write to, the same each time where that is possible: what lies in it is run."""
    shared = Path(tempfile.gettempdir()) / f"proact-{os.getuid()}"
    with suppress(OSError):
        shared.mkdir(mode=0o700, exist_ok=True)
        found = shared.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return shared
    return Path(tempfile.mkdtemp(prefix="proact-"))
