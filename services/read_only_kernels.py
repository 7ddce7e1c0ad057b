"""Compiled kernels from a folder that cannot be written: for containers, whose file system is read-only.

numba's own locators take a folder only if they can make a file in it. ``NUMBA_CACHE_LOCATOR_CLASSES`` names this class in
the image, where all kernels were compiled while it was built.
"""

from __future__ import annotations

from typing import Any

from numba.core import config
from numba.core.caching import UserProvidedCacheLocator


class ReadOnlyKernels(UserProvidedCacheLocator):  # type: ignore[misc] # numba is untyped
    """Looks into ``NUMBA_CACHE_DIR`` without trying to write there."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ReadOnlyKernels | None:
        """Return the locator of a function's kernels."""
        return cls(py_func, py_file) if config.CACHE_DIR else None
