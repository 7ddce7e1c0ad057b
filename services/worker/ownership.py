"""Which partitions a worker owns, from where it goes on with each, and which ones it leaves alone.

To take a partition over is to ask Kafka for the stable committed offset C, then to claim it in the grid, which tells the
applied offset S. Records in [S, C) have their outputs already and are only folded; from C on they are decided.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.grid import Claim, GridUnavailableError, HaltedError, LogIdentity, RefusedClaimError
from services.runtime.logs import fields
from services.streams import MISSING_TOPIC, DamagedRecordError, LogState, TopicIdentity, TopicMissingError
from services.worker.damaged_records import DamagedRecords
from services.worker.halting import Cause, Halt, beginning_of, halt_of, history_missing, identity_halt
from services.worker.outages import AbandonedError, Outages
from services.worker.partition_state import Partitions, PartitionState, say_behind
from services.worker.ports import Ports
from services.worker.processor import Processor

log = logging.getLogger("proact.worker")


class Ownership:
    """Takes partitions over for one worker, on its thread."""

    def __init__(self, processor: Processor[Any, Any], ports: Ports, partitions: Partitions, outages: Outages) -> None:
        self._topic, self._log = processor.topic, processor.log
        self._layout, self._history_ms = processor.layout, processor.history_ms
        self._source, self._publisher, self._grid, self._clock = ports.source, ports.publisher, ports.grid, ports.clock
        self._partitions, self._outages = partitions, outages
        self._resumed: dict[int, int] = {}
        self._identity: TopicIdentity | None = None
        """What the topic was at the last take-over; None where that is not known."""
        self._given: Sequence[int] = ()
        """What the group gave last; it takes all of a topic back that is gone."""
        self._damaged_records = DamagedRecords()

    @property
    def topic_missing(self) -> bool:
        """Whether there was no topic at the last take-over."""
        return self._identity == MISSING_TOPIC

    @property
    def owned(self) -> Mapping[int, PartitionState]:
        """The partitions that are owned."""
        return self._partitions.owned

    @property
    def halted(self) -> dict[int, Halt]:
        """By partition, why it is left alone."""
        return self._partitions.halted

    def note_damage(self, error: DamagedRecordError) -> None:
        """Note a record that cannot be read: after some times its partition is halted at the next take-over."""
        self._damaged_records.note(error)

    def note_read(self, next_offsets: Mapping[int, int]) -> None:
        """Note up to where records were read well: what could not be read before that was damaged on the way."""
        self._damaged_records.survived(next_offsets)

    def take_over(self) -> bool:
        """Claim every assigned partition, and start reading from where the grid is.

        Returns:
            Whether the grid was there. If it was not, and need not be, the claims of before are gone on with from the committed
            offsets, and the grid does not hold what lies before them.

        Raises:
            AbandonedError: the partitions moved, or the worker is asked to stop.
        """
        assignment = self._source.assignment
        self._outages.work_under(assignment)
        before, before_topic = self._partitions.take_out(), self._identity
        self._release([state for state in before if state.partition not in assignment.partitions])
        if assignment.partitions or assignment.member:
            self._given = assignment.partitions
        if not assignment.partitions:
            self._identity = self._source.topic_seen
            self._miss(self._given if self.topic_missing else ())
            return True
        wait_out, partitions = self._outages.wait_out, assignment.partitions
        for partition, reason in self._damaged_records.lasting().items():
            self.halt(partition, reason)
        wait_out("kafka", self._publisher.open)  # first: what is still open hides what is committed
        states = wait_out("kafka", lambda: self._states(partitions))
        if not states:
            self._release([state for state in before if state.partition in partitions])
            self._miss(partitions)
            self._begin({})
            return True
        goes_on = self._identity == before_topic and _goes_on(states, before)
        there = self._count_resumed(partitions, patient=self._outages.needs_grid or not goes_on)
        if there:
            for partition in partitions:
                self._claim(partition, states[partition])
        else:
            say_behind()
            for state in before:
                self._partitions.add(state.carried_over(_next_offset(states[state.partition])))
        self._begin({p: state.start for p, state in self.owned.items()})
        return there

    def _states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """Ask what the log knows of partitions, none where there is no topic. Raises StreamsError."""
        try:
            states = self._source.log_states(partitions)
        except TopicMissingError:
            self._identity = MISSING_TOPIC
            return {}
        first = states[partitions[0]]
        self._identity = TopicIdentity(first.topic_id, first.partitions)
        return states

    def _begin(self, offsets: Mapping[int, int]) -> None:
        """Start reading, unless the group took the partitions back within a call that asked for something else. Raises AbandonedError."""
        if self._outages.assigned_anew:
            raise AbandonedError("the partitions were assigned anew")
        self._source.start(offsets)

    def _miss(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._leave_alone(partition, Halt(Cause.TOPIC_MISSING, f"there is no topic {self._topic}"))

    def check_topic(self) -> None:
        """Raise AbandonedError if the topic is not what it was at the last take-over, as far as is known without asking."""
        seen = self._source.topic_seen
        if self._identity is None and seen != MISSING_TOPIC:
            self._identity = seen  # of a spare, which had nothing to ask for
        if seen is not None and seen != self._identity:
            raise AbandonedError(f"the topic is not what it was: {seen}, {self._identity} before")

    def _count_resumed(self, partitions: Sequence[int], *, patient: bool) -> bool:
        """Ask the grid how often partitions were resumed; False where it is away, and nobody waits for it. Raises AbandonedError."""

        def ask() -> list[int]:
            return self._grid.resumed(self._log, partitions)

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
            claim = self._outages.wait_out("redis", lambda: self._grid.claim(self._log, partition, identity))
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
            self._release_claims([claim])
            self._leave_alone(partition, halt)
            return
        committed = _next_offset(state)
        start = state.log_start if claim.applied is None else claim.applied
        owned = PartitionState(partition)
        owned.take_over(claim, committed, start, state.topic_id)
        self._partitions.add(owned)
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
        wait_out("redis", lambda: self._grid.note_beginning(self._log, claim, begins_ms))
        log.warning("profiles begin with a short log", extra=fields(partition=claim.partition, begins_ms=begins_ms))
        return replace(claim, begins_ms=begins_ms)

    def _leave_alone(self, partition: int, halt: Halt) -> None:
        state = PartitionState(partition)
        state.leave_alone(halt)
        self._partitions.add(state)
        log.error(
            "partition halted: nothing of it is decided until its state is put right",
            extra=fields(
                partition=partition,
                cause=halt.cause.name,
                reason=halt.detail,
                remedy=halt.remedy(self._log, partition),
            ),
        )

    def halt(self, partition: int, reason: str) -> None:
        """Mark a partition as halted, for every worker; it is left alone from the next take-over on."""
        self._outages.wait_out("redis", lambda: self._grid.halt(self._log, partition, reason))

    def folded_again(self) -> dict[int, tuple[int, int]]:
        """Return, by partition, from which offset to which records are folded whose outputs exist already."""
        return {p: (owned.start, owned.published) for p, owned in self.owned.items() if owned.start < owned.published}

    def resumed(self) -> bool:
        """Whether somebody resumed a halted partition since it was left alone."""
        halted = list(self.halted)
        try:
            counts = self._grid.resumed(self._log, halted) if halted else []
        except GridUnavailableError:
            return False
        return any(count != self._resumed.get(p, 0) for p, count in zip(halted, counts, strict=True))

    def release_all(self) -> None:
        """Give everything back in good order: at a stop, and when the group asks for it."""
        self._release(self._partitions.take_out_owned())

    def leave_all(self) -> None:
        """Do the same, and know of no halts any more: others have the partitions."""
        self._release(self._partitions.take_out())

    def _release(self, states: Sequence[PartitionState]) -> None:
        self._release_claims([state.release() for state in states if state.halt is None])

    def _release_claims(self, claims: list[Claim]) -> None:
        """Tell successors that nobody died. It is a courtesy: without it they are only more careful than they need be."""
        if claims:
            try:
                self._grid.release(self._log, claims)
            except GridUnavailableError:
                log.warning("could not release partitions", extra=fields(partitions=[c.partition for c in claims]))


def _next_offset(state: LogState) -> int:
    """Return the offset of the first record without outputs."""
    return state.log_start if state.committed is None else state.committed


def _goes_on(logs: Mapping[int, LogState], before: Sequence[PartitionState]) -> bool:
    """Whether claims of before can be gone on with: they are of the very partitions, and nothing is wrong with these."""
    return logs.keys() == {state.partition for state in before} and all(
        logs[state.partition].topic_id == state.topic_id and halt_of(logs[state.partition], state.applied) is None
        for state in before
        if state.halt is None
    )
