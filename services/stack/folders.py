"""Folders that a stack or a command keeps its data in: whether they can be used, and that one command at a time does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.stack.processes import COMMAND, Daemon, StackError

_CHOOSE: Final = "choose another with --data-folder"
_held: set[Path] = set()
"""What this process has claimed; a lock of the system's would not let it in a second time either."""


def make_folder(folder: Path) -> None:
    """Make a folder that its user can write to. Raises StackError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StackError(f"{folder} cannot be a folder, a file is in its place: {_CHOOSE}") from None
    except OSError as error:
        raise StackError(f"the folder {folder} cannot be made ({error.strerror}): {_CHOOSE}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StackError(f"the folder {folder} may not be read and written by you: {_CHOOSE}")


def check_readable(folder: Path) -> None:
    """Raise StackError where it cannot be seen what a folder holds; one that is not there holds nothing."""
    try:
        there = folder.is_dir()
        if not there and folder.exists():
            raise StackError(f"{folder} is not a folder: {_CHOOSE}")
    except OSError as error:
        raise StackError(f"the folder {folder} cannot be read ({error.strerror})") from None
    if there and not os.access(folder, os.R_OK | os.X_OK):
        raise StackError(f"the folder {folder} may not be read by you")


@contextmanager
def claimed(folder: Path, what: str = "a command") -> Iterator[None]:
    """Have a folder for this command alone, noted for ``proact stack down``; no other process gets it meanwhile.

    A lock of the operating system's, which ends with the process however that ends; so nothing that a dead command left is in the way.
    The lock's file lies beside the folder, which is emptied under it. Claiming again within the same process adds nothing.

    Raises:
        StackError: another process has the folder, or it cannot be used.
    """
    key = folder.absolute()
    if key in _held:
        yield
        return
    make_folder(folder)
    with _lock_file(folder.with_name(f"{folder.name}.lock")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(_taken(folder, os.pread(lock, 200, 0).decode(errors="replace"))) from None
        except OSError as error:
            raise StackError(f"the folder {folder} cannot be locked ({error.strerror}): {_CHOOSE}") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {what}".encode(), 0)
        _held.add(key)
        try:
            Daemon(COMMAND, folder).note(os.getpid())
            yield
        finally:
            _held.discard(key)


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StackError(f"{path} cannot be written ({error.strerror}): {_CHOOSE}") from None
    try:
        yield lock
    finally:
        os.close(lock)


def _taken(folder: Path, noted: str) -> str:
    pid, _, what = noted.partition(" ")
    who = f"process {pid}" if pid else "another process"
    return (
        f"{what or 'a command'} is running in {folder}, {who}: `proact stack down` with the same --data-folder ends it, "
        "or use another --data-folder"
    )
