"""Whether a table of the lake holds what its topic holds: each record once, and as it was."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.checker.card_numbers import holds_card_number
from services.checker.evidence import Seen
from services.checker.oracle import schemas_of

WITNESSES_MAX: Final = 8


@dataclass(slots=True)
class TableVerdict:
    """What was compared, and what is wrong."""

    compared: int = 0
    lost: int = 0
    """Records that the table should have and has not."""
    twice: int = 0
    """Rows of one record beyond the first."""
    different: int = 0
    """Records of which a field is another one in the table."""
    surplus: int = 0
    """Rows of records that the topic has not, though it still reaches back that far, or that must not be kept."""
    left_out: int = 0
    """Records that no table can hold."""
    witnesses: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.twice or self.different or self.surplus)

    def note(self, what: str, where: tuple[int, int], why: str = "") -> None:
        """Count something that is wrong."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.witnesses) < WITNESSES_MAX:
            self.witnesses.append(f"{what}: {where[0]}/{where[1]}{why}")

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "compared": self.compared, "lost": self.lost, "twice": self.twice, "different": self.different,
            "surplus": self.surplus, "left_out": self.left_out, "witnesses": self.witnesses,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchivedTopic:
    """What a table is of."""

    topic: str
    topic_id: str | None = None
    """Rows of another id are of a topic that was deleted and made anew, and are not compared; None: all rows are of this one."""
    compacted: bool = False
    """Whether Kafka drops records of a key when a later one comes: rows of what it dropped stay."""
    forgotten: frozenset[str] = frozenset()
    """SHA-256 of the transactions whose rows were removed."""


def compare_table(
    table: ArchivedTopic,
    records: Iterable[Seen],
    rows: Iterable[dict[str, Any]],
    starts: Mapping[int, int],
    ends: Mapping[int, int],
) -> TableVerdict:
    """Compare a topic with its table.

    Args:
        table: whose schemas say what a record is, and what may be missing or too much.
        records: all of the topic that are still there.
        rows: all of the table.
        starts: by partition, where the topic begins: rows of what was there before are looked at for being twice only.
        ends: by partition, up to where records must be in the table by now.
    """
    schemas, verdict, missing = schemas_of(table.topic), TableVerdict(), {}
    for seen in records:
        record = schemas.decode(seen.value)
        if record is None or any(isinstance(text, str) and holds_card_number(text) for text in record.values()):
            verdict.left_out += 1
        else:
            missing[seen.partition, seen.offset] = record, seen.timestamp_ms
    found: Counter[tuple[int, int]] = Counter()
    for row in rows:
        if table.topic_id is not None and row["kafka_topic_id"] != table.topic_id:
            continue
        where = row["kafka_partition"], row["kafka_offset"]
        found[where] += 1
        if found[where] > 1:
            verdict.note("twice", where)
        elif where in missing:
            _compare_row(verdict, where, missing.pop(where), row)
        elif where[1] >= starts.get(where[0], 0) and not table.compacted:
            verdict.note("surplus", where)
    for where, (record, _) in missing.items():
        if where[1] < ends.get(where[0], 0) and not _forgotten(record, table.forgotten):
            verdict.note("lost", where)
    return verdict


def _forgotten(record: dict[str, Any], forgotten: frozenset[str]) -> bool:
    kept = _as_kept(record.get("transaction_id"))
    return kept is not None and hashlib.sha256(str(kept).encode()).hexdigest() in forgotten


def _compare_row(
    verdict: TableVerdict, where: tuple[int, int], expected: tuple[dict[str, Any], int], row: dict[str, Any]
) -> None:
    record, timestamp_ms = expected
    verdict.compared += 1
    wrong = [name for name, value in record.items() if repr(_as_kept(value)) != repr(row.get(name, "no column"))]
    if row["kafka_timestamp_ms"] != timestamp_ms:
        wrong.append("kafka_timestamp_ms")
    if wrong:
        verdict.note("different", where, f" {', '.join(wrong)}")


def _as_kept(value: Any) -> Any:
    """Return a field as a table has it: UUIDs as text."""
    if isinstance(value, bytes) and len(value) == 16:
        return str(uuid.UUID(bytes=value))
    return str(value) if isinstance(value, uuid.UUID) else value
