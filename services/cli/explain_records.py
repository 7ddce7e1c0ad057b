"""Where ``proact explain`` finds a decision, its transaction and the card's past: in the lake, or on the topics."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.cli.options import progress
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.auditor.explanation import DecisionCase
    from services.checker.evidence import Log, Seen
    from services.lake.queries import Lake

RULE_SETS: Final = "rule-sets"


@dataclass(frozen=True, slots=True)
class DecisionRef:
    """Which decision is meant: by its transaction's id, or by where that lies on its topic."""

    transaction_id: bytes | None
    place: tuple[int, int] | None

    def __str__(self) -> str:
        if self.transaction_id is not None:
            return f"the transaction {uuid.UUID(bytes=self.transaction_id)}"
        assert self.place is not None, "one of the two is given"
        return f"what lies at {self.place[0]}/{self.place[1]} of card-transactions"

    def of(self, decisions: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the decision that is meant: of several on one id the first that is no repeat."""
        mine = [one for one in decisions if self.place in (None, (one["source_partition"], one["source_offset"]))]
        return next((one for one in mine if not one["repeat"]), mine[0] if mine else None)


def _known_by(first_offset: int, first_ms: int, event_time_ms: int) -> bool:
    """Whether nothing of a past counts that lay before a log's first record: no record is more than a day ahead of Kafka's time."""
    from services.checker.oracle import DAY, KEEP

    return first_offset == 0 or event_time_ms >= first_ms + DAY + KEEP


# -- the lake ----------------------------------------------------------------------------------------------------------


_DECISION_BY_ID: Final = "SELECT * FROM card_decisions WHERE transaction_id = $id ORDER BY kafka_offset"
_DECISION_BY_PLACE: Final = (
    "SELECT * FROM card_decisions WHERE source_partition = $p AND source_offset = $o ORDER BY kafka_offset"
)
_CARDS_TRANSACTIONS: Final = (
    "SELECT * FROM card_transactions WHERE card_id = $card AND kafka_partition = $p AND kafka_offset <= $o "
    "ORDER BY kafka_timestamp_ms, kafka_offset"
)
"""Of a topic that was made anew the later one comes last."""


def _named(ref: DecisionRef) -> dict[str, Any]:
    if ref.place is not None:
        return {"p": ref.place[0], "o": ref.place[1]}
    assert ref.transaction_id is not None, "one of the two is given"
    return {"id": str(uuid.UUID(bytes=ref.transaction_id))}


def case_of_lake(settings: Settings, ref: DecisionRef) -> DecisionCase | None:
    """Return what the lake has of a decision; None where it lacks the decision or its transaction. Raises StreamsError."""
    from services.auditor.explanation import DecisionCase
    from services.checker.evidence import DECISIONS, INPUTS
    from services.lake.queries import Lake
    from services.lake.table import LakeError, table_name

    lake = Lake(settings.lake_url, (DECISIONS, INPUTS, RULE_SETS))
    if missing := [one for one in (DECISIONS, INPUTS) if table_name(one) not in lake.tables]:
        raise LakeError(f"{settings.lake_url} has no table {table_name(missing[0])}")
    rows = lake.query(_DECISION_BY_ID if ref.place is None else _DECISION_BY_PLACE, _named(ref)).to_pylist()
    decision = ref.of(_record_of(DECISIONS, row) for row in rows)
    if decision is None:
        return None
    where = {"card": decision["card_id"], "p": decision["source_partition"], "o": decision["source_offset"]}
    rows = _of_one_topic(lake.query(_CARDS_TRANSACTIONS, where).to_pylist())
    return DecisionCase.of(
        decision,
        [(_seen_of(row), _record_of(INPUTS, row)) for row in rows],
        past_known=bool(rows) and _lake_reaches_back(lake, rows[-1], decision),
        conditions=_conditions(_rule_sets_of(lake), decision),
    )


def _of_one_topic(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the topic that the last one is of: one that was made anew has the same offsets again."""
    mine = [row for row in rows if row["kafka_topic_id"] == rows[-1]["kafka_topic_id"]]
    return sorted(mine, key=lambda row: row["kafka_offset"])


def _lake_reaches_back(lake: Lake, last: dict[str, Any], decision: dict[str, Any]) -> bool:
    [first] = lake.query(
        "SELECT min(kafka_offset) AS at, min(kafka_timestamp_ms) AS ms FROM card_transactions "
        "WHERE kafka_partition = $p AND kafka_topic_id = $topic",
        {"p": last["kafka_partition"], "topic": last["kafka_topic_id"]},
    ).to_pylist()
    return _known_by(first["at"], first["ms"], decision["event_time_ms"])


def _rule_sets_of(lake: Lake) -> Iterator[dict[str, Any]]:
    if "rule_sets" in lake.tables:
        yield from lake.rows("rule_sets")


def _record_of(topic: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as its topic's newest schema has it: ids as bytes, and defaults where a column is younger than the row."""
    from services.checker.oracle import schemas_of

    defaults = schemas_of(topic).defaults
    record = {
        name: defaults.get(name) if value is None else value for name, value in row.items() if name[:6] != "kafka_"
    }
    return record | {
        name: uuid.UUID(record[name]).bytes for name in ("transaction_id", "decision_id") if name in record
    }


def _seen_of(row: dict[str, Any]) -> Seen:
    from services.checker.evidence import Seen

    key = row["card_id"].encode()
    return Seen(row["kafka_partition"], row["kafka_offset"], row["kafka_timestamp_ms"], key, None)


# -- the topics --------------------------------------------------------------------------------------------------------


def case_of_topics(settings: Settings, ref: DecisionRef) -> DecisionCase | None:
    """Return what the topics still have of a decision; None where they lack it or its transaction. Raises EvidenceError."""
    from services.auditor.explanation import DecisionCase
    from services.checker.evidence import DECISIONS, INPUTS, Log, Where, kafka_answers

    with kafka_answers():
        log = Log(Where(settings.kafka.admin({}), ""), "proact-explain")
        progress(f"reading {DECISIONS}, from its beginning")
        decision = ref.of(_decisions(log, ref))
        if decision is None:
            return None
        progress(f"reading {INPUTS}, from its beginning")
        first, mine = _transactions(log, decision)
        known = first is not None and _known_by(first.offset, first.timestamp_ms, decision["event_time_ms"])
        return DecisionCase.of(
            decision, mine, past_known=known, conditions=_conditions(_rule_sets_on(log, decision), decision)
        )


def _decisions(log: Log, ref: DecisionRef) -> Iterator[dict[str, Any]]:
    from services.checker.evidence import DECISIONS
    from services.checker.oracle import schemas_of

    schemas, wanted = schemas_of(DECISIONS), ref.transaction_id or b""
    for seen in log.read(DECISIONS):
        if wanted in (seen.value or b""):  # an id lies in its record as it is: to decode them all takes minutes
            decision = schemas.decode(seen.value)
            if decision is not None and wanted in (b"", decision["transaction_id"]):
                yield decision


def _transactions(log: Log, decision: dict[str, Any]) -> tuple[Seen | None, Sequence[tuple[Seen, dict[str, Any]]]]:
    """Return the first record of the card's partition, and all of the card's that can be decoded."""
    from services.checker.evidence import INPUTS
    from services.checker.oracle import schemas_of

    schemas, key, first, mine = schemas_of(INPUTS), decision["card_id"].encode(), None, []
    for seen in log.read(INPUTS):
        if seen.partition != decision["source_partition"]:
            continue
        first = first or seen
        if seen.key == key and seen.offset <= decision["source_offset"]:
            record = schemas.decode(seen.value)
            if record is not None:
                mine.append((seen, record))
    return first, mine


def _rule_sets_on(log: Log, decision: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from services.checker.oracle import schemas_of

    if decision["rules"]:
        schemas = schemas_of(RULE_SETS)
        yield from (one for seen in log.read(RULE_SETS) if (one := schemas.decode(seen.value)) is not None)


def _conditions(rule_sets: Iterable[dict[str, Any]], decision: dict[str, Any]) -> dict[str, str]:
    """Return when each rule holds of the version that was live, as far as it is known."""
    if not decision["rules"]:
        return {}
    version = decision["rule_set_version"]
    saved = [one for one in rule_sets if one["kind"] == "SAVED" and one["version"] == version]
    return {rule["rule_id"]: rule["when"] for one in saved for rule in one["rules"] or ()}
