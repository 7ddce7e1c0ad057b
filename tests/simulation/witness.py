"""A processor whose profiles are witnesses: the list of every offset that was folded into them, in order."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.core.immutable import immutable
from services.core.profiles import DAY_MS, KEEP_MS
from services.streams import Output, Records
from services.worker.processor import LateOutputs, Outcome, Prepared

TOPIC, ANSWERS, REFUSED = "inputs", "answers", "refused"
BAD, POISON = b"bad", b"poison"
RAISES = (b"raises in prepare", b"raises in decide", b"raises in encode")
"""Records that a processor's three parts raise an exception on."""


class CrashError(BaseException):
    """The process dies here: nothing catches it but the world."""


@immutable
class WitnessPrepared(Prepared):
    """A batch and the pair of each record; -1 for refused ones."""

    slots: Sequence[int]


def offsets_of(profile: bytes | None) -> list[int]:
    """Return the offsets that a profile holds."""
    return [] if profile is None else list(struct.unpack(f"<{len(profile) // 8}q", profile))


class WitnessProcessor:
    """See :class:`services.worker.processor.Processor`. An answer names its record and what was folded before it."""

    topic, log, layout, history_ms = TOPIC, TOPIC, 1, KEEP_MS + DAY_MS
    looks_up: Sequence[str] = ()
    read_by_others = announces = False

    def prepare(self, records: Records, excluded: Any) -> WitnessPrepared:
        pairs: dict[tuple[int, bytes], int] = {}
        slots = []
        for i, (partition, key, value) in enumerate(
            zip(records.partition.tolist(), records.keys, records.values, strict=True)
        ):
            if value == POISON and not excluded[i]:
                raise CrashError
            if value == RAISES[0] and not excluded[i]:
                raise ValueError(value)
            bad = value == BAD or excluded[i]
            slots.append(-1 if bad else pairs.setdefault((partition, key or b""), len(pairs)))
        return WitnessPrepared(records, [p for p, _ in pairs], [c for _, c in pairs], {}, slots)

    def decide(
        self,
        prepared: WitnessPrepared,
        profiles: Sequence[bytes | None],
        found: Any,  # noqa: ARG002
        emit: Any,
        now_ms: int,  # noqa: ARG002
    ) -> Outcome:
        records = prepared.records
        folded = [offsets_of(profile) for profile in profiles]
        out: dict[str, list[tuple[bytes | None, bytes]]] = defaultdict(list)
        refused = []
        for i, slot in enumerate(prepared.slots):
            partition, offset = int(records.partition[i]), int(records.offset[i])
            if slot < 0:
                refused += [partition] if emit[i] else []
                answer = (REFUSED, repr((partition, offset)))
            else:
                assert records.values[i] != RAISES[1]
                answer = (ANSWERS, repr((partition, offset, tuple(folded[slot]))))
                folded[slot].append(offset)
            if emit[i]:
                out[answer[0]].append((records.keys[i], answer[1].encode()))

        def encode() -> list[Output]:
            if any(value == RAISES[2] for value, slot in zip(records.values, prepared.slots, strict=True) if slot >= 0):
                raise LookupError
            return [Output(topic, [k for k, _ in rows], [v for _, v in rows]) for topic, rows in out.items()]

        return Outcome(
            outputs=LateOutputs(bool(out), encode, []),
            profiles=[struct.pack(f"<{len(offsets)}q", *offsets) for offsets in folded],
            decided=len(out[ANSWERS]),
            folded_only=int((~emit).sum()),
            refused=np.array(refused, np.int64),
            notices=[],
            folded_until_ms={},
        )

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - it remembers all
        return None

    def measure(self, metrics: Any, prepared: Any, outcome: Any, committed_ms: int) -> None:
        """Nothing is measured here."""
