"""How far one distribution is from another, both counted in the same bins."""

from __future__ import annotations

import numpy as np

from services.core.columns import type_f64, type_i64


def stability_index(expected: type_i64 | type_f64, actual: type_i64 | type_f64) -> float:
    """Return the population stability index of two histograms with the same bins; a bin without any counts as half a one.

    Source: Siddiqi, Credit Risk Scorecards, 2006: the sum of (a - e) * ln(a / e) over the bins' shares.
    """
    e, a = np.maximum(expected, 0.5), np.maximum(actual, 0.5)
    e, a = e / e.sum(), a / a.sum()
    return float(((a - e) * np.log(a / e)).sum())
