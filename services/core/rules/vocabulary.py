"""What an expression can name: fields of the transaction, features, scores; each with its kind and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from services.core.columns import ENTRY_MODES, Text, TransactionColumns, pack_code, type_f64
from services.core.features import FEATURES
from services.core.money import COUNTRIES, EXPONENTS, scales_of


class Kind(Enum):
    """What can be compared with what."""

    BOOLEAN = "yes or no"
    NUMBER = "a number"
    TEXT = "a text"
    COUNTRY = "a country"
    CURRENCY = "a currency"
    ENTRY_MODE = "an entry mode"


CODES: Final[Mapping[Kind, Callable[[str], int | None]]] = {
    Kind.COUNTRY: lambda text: pack_code(text) if text in COUNTRIES else None,
    Kind.CURRENCY: lambda text: pack_code(text) if text in EXPONENTS else None,
    Kind.ENTRY_MODE: lambda text: ENTRY_MODES.index(text) if text in ENTRY_MODES else None,
}
"""Of kinds that are written as a text and held as a number: which number."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at: a batch of n transactions with what is known and was said of them."""

    columns: TransactionColumns
    vectors: type_f64
    """(n, features)."""
    scores: type_f64
    """(n,) the model's; NaN where none spoke."""
    anomaly_scores: type_f64
    """(n,) how anomalous each is; NaN where nobody said."""

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class Variable:
    """Something that can be named."""

    name: str
    kind: Kind
    meaning: str
    numbers: Callable[[Facts], type_f64] | None = None
    """Its values as numbers, NaN where it has none."""
    texts: Callable[[Facts], Text] | None = None

    def __post_init__(self) -> None:
        assert (self.kind is Kind.TEXT) == (self.texts is not None) != (self.numbers is not None)


def _float(values: np.ndarray) -> type_f64:
    return values.astype(np.float64)


def _feature(j: int) -> Callable[[Facts], type_f64]:
    return lambda facts: facts.vectors[:, j]


def _features() -> list[Variable]:
    found = []
    for j, feature in enumerate(FEATURES):
        name = f"{feature.entity}.{feature.name.removeprefix(feature.entity + '_')}"
        if name not in ("transaction.entry_mode", "transaction.amount"):
            found.append(Variable(name, Kind.NUMBER, f"{feature.meaning} ({feature.unit})", _feature(j)))
    return found


def _identifier(name: str) -> Variable:
    return Variable(
        f"transaction.{name}", Kind.TEXT, name.replace("_", " "), texts=lambda facts: getattr(facts.columns, name)
    )


def _amount(facts: Facts) -> type_f64:
    return facts.columns.billing_amount_minor / scales_of(facts.columns.billing_currency)


def _local_amount(facts: Facts) -> type_f64:
    return facts.columns.amount_minor / scales_of(facts.columns.currency)


VARIABLES: Final[Mapping[str, Variable]] = {
    variable.name: variable
    for variable in (
        Variable("transaction.amount", Kind.NUMBER, "the billing amount (major units)", _amount),
        Variable(
            "transaction.currency", Kind.CURRENCY, "the billing currency", lambda f: _float(f.columns.billing_currency)
        ),
        Variable("transaction.local_amount", Kind.NUMBER, "the amount at the terminal (major units)", _local_amount),
        Variable("transaction.local_currency", Kind.CURRENCY, "its currency", lambda f: _float(f.columns.currency)),
        Variable("transaction.country", Kind.COUNTRY, "where the terminal is", lambda f: _float(f.columns.country)),
        Variable(
            "transaction.merchant_category_code",
            Kind.NUMBER,
            "ISO 18245",
            lambda f: _float(f.columns.merchant_category_code),
        ),
        Variable(
            "transaction.entry_mode", Kind.ENTRY_MODE, "how the card was read", lambda f: _float(f.columns.entry_mode)
        ),
        *map(_identifier, ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")),
        *_features(),
        Variable("score", Kind.NUMBER, "the model's probability of fraud (0 to 1)", lambda f: f.scores),
        Variable("anomaly_score", Kind.NUMBER, "how unlike all that was seen (0 to 1)", lambda f: f.anomaly_scores),
    )
}
