"""A card's own normal: what a feature is compared with when people hear of it. All of it is in the vector."""

from __future__ import annotations

import math
from typing import Final

from services.core.aggregates import AMOUNT, COUNT_WITH_CURRENT, MEAN_WITH_CURRENT, Normal
from services.core.columns import type_f64
from services.core.features import FEATURES, Feature
from services.core.profiles import DAY_MS

SPAN_MS: Final = 30 * DAY_MS
"""A card's normal is that of its last 30 days."""
_AT: Final = {(f.aggregate, f.window_ms): j for j, f in enumerate(FEATURES)}
_COUNT, _MEAN, _AMOUNT = _AT[COUNT_WITH_CURRENT, SPAN_MS], _AT[MEAN_WITH_CURRENT, SPAN_MS], _AT[AMOUNT, 0]
_OF_RATIO: Final = {Normal.ONE: 1.0, Normal.NONE: 0.0}


def own_normal(feature: Feature, vector: type_f64) -> tuple[float | None, str]:
    """Return what a feature normally is for this card, in the feature's unit, and the words; None where there is nothing to say.

    Args:
        feature: the feature that people read of.
        vector: (features,) of the transaction.
    """
    count = vector[_COUNT] - 1.0
    if math.isnan(count) or count <= 0.0:
        return None, ""
    # Of amounts of nothing it is a rounding error, of either sign.
    mean = max(0.0, (vector[_MEAN] * vector[_COUNT] - vector[_AMOUNT]) / count)
    normal, expected = feature.row.normal, count * feature.window_ms / SPAN_MS
    if normal == Normal.MEAN or normal in _OF_RATIO:
        return _OF_RATIO.get(normal, float(mean)), f"this card's 30-day mean is {mean:,.2f}"
    if normal == Normal.SUM:
        spent = f"{mean * expected:,.2f}" if mean * expected >= 0.005 else "next to nothing"
        return float(mean * expected), f"this card normally spends {spent} in that time"
    if normal == Normal.COUNT and feature.window_ms < SPAN_MS:
        return float(expected), f"this card normally has {f'{expected:.1f}' if expected >= 0.05 else 'none'}"
    if normal == Normal.INTERVAL:
        hours = SPAN_MS / 3_600_000 / count
        return float(hours * 3_600), f"normally {hours:,.0f} hours" if hours >= 1.5 else "normally within an hour or so"
    return None, ""
