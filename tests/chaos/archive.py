"""Whether the lake's tables hold what a round's topics hold: every record once, and a share of them field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from services.checker.evidence import DECISIONS, INPUTS, LABELS, REASSESSMENTS, Evidence, Seen
from services.checker.lake import ArchivedTopic, compare_table
from services.lake.queries import Lake
from services.lake.table import table_name

EVERY: Final = 50
"""Of so many records one is compared field by field: that takes as long as deciding it again."""


def tables_of(evidence: Evidence) -> dict[str, list[Seen]]:
    """Return the topics that have tables, with their records."""
    return {
        INPUTS: evidence.inputs,
        DECISIONS: evidence.outputs[DECISIONS],
        LABELS: evidence.labels,
        REASSESSMENTS: evidence.outputs[REASSESSMENTS],
    }


def lake_faults(evidence: Evidence, lake_url: str) -> list[str]:
    """Return what is wrong with the tables of a run at rest, nothing where all is well. Raises LakeError."""
    topics, said = tables_of(evidence), []
    lake = Lake(lake_url, list(topics))
    for topic, seen in topics.items():
        name = table_name(topic)
        places = f"SELECT kafka_partition AS p, kafka_offset AS o, count(*) AS n FROM {name} GROUP BY ALL"
        found = Counter({(row["p"], row["o"]): row["n"] for row in lake.query(places).to_pylist()})
        twice = sum(count - 1 for count in found.values())
        absent = [one for one in seen if (one.partition, one.offset) not in found]
        # Of what is absent each must be something that no table can hold; of what is there some are looked at.
        some = [*absent, *(one for one in seen if one.offset % EVERY == 0 and (one.partition, one.offset) in found)]
        ends = {p: 1 + max(one.offset for one in seen if one.partition == p) for p in {one.partition for one in seen}}
        verdict = compare_table(ArchivedTopic(topic), some, _rows(lake, name), dict.fromkeys(ends, 0), ends)
        surplus = len(found.keys() - {(one.partition, one.offset) for one in seen})
        if twice or surplus or not verdict.holds:
            said.append(f"the table of {topic}: {twice} twice, {surplus} too many; {verdict.as_json()}")
    return said


def _rows(lake: Lake, name: str) -> Iterator[dict[str, Any]]:
    table = lake.query(f"SELECT * FROM {name} WHERE kafka_offset % {EVERY} = 0")
    for batch in table.to_batches():
        yield from batch.to_pylist()
