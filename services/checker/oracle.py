"""What every decision and profile must be, in plain Python, one transaction at a time, written from the definitions.

It shares no code with the workers: only the Avro schemas, the ISO tables and the released model's files are the same. Windows are
``(t - w, t]``, of the card's remembered transactions that came before on the log, an earlier copy of the same one left out.
"""

from __future__ import annotations

import bisect
import io
import math
import statistics
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import fastavro

from services.checker.card_numbers import token_ok
from services.core.money import COUNTRIES, EXPONENTS
from services.paths import data_folder

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
HORIZON, KEEP, REMEMBERED_MAX = 30 * DAY, 31 * DAY, 256
NEVER: Final = -(2**62)
MODES: Final = ("CHIP", "CONTACTLESS", "MAGSTRIPE", "ECOMMERCE", "MANUAL", "ATM")
HEADER, PLACE, POSITION = struct.Struct("<HHHHqqq"), struct.Struct("<IH"), struct.Struct("<Bff")
LAYOUT: Final = 2
MASK32, MASK40, MASK64 = 2**32 - 1, 2**40 - 1, 2**64 - 1
ROUNDED: Final = ("card_km_from_last", "card_km_per_hour")
"""The features that go through the machine's sine and cosine: equal up to rounding, not bit for bit."""
FEATURES: Final = (
    "transaction_amount", "transaction_is_weekend", "transaction_is_night", "card_count_with_current_1d", "card_mean_with_current_1d",
    "card_count_with_current_7d", "card_mean_with_current_7d", "card_count_with_current_30d", "card_mean_with_current_30d",
    "card_count_10m", "card_count_1h", "card_sum_1d", "card_seconds_since_last", "card_amount_to_mean_30d",
    "card_amount_deviation_30d", "card_amount_to_largest_30d", "card_distinct_terminals_1d", "card_distinct_countries_1d",
    "card_times_at_terminal_30d", *ROUNDED, "transaction_entry_mode", "transaction_hour", "transaction_weekday",
    "card_amount_to_median_30d", "card_high_amounts_14d",
)  # fmt: skip
"""How a vector begins where no released model says what is in it: what follows was read of others."""
OF_CARD: Final = "card_"
"""How the names of the features of the card's own past begin."""
NAMESPACE: Final = bytes.fromhex("5d1c7a90e3b64f28a1c40b9be2f7d635")


class Schemas:
    """The writer schemas of a topic, by the ten bytes that frame their records; each record is read as the newest of them."""

    def __init__(self, topic: str) -> None:
        folder = data_folder("schemas") / topic
        self.defaults: dict[str, Any] = {}
        """Of the newest schema's fields."""
        self._by_header = {}
        for kind in ("v", "envelope"):
            paths = sorted(folder.glob(f"{kind}*.avsc"), key=lambda path: (len(path.name), path.name))
            newest = fastavro.schema.load_schema(paths[-1]) if paths else None
            if kind == "v" and newest is not None:
                self.defaults = {one["name"]: one["default"] for one in newest["fields"] if "default" in one}
            for path in paths:
                definition = fastavro.schema.load_schema(path)
                canonical = fastavro.schema.to_parsing_canonical_form(definition)
                digits = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
                header = b"\xc3\x01" + bytes.fromhex(digits.rjust(16, "0"))
                self._by_header[header] = definition, None if path is paths[-1] else newest

    def decode(self, value: bytes | None) -> dict[str, Any] | None:
        """Return the record, or None for anything that is not exactly one record of this topic."""
        schema, newest = self._by_header.get((value or b"")[:10], (None, None))
        if schema is None:
            return None
        body = io.BytesIO((value or b"")[10:])
        try:
            record = fastavro.schemaless_reader(body, schema, newest, return_record_name=False)
        except Exception:  # noqa: BLE001 - whatever it is: this is not a record
            return None
        return None if body.read(1) or not isinstance(record, dict) else record


@cache
def schemas_of(topic: str) -> Schemas:
    """Return the schemas of a topic, read once."""
    return Schemas(topic)


def acceptable(record: dict[str, Any], key: bytes | None, timestamp_ms: int) -> bool:
    """Whether a decoded transaction is to be decided on."""
    tokens = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id")
    latitude, longitude = record["latitude"], record["longitude"]
    positioned = latitude is not None and longitude is not None
    return (
        key is not None
        and record["card_id"].encode() == key
        and all(token_ok(record[name]) for name in tokens)
        and token_ok(record["device_id"] or "", optional=True)
        and all(0 <= record[name] <= 10**12 for name in ("amount_minor", "billing_amount_minor"))
        and all(record[name] in EXPONENTS for name in ("currency", "billing_currency"))
        and record["country"] in COUNTRIES
        and 0 <= record["merchant_category_code"] <= 9999
        and (latitude is None) == (longitude is None)
        and (not positioned or (abs(latitude) <= 90 and abs(longitude) <= 180))
        and record["event_time_ms"] >= 946_684_800_000
        and record["event_time_ms"] - DAY <= timestamp_ms
    )


def home_of(key: bytes, partitions: int) -> int:
    """Return the partition that a key belongs to: murmur2 of 32 bits, as Java's clients choose it, of so many partitions."""
    mask, factor = 2**32 - 1, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for (k,) in struct.iter_unpack("<I", key[:whole]):
        mixed = k * factor & mask
        h = (h * factor ^ (mixed ^ mixed >> 24) * factor) & mask
    if key[whole:]:
        h = (h ^ int.from_bytes(key[whole:], "little")) * factor & mask
    h = (h ^ h >> 13) * factor & mask
    return (h ^ h >> 15) % 2**31 % partitions


def decision_id(transaction_id: bytes) -> bytes:
    """Return the decision's id of a transaction's: exclusive-or with a namespace, marked as a UUID of version 8."""
    mixed = bytearray(a ^ b for a, b in zip(transaction_id, NAMESPACE, strict=True))
    mixed[6], mixed[8] = mixed[6] & 0x0F | 0x80, mixed[8] & 0x3F | 0x80
    return bytes(mixed)


def hash64(raw: bytes) -> int:
    """Return FNV-1a of 64 bits, finished with murmur3's mixer."""
    h = 0xCBF29CE484222325
    for byte in raw:
        h = (h ^ byte) * 0x100000001B3 & MASK64
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCD & MASK64
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53 & MASK64
    return h ^ (h >> 33)


def times_and_hashes(rows: Iterable[tuple[int, int]]) -> bytes:
    """Return how a profile keeps them: ms before the newest, then the low five bytes of each hash."""
    times, hashes = zip(*rows, strict=True)
    return struct.pack(f"<{len(times)}I", *(times[-1] - at for at in times)) + b"".join(
        h.to_bytes(5, "little") for h in hashes
    )


def amounts(values: Iterable[int]) -> bytes:
    """Return how a profile keeps them: one more than each is, seven bits a byte, the least significant first."""
    out = bytearray()
    for value in values:
        rest = value + 1
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def single(value: float | None) -> float:
    """Return a coordinate as it is remembered, in single precision; NaN for none."""
    return math.nan if value is None else struct.unpack("f", struct.pack("f", value))[0]


@dataclass(slots=True)
class Card:
    """What one card's profile remembers: entries in the order of event time, equal times in the order of the log."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    last_offset: int = -1
    truncated: int = NEVER

    def packed(self) -> bytes:
        """Return the profile's bytes."""
        places: dict[tuple[int, int], int] = {}
        at = bytes(places.setdefault((e[3], e[6]), len(places)) for e in self.entries)
        known = [POSITION.pack(i, e[4], e[5]) for i, e in enumerate(self.entries) if not math.isnan(e[4])]
        newest = self.times[-1] if self.times else 0
        head = HEADER.pack(LAYOUT, len(self.times), len(places), len(known), self.last_offset, self.truncated, newest)
        middle = [at, *(PLACE.pack(*place) for place in places), *known]
        return (
            head
            + times_and_hashes((e[0], e[2]) for e in self.entries)
            + b"".join(middle)
            + amounts(e[1] for e in self.entries)
        )

    def fold(self, offset: int, entry: tuple[Any, ...]) -> None:
        """Remember a transaction, and forget what is beyond the bounds."""
        at = bisect.bisect_right(self.times, entry[0])
        self.entries.insert(at, entry)
        self.times.insert(at, entry[0])
        edge = self.times[-1] - KEEP
        gone = bisect.bisect_right(self.times, edge)
        del self.entries[:gone], self.times[:gone]
        if len(self.times) > REMEMBERED_MAX:
            self.truncated = max(self.truncated, self.times[0])
            del self.entries[0], self.times[0]
        if self.truncated <= edge:
            self.truncated = NEVER
        self._forget_positions()
        self.last_offset = offset

    def _forget_positions(self) -> None:
        """Forget where the card was more than a day before its newest transaction, but for the last time of these."""
        old = [
            i for i in range(bisect.bisect_left(self.times, self.times[-1] - DAY)) if not math.isnan(self.entries[i][4])
        ]
        for i in old[:-1]:
            self.entries[i] = (*self.entries[i][:4], math.nan, math.nan, *self.entries[i][6:])


@dataclass(frozen=True, slots=True)
class Expected:
    """What must have been said of one transaction, beside its score."""

    vector: dict[str, float]
    """By the feature's name."""
    degraded: list[str]
    repeat: bool


class Oracle:
    """Folds one partition's transactions, in order."""

    def __init__(self) -> None:
        self.cards: dict[bytes, Card] = {}
        self._terminals: dict[str, int] = {}

    def decide(self, record: dict[str, Any], offset: int) -> Expected:
        """Return what must be said of a transaction, and fold it."""
        card = self.cards.setdefault(record["card_id"].encode(), Card())
        terminal = record["terminal_id"]
        if terminal not in self._terminals:
            self._terminals[terminal] = hash64(terminal.encode()) & MASK32
        entry = (
            record["event_time_ms"], record["billing_amount_minor"], hash64(record["transaction_id"]) & MASK40,
            self._terminals[terminal], single(record["latitude"]), single(record["longitude"]),
            int.from_bytes(record["country"].encode(), "big"), MODES.index(record["entry_mode"]),
        )  # fmt: skip
        repeat = any(e[2] == entry[2] for e in card.entries)
        behind = card.times[-1] - entry[0] if card.times else 0
        degraded = [
            name
            for name, holds in (
                ("LATE", behind > DAY),
                ("PROFILE_TRUNCATED", card.truncated > entry[0] - HORIZON),
                ("NOT_REMEMBERED", behind >= KEEP and not repeat),
            )
            if holds
        ]
        expected = Expected(vector(card, entry, 10 ** EXPONENTS[record["billing_currency"]]), degraded, repeat)
        if not repeat and "NOT_REMEMBERED" not in degraded:
            card.fold(offset, entry)
        return expected


def vector(card: Card, entry: tuple[Any, ...], scale: int) -> dict[str, float]:
    """Return the features of a transaction and of its card's past, by name."""
    now, amount = entry[0], entry[1]
    newest = bisect.bisect_right(card.times, now)
    past = [e for e in card.entries[bisect.bisect_right(card.times, now - HORIZON) : newest] if e[2] != entry[2]]
    past.reverse()  # newest first: the order in which squares are summed
    hour, weekday = now // HOUR % 24, (now // DAY + 3) % 7
    day = _since(past, now - DAY)
    found = {
        "transaction_amount": amount / scale,
        "transaction_is_weekend": float(weekday >= 5),
        "transaction_is_night": float(hour <= 6),
        "transaction_entry_mode": float(entry[7]),
        "transaction_hour": float(hour),
        "transaction_weekday": float(weekday),
        "card_count_10m": float(len(_since(past, now - 10 * MINUTE))),
        "card_count_1h": float(len(_since(past, now - HOUR))),
        "card_sum_1d": sum(e[1] for e in day) / scale,
        "card_seconds_since_last": (now - past[0][0]) / 1000.0 if past else math.nan,
        "card_distinct_terminals_1d": float(len({e[3] for e in day})),
        "card_distinct_countries_1d": float(len({e[6] for e in day})),
        "card_times_at_terminal_30d": float(sum(e[3] == entry[3] for e in past)),
    }
    for days, window in ((1, day), (7, _since(past, now - 7 * DAY)), (30, past)):
        total = sum(e[1] for e in window)
        found[f"card_count_with_current_{days}d"] = len(window) + 1.0
        found[f"card_mean_with_current_{days}d"] = (float(total) + float(amount)) / (len(window) + 1.0) / scale
    median = statistics.median([float(e[1]) for e in past[:40]]) if past else math.nan
    found["card_amount_to_median_30d"] = amount / median if past and median > 0 else math.nan
    found["card_high_amounts_14d"] = float(sum(e[1] > 3.0 * median for e in _since(past, now - 14 * DAY)))
    return found | _against_the_past(past, float(amount)) | _movement(past, entry)


def _since(newest_first: list[tuple[Any, ...]], edge: int) -> list[tuple[Any, ...]]:
    for i, entry in enumerate(newest_first):
        if entry[0] <= edge:
            return newest_first[:i]
    return newest_first


def _against_the_past(past: list[tuple[Any, ...]], amount: float) -> dict[str, float]:
    names = ("card_amount_to_mean_30d", "card_amount_deviation_30d", "card_amount_to_largest_30d")
    if not past:
        return dict.fromkeys(names, math.nan)
    count = float(len(past))
    squares = 0.0
    for e in past:
        squares += float(e[1]) * float(e[1])
    mean, largest = float(sum(e[1] for e in past)) / count, float(max(e[1] for e in past))
    variance = squares / count - mean * mean
    deviation = math.sqrt(variance) if variance > 1e-6 * mean * mean else 0.0
    values = (
        amount / mean if mean > 0 else math.nan,
        (amount - mean) / deviation if deviation > 0 else math.nan,
        amount / largest if largest > 0 else math.nan,
    )
    return dict(zip(names, values, strict=True))


def _movement(past: list[tuple[Any, ...]], entry: tuple[Any, ...]) -> dict[str, float]:
    last = next((e for e in past if not math.isnan(e[4])), None)
    if last is None or math.isnan(entry[4]):
        return dict.fromkeys(ROUNDED, math.nan)
    a, b, angle = math.radians(last[4]), math.radians(entry[4]), math.radians(entry[5] - last[5])
    h = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(angle / 2) ** 2
    km = 2 * 6371.0088 * math.asin(math.sqrt(min(1.0, h)))
    return dict(zip(ROUNDED, (km, km * 3600.0 / max((entry[0] - last[0]) / 1000.0, 1.0)), strict=True))
