"""What is sent beside the load: poison, bombs, other schemas, odd times, hot cards; all from a seed, with test-range numbers only."""

from __future__ import annotations

import copy
import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Final

import fastavro
import numpy as np

from services.codec.records import decode_record
from services.codec.schemas import MAGIC, frame_header, schemas_by_header, topics
from services.codec.transactions import encode_transactions
from services.core.columns import Text, TransactionColumns
from services.offline.simulator.traffic import Traffic, random_uuids
from tests.benchmarks.bench_system import START_MS, traffic_of

TOPIC: Final = "card-transactions"
FORBIDDEN: Final = (b"4111111111111111", b"5555555555554444")
"""Card numbers of the test ranges; whoever finds one in an output has found a leak."""
Raw = tuple[list[bytes | None], list[bytes | None]]


def load_of(records: int, cards: int, seed: int) -> Traffic:
    """Return transactions of cards of their own."""
    return traffic_of(records, cards, seed).of_others(format(seed, "x"))


def endless_load(block: Traffic, rng: np.random.Generator) -> Iterator[Traffic]:
    """Yield a block again and again, each time later and with other transaction ids: the same cards go on."""
    span_ms = int(block.columns.event_time_ms[-1] - block.columns.event_time_ms[0])
    for i in count():
        times = block.columns.event_time_ms + i * span_ms
        ids = random_uuids(rng, len(block))
        yield replace(block, columns=replace(block.columns, event_time_ms=times, transaction_id=ids))


def _encoded(columns: TransactionColumns) -> Raw:
    return list(columns.card_id.tolist()), list(encode_transactions(columns))


def _some(rng: np.random.Generator, records: int) -> TransactionColumns:
    columns = traffic_of(records, 200, int(rng.integers(0, 2**31))).columns
    return replace(columns, transaction_id=random_uuids(rng, records))


def bad_records(rng: np.random.Generator, records: int) -> Raw:
    """Return one bad record in two, of every kind, between good ones."""
    keys, values = _encoded(_some(rng, records))
    header = topics()[TOPIC].latest.header
    for i in range(0, records, 2):
        good = values[i] or b""
        kinds: list[tuple[bytes | None, bytes | None]] = [
            (keys[i], b""), (keys[i], None), (keys[i], b"x"), (keys[i], good[: len(good) // 2]),
            (keys[i], rng.bytes(300)), (keys[i], MAGIC + b"whoknows" + good[10:]), (keys[i], good + b"\x00"),
            (None, good), (b"card-of-somebody-else", good), (keys[i], good.replace(b"terminal-", b"\xff\xffrminal-")),
            (keys[i], header + rng.bytes(150)), (keys[i], b"pan=" + FORBIDDEN[i // 2 % 2]), (FORBIDDEN[0], b"?" * 40),
            (keys[i], topics()["card-alerts"].latest.header + good[10:]), (keys[i], good + b"x" * 20_000),
            _with_field(good, "event_time_ms", 2**62), _with_field(good, "latitude", float("inf")),
            _with_field(good, "latitude", float("nan")), _with_field(good, "billing_amount_minor", -1),
            _with_field(good, "currency", "EUR\x00"), _with_field(good, "merchant_id", FORBIDDEN[1].decode()),
        ]  # fmt: skip
        keys[i], values[i] = kinds[i // 2 % len(kinds)]
    return keys, values


def raising_records(rng: np.random.Generator, mark: bytes, records: int) -> Raw:
    """Return good records, the middle one of which holds a mark."""
    keys, values = _encoded(_some(rng, records))
    middle = records // 2
    keys[middle], values[middle] = _with_field(values[middle] or b"", "merchant_id", mark.decode())
    return keys, values


def _with_field(good: bytes, name: str, value: Any) -> tuple[bytes | None, bytes]:
    schema, record = decode_record(good)
    record[name] = value
    if name == "latitude":
        record["longitude"] = value
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema.parsed, record)
    return record["card_id"].encode(), schema.header + out.getvalue()


def _varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def bomb_records(rng: np.random.Generator) -> Raw:
    """Return records that ask for more than they are: huge and negative lengths, endless arrays, deep nesting."""
    header = topics()[TOPIC].latest.header
    bombs = [header + bytes(16) + _varint(n) + b"x" * 20 for n in (2**31, 2**40, 2**62, 7_000)]
    bombs += [
        header + bytes(16) + b"\x01" + b"x" * 50,
        header + b"\xff" * 200,
        header + bytes(16) + b"\xff" * 9 + b"\x01",
    ]
    recursive = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    nulls = {"type": "record", "name": "Nulls", "fields": [{"name": "all", "type": {"type": "array", "items": "null"}}]}
    bombs.append(frame_header(recursive) + b"\x02" * 5_000)
    bombs.append(frame_header(nulls) + _varint(2**31))
    bombs.append(header + struct.pack(">d", 1e308) * 20)
    return [b"card-%06d" % rng.integers(0, 1_000) for _ in bombs], list(bombs)


def records_of_other_schemas(rng: np.random.Generator) -> Raw:
    """Return records written by four other versions of the schema, between good ones: none of them is in ``schemas/``."""
    keys, values = _encoded(_some(rng, 40))
    original = topics()[TOPIC].latest.definition
    versions = []
    for change in ("added", "renamed", "removed", "retyped"):
        definition = copy.deepcopy(original)
        fields = definition["fields"]
        if change == "added":
            fields.append({"name": "loyalty", "type": ["null", "string"], "default": None})
        elif change == "renamed":
            fields[4]["name"] = "terminal"
        elif change == "removed":
            del fields[0]  # a field that no version is without
        else:
            fields[6]["type"] = "string"
        assert frame_header(definition) not in schemas_by_header()
        versions.append(definition)
    for i in range(0, len(values), 2):
        definition = versions[i // 2 % 4]
        record = decode_record(values[i] or b"")[1]
        record |= {"terminal": record["terminal_id"], "loyalty": "gold"}
        if definition["fields"][6]["type"] == "string":
            record["merchant_category_code"] = str(record["merchant_category_code"])
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(definition)), record)
        values[i] = frame_header(definition) + out.getvalue()
    return keys, values


def odd_time_records(rng: np.random.Generator, records: int) -> Raw:
    """Return transactions in disorder: shuffled within windows, late by days and weeks, simultaneous, and sent again."""
    columns = _some(rng, records)
    times = columns.event_time_ms + rng.integers(-7_200_000, 7_200_000, records)
    late = rng.random(records)
    times = np.where(late < 0.05, times - rng.integers(0, 3 * 86_400_000, records), times)
    times = np.where(late < 0.01, times - 40 * 86_400_000, times)
    times = np.where(late > 0.9, times // 3_600_000 * 3_600_000, times)
    rows = np.sort(np.concatenate([np.arange(records), rng.integers(0, records, records // 20)]))
    return _encoded(replace(columns, event_time_ms=np.maximum(times, START_MS)).take(rows))


def hot_and_new(rng: np.random.Generator, records: int, *, hot: bool = True) -> Raw:
    """Return transactions of which half belong to one card, and each of the others to a card that nobody knows."""
    columns, tag = _some(rng, records), int(rng.integers(0, 2**31))
    cards = [
        b"hot-%x" % tag if hot and i % 2 else b"new-%x-%06d" % (tag, i if hot else i // 12) for i in range(records)
    ]
    return _encoded(replace(columns, card_id=Text.of(cards)))
