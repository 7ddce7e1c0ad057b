"""What no conclusion follows from: figures that are none, not numbers, or all alike. Whoever compares or concludes asks for better first.

A comparison with NaN is False, an ``all`` of nothing is True, and constant columns are equal to constant columns: each of them reads as
success. So input is refused here, before it is compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.core.columns import type_bool, type_f64


class VacuousError(ValueError):
    """Nothing follows from what was to be compared, measured or judged."""


def require_finite(what: str, values: Any) -> type_f64:
    """Return values as float64 where there are some and each is a finite number. Raises VacuousError."""
    found = np.asarray(values, np.float64)
    if not found.size:
        raise VacuousError(f"{what}: there are none")
    if wrong := int(found.size - np.count_nonzero(np.isfinite(found))):
        raise VacuousError(f"{what}: {wrong:,} of {found.size:,} are not finite numbers")
    return found


def require_varied(what: str, values: Any) -> type_f64:
    """Return values as float64 where they are finite numbers and not all alike. Raises VacuousError."""
    found = require_finite(what, values)
    if found.min() == found.max():
        raise VacuousError(f"{what}: all {found.size:,} are {found.min():g}")
    return found


def require_both(what: str, truth: type_bool) -> None:
    """Return where there are rows of both kinds. Raises VacuousError."""
    positive = int(np.count_nonzero(truth))
    if not 0 < positive < len(truth):
        raise VacuousError(f"{what}: {positive:,} of {len(truth):,} rows are fraud: it takes some of both kinds")


def require_positive(what: str, value: float) -> float:
    """Return a finite number above 0. Raises VacuousError."""
    if not (math.isfinite(value) and value > 0):
        raise VacuousError(f"{what} is {value:g}, not a number above 0")
    return value


def require_figures(what: str, found: Mapping[str, Any]) -> None:
    """Return where every number in nested dictionaries and lists is finite, and there is at least one. Raises VacuousError."""
    if not (numbers := _numbers(what, found)):
        raise VacuousError(f"{what}: there are no figures")
    wrong = [path for path, number in numbers if not math.isfinite(number)]
    if wrong:
        raise VacuousError(f"{', '.join(wrong)}: not a finite number")


def _numbers(path: str, found: Any) -> list[tuple[str, float]]:
    if isinstance(found, Mapping):
        return [one for key, inner in found.items() for one in _numbers(f"{path}.{key}", inner)]
    if isinstance(found, list | tuple):
        return [one for at, inner in enumerate(found) for one in _numbers(f"{path}[{at}]", inner)]
    return [(path, found)] if isinstance(found, int | float) and not isinstance(found, bool) else []
