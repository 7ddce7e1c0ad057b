"""The features: declared here once, computed by the same kernels in the worker and in training.

A feature is an aggregate of :mod:`services.core.aggregates` and a window. To change a window, change the declaration; to
add a feature, add one. The hash of the declarations travels with every decision and every model, so a model never scores a
vector of another feature set.

Source of the customer features and flags: Le Borgne, Siblini, Lebichot, Bontempi, *Reproducible Machine Learning for
Credit Card Fraud Detection - Practical Handbook* (2022), chapter 3.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from services.core.aggregates import (
    ABROAD,
    AGGREGATES,
    AMOUNT,
    AMOUNT_DEVIATION,
    AMOUNT_TO_LARGEST,
    AMOUNT_TO_MEAN,
    AMOUNT_TO_MEDIAN,
    AMOUNT_TO_SPENDABLE,
    COUNT_WITH_CURRENT,
    DAYS_SINCE_OPENED,
    DISTINCT_COUNTRIES,
    DISTINCT_TERMINALS,
    ENTRY_MODE,
    FIRST_FRAUD_DAYS,
    HIGH_AMOUNTS,
    HIGH_TIMES,
    HOUR,
    KM_FROM_HOME,
    KM_FROM_LAST,
    KM_PER_HOUR,
    KNOWN_COUNT,
    KNOWN_MEAN,
    KNOWN_RISK,
    LAST_FRAUD_DAYS,
    LAST_GENUINE_DAYS,
    MEAN_WITH_CURRENT,
    MEDIAN_OF,
    NIGHT,
    PAST_COUNT,
    PAST_SUM,
    SECONDS_SINCE_LAST,
    TIMES_AT_TERMINAL,
    WEEKDAY,
    WEEKEND,
    Aggregate,
)
from services.core.profiles import DAY_MS, HORIZON_MS

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Feature:
    """One number that a model is given: an aggregate of an entity's past, over a window where it has one."""

    aggregate: int
    """The index of its row in :mod:`services.core.aggregates`."""
    window_ms: int = 0
    unit: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.window_ms <= HORIZON_MS:
            raise ValueError(f"a window must lie within the horizon of {HORIZON_MS} ms: {self.window_ms}")
        if bool(self.window_ms) != self.row.windowed:
            raise ValueError(f"{self.row.name}: a window where none belongs, or none")

    @property
    def row(self) -> Aggregate:
        """All that is said of its aggregate."""
        return AGGREGATES[self.aggregate]

    @property
    def entity(self) -> str:
        """Whose number it is: transaction, card, terminal, account or customer."""
        return self.row.entity

    @property
    def name(self) -> str:
        """The name, derived from the definition, such as ``card_count_10m``; it cannot disagree with it."""
        base = f"{self.entity}_{self.row.name}"
        return base if not self.window_ms else f"{base}_{_window_name(self.window_ms)}"


def _window_name(window_ms: int) -> str:
    for unit_ms, letter in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m")):
        if window_ms % unit_ms == 0 and window_ms // unit_ms:
            return f"{window_ms // unit_ms}{letter}"
    return f"{window_ms}ms"


_KNOWN: Final = (
    "of all cards, in a window that ended 7 days before; of a terminal with more than 448 events, to six hours"
)
FEATURES: Final[tuple[Feature, ...]] = (
    Feature(AMOUNT, 0, "major units", "the billing amount"),
    Feature(WEEKEND, 0, "0 or 1", "Saturday or Sunday, UTC"),
    Feature(NIGHT, 0, "0 or 1", "00:00:00 to 06:59:59 UTC"),
    Feature(COUNT_WITH_CURRENT, DAY_MS, "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, DAY_MS, "major units", "mean amount, this one included"),
    Feature(COUNT_WITH_CURRENT, 7 * DAY_MS, "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, 7 * DAY_MS, "major units", "mean amount, this one included"),
    Feature(COUNT_WITH_CURRENT, 30 * DAY_MS, "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, 30 * DAY_MS, "major units", "mean amount, this one included"),
    Feature(PAST_COUNT, 10 * MINUTE_MS, "transactions", "before this one"),
    Feature(PAST_COUNT, HOUR_MS, "transactions", "before this one"),
    Feature(PAST_SUM, DAY_MS, "major units", "spent before this one"),
    Feature(SECONDS_SINCE_LAST, 0, "s", "since the card's last transaction, within 30 days"),
    Feature(AMOUNT_TO_MEAN, 30 * DAY_MS, "ratio", "amount / mean of the past"),
    Feature(AMOUNT_DEVIATION, 30 * DAY_MS, "standard deviations", "(amount - mean) / deviation of the past"),
    Feature(AMOUNT_TO_LARGEST, 30 * DAY_MS, "ratio", "amount / largest of the past"),
    Feature(DISTINCT_TERMINALS, DAY_MS, "terminals", "used before this one"),
    Feature(DISTINCT_COUNTRIES, DAY_MS, "countries", "seen before this one"),
    Feature(TIMES_AT_TERMINAL, 30 * DAY_MS, "transactions", "before this one, at this terminal"),
    Feature(KM_FROM_LAST, 0, "km", "from the last known position, within 30 days"),
    Feature(KM_PER_HOUR, 0, "km/h", "speed from the last known position"),
    Feature(ENTRY_MODE, 0, "code", "index of the entry mode"),
    Feature(HOUR, 0, "h", "hour of the day, UTC"),
    Feature(WEEKDAY, 0, "d", "day of the week, Monday is 0, UTC"),
    Feature(AMOUNT_TO_MEDIAN, 30 * DAY_MS, "ratio", f"amount / median of the past, of the last {MEDIAN_OF} at most"),
    Feature(
        HIGH_AMOUNTS,
        14 * DAY_MS,
        "transactions",
        f"of more than {HIGH_TIMES:.0f} times that median, before this one",
    ),
    *(Feature(KNOWN_COUNT, days * DAY_MS, "transactions", _KNOWN) for days in (1, 7, 30)),
    *(Feature(KNOWN_MEAN, days * DAY_MS, "major units", f"mean amount, {_KNOWN}") for days in (1, 7, 30)),
    *(
        Feature(KNOWN_RISK, days * DAY_MS, "share", f"of frauds, {_KNOWN}; 0 where there is none")
        for days in (1, 7, 30)
    ),
    Feature(FIRST_FRAUD_DAYS, 0, "d", "since the first known fraud, of 30 days that ended 7 days before"),
    Feature(LAST_FRAUD_DAYS, 0, "d", "since the last known fraud, of 30 days that ended 7 days before"),
    Feature(
        LAST_GENUINE_DAYS,
        0,
        "d",
        "since the last transaction at least 7 days ago that is not known as a fraud",
    ),
    Feature(AMOUNT_TO_SPENDABLE, 0, "ratio", "amount / available balance and credit limit together"),
    Feature(DAYS_SINCE_OPENED, 0, "d", "since the account was opened"),
    Feature(KM_FROM_HOME, 0, "km", "from home; 0 where a travel notice covers country and time"),
    Feature(ABROAD, 0, "0 or 1", "in another country than home, and no travel notice covers it"),
)

FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)
CARD_COLUMNS: Final = [j for j, feature in enumerate(FEATURES) if feature.entity == "card"]
"""Where what is known of the card's own past is in a vector."""


def _hash_features() -> str:
    declared = [[f.name, f.entity, f.row.name, f.window_ms] for f in FEATURES]
    return hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]


FEATURE_SET_HASH: Final = _hash_features()
"""16 hexadecimal digits over names, order, entities, aggregates and windows."""

assert len(set(FEATURE_NAMES)) == len(FEATURES), "two features have one name"
