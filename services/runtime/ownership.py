"""Which partitions a worker owns, from where it goes on with each, and which ones it leaves alone.

To take a partition over is to ask Kafka for the stable committed offset C, then to claim it in the grid, which tells the
applied offset S. Records in [S, C) have their outputs already and are only folded; from C on they are decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.grid import Claim, Grid, GridUnavailableError, HaltedError, LogIdentity, RefusedClaimError
from services.runtime.clock import Clock
from services.runtime.damages import Damages
from services.runtime.halting import Cause, Halt, beginning_of, halt_of, history_missing, identity_halt
from services.runtime.logs import fields
from services.runtime.outages import AbandonedError, Outages
from services.runtime.processor import Processor
from services.streams import MISSING_TOPIC, LogState, Publisher, Source, TopicIdentity, TopicMissingError

log = logging.getLogger("proact.worker")


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns."""

    claim: Claim
    applied: int | None
    published: int
    """Outputs exist for every record before this offset; Kafka has it as committed, or will have before the grid holds it."""
    start: int
    """Where reading began."""
    topic_id: str
    """Kafka's id of the topic that it is a partition of."""


class Ownership:
    """Takes partitions over for one worker, on its thread."""

    def __init__(
        self,
        processor: Processor[Any, Any],
        source: Source,
        publisher: Publisher,
        grid: Grid,
        *,
        clock: Clock,
        outages: Outages,
    ) -> None:
        self._topic, self._layout, self._history_ms = processor.topic, processor.layout, processor.history_ms
        self._looks_up, self._clock = processor.looks_up, clock
        self._source, self._publisher, self._grid, self._outages = source, publisher, grid, outages
        self.owned: dict[int, Owned] = {}
        self.halted: dict[int, Halt] = {}
        self.seed_of: Callable[[int], bytes | None] = processor.seed
        self.looked_up: dict[str, int] = {}
        """How many partitions each topic has whose profiles are looked up."""
        self._resumed: dict[int, int] = {}
        self.topic: TopicIdentity | None = None
        """What the topic was at the last take-over; None where that is not known."""
        self._given: Sequence[int] = ()
        """What the group gave last; it takes all of a topic back that is gone."""
        self.damages = Damages()
        self.needs_grid = True
        """Whether a take-over waits for the grid; else it goes on with what was claimed before, if that can be."""

    def take_over(self) -> bool:
        """Claim every assigned partition, and start reading from where the grid is.

        Returns:
            Whether the grid was there. If it was not, and need not be, the claims of before are gone on with from the committed
            offsets, and the grid does not hold what lies before them.

        Raises:
            AbandonedError: the partitions moved, or the worker is told to stop.
        """
        assignment = self._source.assignment
        self._outages.generation = assignment.generation
        before, before_halted, before_topic = self.owned, self.halted, self.topic
        self._release([o.claim for p, o in before.items() if p not in assignment.partitions])
        self.owned, self.halted = {}, {}
        if assignment.partitions or assignment.member:
            self._given = assignment.partitions
        if not assignment.partitions:
            self.topic = self._source.topic_seen
            self._miss(self._given if self.topic == MISSING_TOPIC else ())
            return True
        wait_out, partitions = self._outages.wait_out, assignment.partitions
        for partition, reason in self.damages.lasting().items():
            self.halt(partition, reason)
        wait_out("kafka", self._publisher.open)  # first: what is still open hides what is committed
        states = wait_out("kafka", lambda: self._states(partitions))
        if not states:
            self._release([o.claim for p, o in before.items() if p in partitions])
            self._miss(partitions)
            self._begin({})
            return True
        self.looked_up = wait_out(
            "kafka", lambda: {topic: self._source.partition_count(topic) for topic in self._looks_up}
        )
        goes_on = self.topic == before_topic and _goes_on(states, before, before_halted)
        there = self._count_resumed(partitions, patient=self.needs_grid or not goes_on)
        if there:
            for partition in partitions:
                self._claim(partition, states[partition])
        else:
            self.halted = before_halted
            for partition, owned in before.items():
                owned.start = owned.published = _next_offset(states[partition])
            self.owned = before
        self._begin({p: owned.start for p, owned in self.owned.items()})
        return there

    def _states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """Ask what the log knows of partitions, none where there is no topic. Raises StreamsError."""
        try:
            states = self._source.log_states(partitions)
        except TopicMissingError:
            self.topic = MISSING_TOPIC
            return {}
        first = states[partitions[0]]
        self.topic = TopicIdentity(first.topic_id, first.partitions)
        return states

    def _begin(self, offsets: Mapping[int, int]) -> None:
        """Start reading, unless the group took the partitions back within a call that asked for something else. Raises AbandonedError."""
        if self._source.assignment.generation != self._outages.generation:
            raise AbandonedError("the partitions were assigned anew")
        self._source.start(offsets)

    def _miss(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._leave_alone(partition, Halt(Cause.TOPIC_MISSING, f"there is no topic {self._topic}"))

    def check_topic(self) -> None:
        """Raise AbandonedError if the topic is not what it was at the last take-over, as far as is known without asking."""
        seen = self._source.topic_seen
        if self.topic is None and seen != MISSING_TOPIC:
            self.topic = seen  # of a spare, which had nothing to ask for
        if seen is not None and seen != self.topic:
            raise AbandonedError(f"the topic is not what it was: {seen}, {self.topic} before")

    def _count_resumed(self, partitions: Sequence[int], *, patient: bool) -> bool:
        """Ask the grid how often partitions were resumed; False where it is away, and nobody waits for it. Raises AbandonedError."""

        def ask() -> list[int]:
            return self._grid.resumed(self._topic, partitions)

        try:
            counts = self._outages.wait_out("redis", ask) if patient else ask()
        except GridUnavailableError:
            return False
        self._resumed = dict(zip(partitions, counts, strict=True))
        return True

    def _claim(self, partition: int, state: LogState) -> None:
        if partition >= state.partitions:
            found = f"the topic has {state.partitions} partitions, this is number {partition}"
            self._leave_alone(partition, Halt(Cause.PARTITIONS_CHANGED, found))
            return
        identity = LogIdentity(state.topic_id, state.partitions, self._layout)
        try:
            claim = self._outages.wait_out("redis", lambda: self._grid.claim(self._topic, partition, identity))
        except HaltedError as error:
            self._leave_alone(partition, Halt(Cause.MARKED, str(error)))
            return
        except RefusedClaimError as error:
            refused = identity_halt(error.found, state)
            assert refused is not None, error  # noqa: PT017 - no test: the grid refused for one of the two
            self._leave_alone(partition, refused)
            return
        halt = halt_of(state, claim.applied)
        if halt is None and self._history_ms and claim.applied is None:
            halt = self._history(partition, state)
            if halt is not None and claim.accepted >= state.log_start:
                claim, halt = self._begin_short(claim, state), None
        if halt is not None:
            self._release([claim])
            self._leave_alone(partition, halt)
            return
        committed = _next_offset(state)
        start = state.log_start if claim.applied is None else claim.applied
        self.owned[partition] = Owned(claim, claim.applied, committed, start, state.topic_id)
        where: dict[str, Any] = {"start": start, "committed": committed, "log_end": state.log_end}
        log.info("took partition over", extra=fields(partition=partition, epoch=claim.epoch, died=claim.died, **where))

    def _history(self, partition: int, state: LogState) -> Halt | None:
        now_ms = self._clock.now_ms()
        return self._outages.wait_out(
            "kafka", lambda: history_missing(self._source, partition, state, self._history_ms, now_ms)
        )

    def _begin_short(self, claim: Claim, state: LogState) -> Claim:
        """Begin with a log that does not reach back far enough, which was accepted: every profile will say so for as long as that counts."""
        now_ms, wait_out = self._clock.now_ms(), self._outages.wait_out
        begins_ms = wait_out("kafka", lambda: beginning_of(self._source, claim.partition, state, now_ms))
        wait_out("redis", lambda: self._grid.note_beginning(self._topic, claim, begins_ms))
        log.warning("profiles begin with a short log", extra=fields(partition=claim.partition, begins_ms=begins_ms))
        return replace(claim, begins_ms=begins_ms)

    def _leave_alone(self, partition: int, halt: Halt) -> None:
        self.halted[partition] = halt
        log.error(
            "partition halted: nothing of it is decided until its state is put right",
            extra=fields(
                partition=partition,
                cause=halt.cause.name,
                reason=halt.detail,
                remedy=halt.remedy(self._topic, partition),
            ),
        )

    def halt(self, partition: int, reason: str) -> None:
        """Mark a partition as halted, for every worker; it is left alone from the next take-over on."""
        self._outages.wait_out("redis", lambda: self._grid.halt(self._topic, partition, reason))

    def folded_again(self) -> dict[int, tuple[int, int]]:
        """Return, by partition, from which offset to which records are folded whose outputs exist already."""
        return {p: (owned.start, owned.published) for p, owned in self.owned.items() if owned.start < owned.published}

    def resumed(self) -> bool:
        """Whether somebody resumed a halted partition since it was left alone."""
        halted = list(self.halted)
        try:
            counts = self._grid.resumed(self._topic, halted) if halted else []
        except GridUnavailableError:
            return False
        return any(count != self._resumed.get(p, 0) for p, count in zip(halted, counts, strict=True))

    def seed(self, partition: int) -> bytes | None:
        """Return what stands for the profile of a card that is not there: None, but where the log was short when the fold began."""
        begins_ms = self.owned[partition].claim.begins_ms
        return None if begins_ms is None else self.seed_of(begins_ms)

    def release_all(self) -> None:
        """Give everything back in good order: at a stop, and when the group asks for it."""
        self._release([owned.claim for owned in self.owned.values()])
        self.owned = {}

    def _release(self, claims: list[Claim]) -> None:
        """Tell successors that nobody died. It is a courtesy: without it they are only more careful than they need be."""
        if claims:
            try:
                self._grid.release(self._topic, claims)
            except GridUnavailableError:
                log.warning("could not release partitions", extra=fields(partitions=[c.partition for c in claims]))


def _next_offset(state: LogState) -> int:
    """Return the offset of the first record without outputs."""
    return state.log_start if state.committed is None else state.committed


def _goes_on(states: Mapping[int, LogState], owned: Mapping[int, Owned], halted: Mapping[int, Halt]) -> bool:
    """Whether claims of before can be gone on with: they are of the very partitions, and nothing is wrong with these."""
    return states.keys() == owned.keys() | halted.keys() and all(
        states[p].topic_id == o.topic_id and halt_of(states[p], o.applied) is None for p, o in owned.items()
    )
