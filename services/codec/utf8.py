"""Whether bytes are text."""

from __future__ import annotations

import numpy as np
from numba import njit

from services.core.columns import type_u8


@njit(cache=True, nogil=True, forceinline=True)
def _continues(buffer: type_u8, at: int, stop: int, least: int, most: int) -> bool:
    return at < stop and least <= buffer[at] <= most


@njit(cache=True, nogil=True, forceinline=True)
def valid_utf8(buffer: type_u8, at: int, stop: int) -> bool:
    """Whether a byte range is well-formed UTF-8 (The Unicode Standard, table 3-7)."""
    bits = np.uint8(0)
    for i in range(at, stop):
        bits |= buffer[i]
    return bool(bits < 0x80) or _well_formed(buffer, at, stop)


@njit(cache=True, nogil=True)
def _well_formed(buffer: type_u8, at: int, stop: int) -> bool:
    while at < stop:
        lead = buffer[at]
        if lead < 0x80:
            at += 1
            continue
        if 0xC2 <= lead <= 0xDF:
            follow, least, most = 1, 0x80, 0xBF
        elif 0xE0 <= lead <= 0xEF:
            follow, least, most = 2, 0xA0 if lead == 0xE0 else 0x80, 0x9F if lead == 0xED else 0xBF
        elif 0xF0 <= lead <= 0xF4:
            follow, least, most = 3, 0x90 if lead == 0xF0 else 0x80, 0x8F if lead == 0xF4 else 0xBF
        else:
            return False
        if not _continues(buffer, at + 1, stop, least, most):
            return False
        for i in range(2, follow + 1):
            if not _continues(buffer, at + i, stop, 0x80, 0xBF):
                return False
        at += follow + 1
    return True
