"""Reference data: what a bank knows of an account and of a customer, and how it lies in the grid.

Both are profiles that are not folded but replaced: the newest record of a key is what is known. On the wire an account is one fixed
row; a customer is a header, then blocked categories, blocked countries and travel notices. A deleted one is no bytes at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.core.columns import pack_code, type_bool, type_f64, type_i64, type_u8
from services.core.layouts import ACCOUNT_LAYOUT, CUSTOMER_LAYOUT
from services.core.money import COUNTRIES, EXPONENTS
from services.core.validation import AMOUNT_MINOR_MAX, EARLIEST_MS

STATUSES: Final = ("ACTIVE", "FROZEN", "CLOSED")
SEGMENTS: Final = ("STANDARD", "STUDENT", "PREMIUM", "BUSINESS")
INSTRUCTIONS_MAX: Final = 64
"""The most blocked categories, blocked countries and travel notices of a customer, of each."""
NO_LIMIT: Final = -1
OPENED_MS_MIN: Final = -EARLIEST_MS
"""1940-01-02: no account is older."""
TIME_MS_MAX: Final = 2**45
"""The year 3084: beyond what anybody announces."""

_ACCOUNT = np.dtype(
    [
        ("layout", "<u2"),
        ("status", "<u2"),
        ("currency", "<u4"),
        ("available_balance_minor", "<i8"),
        ("credit_limit_minor", "<i8"),
        ("opened_ms", "<i8"),
    ]
)
_CUSTOMER = np.dtype(
    [
        ("layout", "<u2"),
        ("segment", "<u2"),
        ("home_country", "<u2"),
        ("categories", "<u2"),
        ("countries", "<u2"),
        ("notices", "<u2"),
        ("currency", "<u4"),
        ("limit_per_transaction_minor", "<i8"),
        ("limit_per_day_minor", "<i8"),
        ("home_latitude", "<f8"),
        ("home_longitude", "<f8"),
    ]
)
_NOTICE = np.dtype([("from_ms", "<i8"), ("until_ms", "<i8"), ("country", "<u2")])
CODE_BYTES: Final = 2
NOTICE_BYTES: Final = _NOTICE.itemsize
"""What a blocked category or country takes, and a notice: its times, then its country."""


class BadReferenceError(ValueError):
    """What is said of an account or customer cannot be; the message names the field, never its value."""


def _require(holds: bool, field: str) -> None:
    if not holds:
        raise BadReferenceError(field)


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of one account."""

    currency: str
    available_balance_minor: int
    """What it holds, without what is reserved; may be below zero as far as the credit limit goes."""
    credit_limit_minor: int
    """How far below zero it may go."""
    status: str
    opened_ms: int

    def __post_init__(self) -> None:
        _require(self.currency in EXPONENTS, "currency")
        _require(abs(self.available_balance_minor) <= AMOUNT_MINOR_MAX, "available_balance_minor")
        _require(0 <= self.credit_limit_minor <= AMOUNT_MINOR_MAX, "credit_limit_minor")
        _require(self.status in STATUSES, "status")
        _require(OPENED_MS_MIN <= self.opened_ms <= TIME_MS_MAX, "opened_ms")

    def sealed(self) -> bytes:
        """Return the bytes that the grid holds."""
        row = np.zeros(1, _ACCOUNT)
        row[0] = (
            ACCOUNT_LAYOUT, STATUSES.index(self.status), pack_code(self.currency), self.available_balance_minor,
            self.credit_limit_minor, self.opened_ms,
        )  # fmt: skip
        return row.tobytes()


@dataclass(frozen=True, slots=True)
class TravelNotice:
    """The customer said to be in a country for a time."""

    country: str
    from_ms: int
    until_ms: int

    def __post_init__(self) -> None:
        _require(self.country in COUNTRIES, "travel_notices.country")
        _require(0 <= self.from_ms <= self.until_ms <= TIME_MS_MAX, "travel_notices.until_ms")


@dataclass(frozen=True, slots=True)
class Customer:
    """What is known of one customer, and what they instructed."""

    home_country: str
    home_latitude: float | None
    home_longitude: float | None
    segment: str
    currency: str
    """Of the limits."""
    limit_per_transaction_minor: int | None = None
    limit_per_day_minor: int | None = None
    """Of 24 hours, over all attempts with one card, whatever became of them."""
    blocked_categories: Sequence[int] = ()
    blocked_countries: Sequence[str] = ()
    travel_notices: Sequence[TravelNotice] = ()

    def __post_init__(self) -> None:
        _require(self.home_country in COUNTRIES, "home_country")
        _require(self.segment in SEGMENTS, "segment")
        _require(self.currency in EXPONENTS, "currency")
        for limit in (self.limit_per_transaction_minor, self.limit_per_day_minor):
            _require(limit is None or 0 <= limit <= AMOUNT_MINOR_MAX, "limits")
        for many in (self.blocked_categories, self.blocked_countries, self.travel_notices):
            _require(len(many) <= INSTRUCTIONS_MAX, "too many instructions")
        _require(all(0 <= category <= 9999 for category in self.blocked_categories), "blocked_categories")
        _require(COUNTRIES.issuperset(self.blocked_countries), "blocked_countries")
        _require((self.home_latitude is None) == (self.home_longitude is None), "home_latitude")
        if self.home_latitude is not None and self.home_longitude is not None:
            _require(abs(self.home_latitude) <= 90.0 and abs(self.home_longitude) <= 180.0, "home_latitude")

    def sealed(self) -> bytes:
        """Return the bytes that the grid holds."""
        limits = (
            NO_LIMIT if limit is None else limit
            for limit in (self.limit_per_transaction_minor, self.limit_per_day_minor)
        )
        home = (math.nan if degrees is None else degrees for degrees in (self.home_latitude, self.home_longitude))
        header = np.zeros(1, _CUSTOMER)
        header[0] = (
            CUSTOMER_LAYOUT, SEGMENTS.index(self.segment), pack_code(self.home_country), len(self.blocked_categories),
            len(self.blocked_countries), len(self.travel_notices), pack_code(self.currency), *limits, *home,
        )  # fmt: skip
        categories = np.array(self.blocked_categories, "<u2")
        countries = np.array([pack_code(country) for country in self.blocked_countries], "<u2")
        notices = np.array([(n.from_ms, n.until_ms, pack_code(n.country)) for n in self.travel_notices], _NOTICE)
        return b"".join(part.tobytes() for part in (header, categories, countries, notices))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of a batch in columns; every array has one row for each, undefined where it is not known."""

    known: type_bool
    currency: type_i64
    spendable_minor: type_i64
    """The available balance and the credit limit together."""
    active: type_bool
    opened_ms: type_i64


@dataclass(frozen=True, slots=True)
class Customers:
    """The customers of a batch in columns; every array has one row for each, undefined where it is not known."""

    known: type_bool
    currency: type_i64
    limit_per_transaction_minor: type_i64
    limit_per_day_minor: type_i64
    home_country: type_i64
    home_latitude: type_f64
    home_longitude: type_f64
    buffer: type_u8
    """The bytes of all of them, for what has no fixed length."""
    begin: type_i64
    """Where each one's categories begin in it."""
    counts: type_i64
    """(n, 3): of categories, countries and notices."""


def _headers(blobs: Sequence[bytes | None], dtype: np.dtype, layout: int) -> tuple[np.ndarray, type_bool]:
    """Return the fixed part of each, and which of them are of this layout; the others are zeros."""
    size, nothing = dtype.itemsize, bytes(dtype.itemsize)
    rows = np.frombuffer(b"".join(blob[:size] if blob and len(blob) >= size else nothing for blob in blobs), dtype)
    return rows, rows["layout"] == layout


def open_accounts(blobs: Sequence[bytes | None]) -> Accounts:
    """Return what the grid holds of accounts; what is of another layout is not known."""
    rows, known = _headers(blobs, _ACCOUNT, ACCOUNT_LAYOUT)
    return Accounts(
        known=known,
        currency=rows["currency"].astype(np.int64),
        spendable_minor=rows["available_balance_minor"] + rows["credit_limit_minor"],
        active=rows["status"] == STATUSES.index("ACTIVE"),
        opened_ms=rows["opened_ms"].astype(np.int64),
    )


def open_customers(blobs: Sequence[bytes | None]) -> Customers:
    """Return what the grid holds of customers; what is of another layout, or of another length than it says, is not known."""
    rows, known = _headers(blobs, _CUSTOMER, CUSTOMER_LAYOUT)
    length = np.array([len(blob or b"") for blob in blobs], np.int64)
    counts = np.stack([rows[name].astype(np.int64) for name in ("categories", "countries", "notices")], axis=1)
    known &= length == _CUSTOMER.itemsize + counts @ np.array([CODE_BYTES, CODE_BYTES, NOTICE_BYTES])
    return Customers(
        known=known,
        currency=rows["currency"].astype(np.int64),
        limit_per_transaction_minor=rows["limit_per_transaction_minor"].astype(np.int64),
        limit_per_day_minor=rows["limit_per_day_minor"].astype(np.int64),
        home_country=rows["home_country"].astype(np.int64),
        home_latitude=rows["home_latitude"].astype(np.float64),
        home_longitude=rows["home_longitude"].astype(np.float64),
        buffer=np.frombuffer(b"".join(blob or b"" for blob in blobs), np.uint8),
        begin=np.cumsum(length) - length + _CUSTOMER.itemsize,
        counts=counts,
    )
