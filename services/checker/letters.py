"""What dead letters say of other topics than the transactions', and whether what they say of places is true."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.checker.evidence import DEAD_LETTERS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.oracle import home_of, schemas_of

ASTRAY: Final = "WRONG_PARTITION"
"""What a dead letter says, or a decision, of a record that lies in another partition than its key belongs to."""
Letters = dict[tuple[str, int, int], str]
"""By topic, partition and offset of the record that was refused, the reason."""


def letters_of(evidence: Evidence) -> Letters:
    """Return why records of all topics were refused."""
    schemas, found = schemas_of(DEAD_LETTERS), Letters()
    for seen in evidence.outputs[DEAD_LETTERS]:
        letter = schemas.decode(seen.value)
        if letter is not None:
            found[letter["source_topic"], letter["source_partition"], letter["source_offset"]] = letter["reason"]
    return found


def in_their_partitions(
    topic: str, records: Iterable[Seen], applied: dict[int, int | None], letters: Letters, verdict: Verdict
) -> list[Seen]:
    """Return the records that lie where their keys belong; blame what is refused for lying elsewhere and does not, and the other way round.

    Args:
        topic: the topic.
        records: all of it.
        applied: by partition, of which it has all, up to where it is folded.
        letters: what was refused.
        verdict: where blame goes.
    """
    found = []
    for seen in records:
        reason, where = letters.get((topic, seen.partition, seen.offset)), f"{topic} {seen.partition}/{seen.offset}"
        astray = seen.key is not None and home_of(seen.key, len(applied)) != seen.partition
        if reason == ASTRAY and not astray:
            verdict.blame("wrong-decision", f"{where} is refused for its partition, and lies in the right one")
        if astray and reason is None and seen.offset < (applied[seen.partition] or 0):
            verdict.blame("lost-write", f"{where} lies in the wrong partition, and no dead letter says so")
        if not astray:
            found.append(seen)
    return found
