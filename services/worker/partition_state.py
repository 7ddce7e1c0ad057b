"""What one worker knows of each of its partitions: one object a partition, changed only by the methods named here.

A partition's state lasts from one take-over to the next, or until the partition is given back. In this order, always::

    applied <= saved <= committed <= published

Before ``start`` nothing is read; from there to ``published`` records are only folded, since their outputs exist; from ``published`` on they are
decided.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from services.core.columns import type_bool
from services.grid import Claim
from services.runtime.logs import fields
from services.streams import Records
from services.worker.halting import Halt

log = logging.getLogger("proact.worker")


class PartitionState:
    """One partition of one worker, on the worker's thread: new, then owned or halted, and released at the end.

    Its owner is :class:`Partitions`, which makes it owned, halted or released. Of an owned partition the publish pipeline calls
    :meth:`publish` and :meth:`commit`, the grid writer :meth:`save` and :meth:`apply`; everybody else only reads. A call that is out of order is
    our own mistake, and fails an assertion: of a halted or released partition nothing changes any more, and no offset goes back.
    """

    __slots__ = (
        "_applied", "_claim", "_committed", "_halt", "_published", "_released", "_saved", "_stale", "_start", "_topic_id", "partition",
    )  # fmt: skip

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self._claim: Claim | None = None
        self._halt: Halt | None = None
        self._applied: int | None = None
        self._saved: int | None = None
        self._start = self._committed = self._published = 0
        self._stale = self._released = False
        self._topic_id = ""

    @property
    def claim(self) -> Claim:
        """By what the grid knows the owner."""
        assert self._claim is not None, f"partition {self.partition} is not owned"
        return self._claim

    @property
    def topic_id(self) -> str:
        """Kafka's id of the topic that it is a partition of."""
        return self._topic_id

    @property
    def start(self) -> int:
        """Where reading began."""
        return self._start

    @property
    def published(self) -> int:
        """Outputs exist for every record before this offset."""
        return self._published

    @property
    def committed(self) -> int:
        """Kafka is known to have committed up to here."""
        return self._committed

    @property
    def saved(self) -> int | None:
        """Up to where profiles were handed to the grid, whether it has answered yet or not; None as for :attr:`applied`."""
        return self._saved

    @property
    def applied(self) -> int | None:
        """The offset up to which the grid holds the fold, by the last write that it has answered; None where it holds nothing."""
        return self._applied

    @property
    def stale(self) -> bool:
        """Whether the grid was not there to take what is committed, or to be asked at the take-over: another take-over puts that right."""
        return self._stale

    @property
    def halt(self) -> Halt | None:
        """Why it is left alone; None where it is not."""
        return self._halt

    def take_over(self, claim: Claim, committed: int, start: int, topic_id: str) -> None:
        """Own it from now on: the grid holds the fold up to the claim's offset, and outputs exist up to the committed one."""
        assert self._claim is None and self._halt is None, f"partition {self.partition} is not new"  # noqa: PT018
        assert claim.applied is None or claim.applied <= committed, f"{claim.applied} is applied, {committed} committed"
        self._claim, self._topic_id = claim, topic_id
        self._applied = self._saved = claim.applied
        self._published = self._committed = committed
        self._start = start

    def leave_alone(self, halt: Halt) -> None:
        """Decide on nothing of it."""
        assert self._claim is None and self._halt is None, f"partition {self.partition} is not new"  # noqa: PT018
        self._halt = halt

    def carried_over(self, committed: int) -> PartitionState:
        """Return a new state, of the same claim or for the same reason left alone, for a take-over that could not ask the grid: a stale one."""
        state = PartitionState(self.partition)
        if self._halt is not None:
            state.leave_alone(self._halt)
        else:
            state.take_over(self.claim, committed, committed, self._topic_id)
            state._applied = state._saved = self._applied
        state._stale = True
        return state

    def publish(self, offset: int) -> None:
        """Note that outputs exist for every record before an offset."""
        self._require_owned()
        assert offset >= self._published, f"published goes back from {self._published} to {offset}"
        self._published = offset

    def commit(self) -> None:
        """Note that Kafka has committed all that was published."""
        self._require_owned()
        self._committed = self._published

    def save(self, target: int) -> None:
        """Note that the fold up to an offset is handed to the grid, which has answered what came before."""
        self._require_owned()
        assert not self._stale, "the grid lacks what lies before"
        assert self._saved == self._applied, "one write at a time"
        assert (self._applied or 0) <= target <= self._committed, (
            f"{target} is to be saved, {self._committed} committed"
        )
        self._saved = target

    def apply(self) -> None:
        """Note that the grid holds what was handed to it."""
        self._require_owned()
        self._applied = self._saved

    def fall_behind(self) -> None:
        """Note that the grid is not there to take what is committed."""
        self._require_owned()
        self._stale = True

    def release(self) -> Claim:
        """Own it no longer; return what the grid knew the owner by."""
        self._require_owned()
        self._released = True
        return self.claim

    def _require_owned(self) -> None:
        assert self._claim is not None and not self._released, f"partition {self.partition} is not owned"  # noqa: PT018


class Partitions:
    """The partitions of one worker, on its thread: changed by its :class:`services.worker.ownership.Ownership` alone, but for staleness.

    :attr:`owned` and :attr:`halted` are views that always show the present state.
    """

    def __init__(self) -> None:
        self._owned: dict[int, PartitionState] = {}
        self._halted: dict[int, PartitionState] = {}
        self.owned: Mapping[int, PartitionState] = MappingProxyType(self._owned)

    @property
    def halted(self) -> dict[int, Halt]:
        """By partition, why it is left alone."""
        return {partition: state.halt for partition, state in self._halted.items() if state.halt is not None}

    @property
    def stale(self) -> bool:
        """Whether any is stale, for which all have to be taken over again."""
        return any(s.stale for s in self._owned.values()) or any(s.stale for s in self._halted.values())

    def undecided(self, records: Records) -> type_bool:
        """(n,) whether each record has no outputs yet; the others are only folded."""
        published = np.zeros(int(records.partition.max()) + 1, np.int64)
        for partition, state in self._owned.items():
            if partition < len(published):
                published[partition] = state.published
        return records.offset >= published[records.partition]

    def add(self, state: PartitionState) -> None:
        """Have a partition that is owned or halted by now."""
        assert state.partition not in self._owned.keys() | self._halted.keys(), f"partition {state.partition} is known"
        (self._owned if state.halt is None else self._halted)[state.partition] = state

    def take_out(self) -> list[PartitionState]:
        """Return all of them, and have none from now on."""
        states = [*self._owned.values(), *self._halted.values()]
        self._owned.clear()
        self._halted.clear()
        return states

    def take_out_owned(self) -> list[PartitionState]:
        """Return those that are owned, and have them no longer; what is halted is still known."""
        states = [*self._owned.values()]
        self._owned.clear()
        return states

    def fall_behind(self, error: Exception | None = None) -> None:
        """Go on without the grid, which is not there to take what is committed: all that is owned is stale. Said once in the log."""
        if not self.stale:
            say_behind(error)
        for state in self._owned.values():
            state.fall_behind()


def say_behind(error: Exception | None = None) -> None:
    """Log that decisions go on without the grid."""
    why = {} if error is None else {"error": str(error)}
    log.warning("goes on without the grid: decisions are made without the cards' profiles", extra=fields(**why))
