"""What the grid must hold of accounts and customers: the newest record of each key, packed in plain Python from the definitions."""

from __future__ import annotations

import json
import math
import struct
from collections import defaultdict
from typing import Any, Final

from services.checker.evidence import REFERENCE, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.letters import in_their_partitions, letters_of
from services.checker.oracle import Schemas, schemas_of

ACCOUNT, CUSTOMER, NOTICE = struct.Struct("<HHIqqq"), struct.Struct("<HHHHHHIqqdd"), struct.Struct("<qqH")
STATUSES: Final = ("ACTIVE", "FROZEN", "CLOSED")
SEGMENTS: Final = ("STANDARD", "STUDENT", "PREMIUM", "BUSINESS")


def check_reference(evidence: Evidence, verdict: Verdict) -> None:
    """Blame what the grid holds of accounts and customers and what is not the newest record of its key."""
    letters = letters_of(evidence)
    for topic, records in evidence.reference.items():
        home = in_their_partitions(topic, records, evidence.reference_applied[topic], letters, verdict)
        mine = [seen for seen in home if (topic, seen.partition, seen.offset) not in letters]
        _check_topic(topic, mine, evidence, verdict)


def _check_topic(topic: str, records: list[Seen], evidence: Evidence, verdict: Verdict) -> None:
    schemas, wanted = schemas_of(topic), defaultdict[int, dict[bytes, bytes]](dict)
    applied = evidence.reference_applied[topic]
    for seen in records:
        until = applied.get(seen.partition)
        if until is None:
            continue
        where = f"{topic} {seen.partition}/{seen.offset}"
        if seen.offset >= until:
            verdict.wait("stuck", topic, f"{where} is not in the grid, which stands at {until}")
            continue
        packed = _packed(topic, schemas, seen.value)
        if packed is None or seen.key is None:
            verdict.blame("lost-write", f"{where} is no record of its topic, and no dead letter says so")
            continue
        wanted[seen.partition][seen.key] = packed
    for p, until in applied.items():
        if until is not None:
            verdict.compare(f"{topic} {p}: what is known of a key", wanted[p], evidence.reference_profiles[topic][p])


def _packed(topic: str, schemas: Schemas, value: bytes | None) -> bytes | None:
    """Return what the grid holds after a record: nothing after a delete; None where it is not a record."""
    if value is None:
        return b""
    record = json.loads(value) if value[:1] == b"{" else schemas.decode(value)
    if record is None:
        return None
    record = record.get("payload", record)
    if "op" in record:
        record = record["after"] if record["op"] != "d" else None
    if record is None:
        return b""
    record = schemas.defaults | record
    return _account(record) if topic == REFERENCE[0] else _customer(record)


def _code(text: str) -> int:
    return int.from_bytes(text.encode(), "big")


def _account(record: dict[str, Any]) -> bytes:
    return ACCOUNT.pack(
        0x301, STATUSES.index(record["status"]), _code(record["currency"]), record["available_balance_minor"],
        record["credit_limit_minor"], record["opened_ms"],
    )  # fmt: skip


def _customer(record: dict[str, Any]) -> bytes:
    categories, countries, notices = (
        record[name] for name in ("blocked_categories", "blocked_countries", "travel_notices")
    )
    limits = [
        -1 if record[name] is None else record[name] for name in ("limit_per_transaction_minor", "limit_per_day_minor")
    ]
    home = [math.nan if record[name] is None else record[name] for name in ("home_latitude", "home_longitude")]
    head = CUSTOMER.pack(
        0x401, SEGMENTS.index(record["segment"]), _code(record["home_country"]), len(categories), len(countries), len(notices),
        _code(record["currency"]), *limits, *home,
    )  # fmt: skip
    codes = struct.pack(f"<{len(categories) + len(countries)}H", *categories, *map(_code, countries))
    return head + codes + b"".join(NOTICE.pack(n["from_ms"], n["until_ms"], _code(n["country"])) for n in notices)
