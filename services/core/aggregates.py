"""The aggregates: what the kernels know to compute, one row each.

A row is all that is said of an aggregate: its name, the kernel that computes it, whether it is taken over a window, how it
changes with the amount, and its words. To add one, add a row and its line in the kernel that the row names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

import numpy as np

from services.core.explain.words import THE_AMOUNT, Words

MEDIAN_OF: Final = 40
"""How many of a card's last amounts the median is taken of."""
HIGH_TIMES: Final = 3.0
"""An amount is high beyond so many times the median."""
_LEAST_AMOUNT: Final = 0.005
"""In major units: what is less reads as nothing."""


class Kernel(Enum):
    """Where an aggregate is computed."""

    MOMENT = "services.core.card.features:_moment_value"
    """Of the transaction itself, or of the card's one before."""
    CARD = "services.core.card.features:_past_value"
    """Over the card's past."""
    TERMINAL = "services.core.terminal.features:_terminal_value"
    """Of what is known of the terminal: over a window that ends as long ago as labels take, or an age."""
    REFERENCE = "services.core.reference.features:see_reference"
    """Of what the bank knows of the account and the customer."""


class ByAmount(IntEnum):
    """How an aggregate is computed anew where the same transaction had another amount."""

    SAME = 0
    """It does not depend on the amount."""
    AMOUNT = 1
    """It is the amount, in major units."""
    RATIO = 2
    """The amount by a whole number of minor units."""
    RATIO_TO_HALVES = 3
    """The amount by a number of minor units that may end in a half."""
    MEAN = 4
    """The mean of a window with this transaction in it."""
    RATIO_TO_MEAN = 5
    """The amount by the mean of a window before it."""
    DEVIATION = 6
    """How many standard deviations the amount is from the mean of a window before it."""


FROM_MEAN: Final = (ByAmount.RATIO_TO_MEAN, ByAmount.DEVIATION, ByAmount.MEAN)
"""What comes out of the mean and the count of its window; in this order, since the mean changes last."""


class Normal(Enum):
    """What an aggregate normally is for a card, out of its mean and its number of transactions in 30 days."""

    UNKNOWN = "nothing is said"
    MEAN = "the mean"
    ONE = "as large as the mean"
    NONE = "no deviation"
    SUM = "the mean as often as the window normally has transactions"
    COUNT = "as often as the window normally has transactions"
    INTERVAL = "the time that normally passes between two"


type_template = str | Callable[[Words], str]
"""A template that may name, in braces, what :class:`Words` has; or what chooses one by the value."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One kind of number; with a window where it takes one, it makes a feature."""

    name: str
    entity: str
    """Whose it is: transaction, card, terminal, account or customer."""
    kernel: Kernel
    words: type_template
    """What an analyst reads of a value."""
    unknown: str = ""
    """A template for one without a value; where it is empty, the feature's name is said to be not known."""
    windowed: bool = False
    by_amount: ByAmount = ByAmount.SAME
    normal: Normal = Normal.UNKNOWN
    without: tuple[str, float] | None = None
    """A change of the transaction that undoes it, and the value that it then has: see :mod:`services.core.explain.what_if`."""


AGGREGATES: Final[list[Aggregate]] = []
"""In the order of their indices, which the kernels compare."""


def _row(aggregate: Aggregate) -> int:
    AGGREGATES.append(aggregate)
    return len(AGGREGATES) - 1


_TX: Final = "transaction"
AMOUNT: Final = _row(
    Aggregate(
        "amount", _TX, Kernel.MOMENT,
        lambda of: "the amount is {amount}" if of.amount != THE_AMOUNT else "the amount itself",
        by_amount=ByAmount.AMOUNT, normal=Normal.MEAN,
    )
)  # fmt: skip
WEEKEND: Final = _row(
    Aggregate("is_weekend", _TX, Kernel.MOMENT, lambda of: "at the weekend" if of.value else "on a working day")
)
NIGHT: Final = _row(
    Aggregate("is_night", _TX, Kernel.MOMENT, lambda of: "at night (00:00 to 06:59 UTC)" if of.value else "by day")
)
ENTRY_MODE: Final = _row(Aggregate("entry_mode", _TX, Kernel.MOMENT, "entry mode is {entry_mode}"))
HOUR: Final = _row(
    Aggregate("hour", _TX, Kernel.MOMENT, "between {value:02.0f}:00 and {value:02.0f}:59 UTC"),
)
WEEKDAY: Final = _row(Aggregate("weekday", _TX, Kernel.MOMENT, "on a {weekday}"))
SECONDS_SINCE_LAST: Final = _row(
    Aggregate(
        "seconds_since_last", "card", Kernel.MOMENT, "{duration} after the card's last transaction",
        "first transaction of this card in 30 days", normal=Normal.INTERVAL,
    )
)  # fmt: skip
KM_FROM_LAST: Final = _row(
    Aggregate(
        "km_from_last", "card", Kernel.MOMENT, "{least} km from the card's last position",
        "the distance from the card's last position is not known", without=("place", 0.0),
    )
)  # fmt: skip
KM_PER_HOUR: Final = _row(
    Aggregate(
        "km_per_hour", "card", Kernel.MOMENT, "{least} km/h from the card's last position",
        "the speed from the card's last position is not known", without=("place", 0.0),
    )
)  # fmt: skip
COUNT_WITH_CURRENT: Final = _row(
    Aggregate(
        "count_with_current", "card", Kernel.CARD, "transaction number {value:.0f} of this card in {span}",
        windowed=True, normal=Normal.COUNT,
    )
)  # fmt: skip
MEAN_WITH_CURRENT: Final = _row(
    Aggregate(
        "mean_with_current", "card", Kernel.CARD,
        "this card spends {value:,.2f} on average in {span}, this one included",
        windowed=True, by_amount=ByAmount.MEAN, normal=Normal.MEAN,
    )
)  # fmt: skip
PAST_COUNT: Final = _row(
    Aggregate(
        "count", "card", Kernel.CARD, "{count} transaction{s} in the {span} before", windowed=True, normal=Normal.COUNT
    )
)
PAST_SUM: Final = _row(
    Aggregate(
        "sum", "card", Kernel.CARD,
        lambda of: ("{value:,.2f}" if of.value >= _LEAST_AMOUNT else "nothing") + " spent in the {span} before",
        windowed=True, normal=Normal.SUM,
    )
)  # fmt: skip
AMOUNT_TO_MEAN: Final = _row(
    Aggregate(
        "amount_to_mean", "card", Kernel.CARD, "{amount} is {times} this card's average of {span}",
        "no average of this card to compare the amount with",
        windowed=True, by_amount=ByAmount.RATIO_TO_MEAN, normal=Normal.ONE,
    )
)  # fmt: skip
AMOUNT_DEVIATION: Final = _row(
    Aggregate(
        "amount_deviation", "card", Kernel.CARD, "{amount} is {far} this card's average of {span}",
        "too little history to compare the amount with",
        windowed=True, by_amount=ByAmount.DEVIATION, normal=Normal.NONE,
    )
)  # fmt: skip
AMOUNT_TO_LARGEST: Final = _row(
    Aggregate(
        "amount_to_largest", "card", Kernel.CARD, "{amount} is {times} this card's largest of {span}",
        "no largest amount of this card to compare with",
        windowed=True, by_amount=ByAmount.RATIO, normal=Normal.ONE,
    )
)  # fmt: skip
DISTINCT_TERMINALS: Final = _row(
    Aggregate("distinct_terminals", "card", Kernel.CARD, "{count} terminal{s} used in the {span} before", windowed=True)
)
DISTINCT_COUNTRIES: Final = _row(
    Aggregate(
        "distinct_countries", "card", Kernel.CARD, "{count} countr{ies} in the {span} before",
        windowed=True, without=("place", 0.0),
    )
)  # fmt: skip
_TIMES: Final = ("never at this terminal in {span}", "used this terminal once in {span}")
TIMES_AT_TERMINAL: Final = _row(
    Aggregate(
        "times_at_terminal", "card", Kernel.CARD,
        lambda of: _TIMES[of.value >= 0.5] if of.value < 1.5 else "used this terminal {count} times in {span}",
        windowed=True,
    )
)  # fmt: skip
AMOUNT_TO_MEDIAN: Final = _row(
    Aggregate(
        "amount_to_median", "card", Kernel.CARD, "{amount} is {times} the middle one of this card's last amounts",
        "no last amounts of this card to compare with",
        windowed=True, by_amount=ByAmount.RATIO_TO_HALVES, normal=Normal.ONE,
    )
)  # fmt: skip
HIGH_AMOUNTS: Final = _row(
    Aggregate(
        "high_amounts", "card", Kernel.CARD,
        f"{{count}} amount{{s}} of more than {HIGH_TIMES:.0f} times this card's middle one in the {{span}} before",
        windowed=True,
    )
)  # fmt: skip
KNOWN_COUNT: Final = _row(
    Aggregate(
        "known_count", "terminal", Kernel.TERMINAL, "{count} transaction{s} at this terminal in {known_span}",
        "how many transactions this terminal had in {known_span} is not known", windowed=True,
    )
)  # fmt: skip
KNOWN_MEAN: Final = _row(
    Aggregate(
        "known_mean", "terminal", Kernel.TERMINAL, "{value:,.2f} on average at this terminal in {known_span}",
        "the average at this terminal in {known_span} is not known", windowed=True,
    )
)  # fmt: skip
_NO_FRAUDS: Final = "none of this terminal's transactions in {known_span} was a fraud"
KNOWN_RISK: Final = _row(
    Aggregate(
        "known_risk", "terminal", Kernel.TERMINAL,
        lambda of: "{share} this terminal's transactions in {known_span} were frauds" if of.value else _NO_FRAUDS,
        "the share of frauds at this terminal in {known_span} is not known",
        windowed=True, without=("terminal", 0.0),
    )
)  # fmt: skip
FIRST_FRAUD_DAYS: Final = _row(
    Aggregate(
        "days_since_first_fraud", "terminal", Kernel.TERMINAL,
        "the first known fraud at this terminal was {least} day{s} ago",
        "no first fraud is known at this terminal", without=("terminal", np.nan),
    )
)  # fmt: skip
LAST_FRAUD_DAYS: Final = _row(
    Aggregate(
        "days_since_last_fraud", "terminal", Kernel.TERMINAL,
        "the last known fraud at this terminal was {least} day{s} ago",
        "no fraud is known at this terminal", without=("terminal", np.nan),
    )
)  # fmt: skip
LAST_GENUINE_DAYS: Final = _row(
    Aggregate(
        "days_since_last_genuine", "terminal", Kernel.TERMINAL,
        "the last known genuine transaction at this terminal was {least} day{s} ago",
        "no genuine transaction is known at this terminal",
    )
)  # fmt: skip
AMOUNT_TO_SPENDABLE: Final = _row(
    Aggregate(
        "amount_to_spendable", "account", Kernel.REFERENCE, "{amount} is {share} what the account can spend",
        "what the account can spend is not known", by_amount=ByAmount.RATIO,
    )
)  # fmt: skip
DAYS_SINCE_OPENED: Final = _row(
    Aggregate(
        "days_since_opened", "account", Kernel.REFERENCE, "the account was opened {least} day{s} ago",
        "when the account was opened is not known",
    )
)  # fmt: skip
KM_FROM_HOME: Final = _row(
    Aggregate(
        "km_from_home", "customer", Kernel.REFERENCE, "{least} km from the customer's home",
        "the distance from the customer's home is not known", without=("travel_notice", 0.0),
    )
)  # fmt: skip
_ABROAD: Final = "in another country than home, without a travel notice"
ABROAD: Final = _row(
    Aggregate(
        "abroad_unannounced", "customer", Kernel.REFERENCE,
        lambda of: _ABROAD if of.value else "at home, or where a notice said",
        "whether the customer announced the country is not known", without=("travel_notice", 0.0),
    )
)  # fmt: skip

IS_WINDOWED: Final = np.array([aggregate.windowed for aggregate in AGGREGATES])
"""(aggregates,) in the order of ``AGGREGATES``."""
