"""Exactly once: how an atomic commit is made of a client's calls, and when a producer is not trusted any more.

What was measured about the client and the broker decides how:

- The client speaks the old protocol for ending a commit (KAFKA-17754): a request to end one that was sent twice may arrive
  during the *next* one and end that; offsets that were sent twice may arrive there too. Records are numbered, they may not.
  So a producer whose commit was not clean (an error, or so slow that something may have been sent again) is thrown away, and
  a new one of the same name makes Kafka refuse whatever the old one still has under way.
- What a call said about the outcome is not evidence; the stable committed offset is. So nothing is retried from memory.
- The coordinator goes on ending a commit when it has answered; it refuses what comes meanwhile, and the client asks again after some twenty
  milliseconds. Two producers in turn give each of them the other's commit to be done, so that offsets and records go out side by side.
- Offsets are those of the worker, never the client's position, which is "none" before the first record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, Final, Protocol

from services.streams.base import Output, Publication, StreamsError

CLEAN_WITHIN_S: Final = 0.15
"""A request that took longer may have been sent twice: the client connects again after 0.15 s at the earliest."""


class FencedError(StreamsError):
    """Kafka refuses this producer: a newer one has its name, or its commit was taken for dead."""


class AtomicProducer(Protocol):
    """A producer whose name Kafka knows; all of it raises StreamsError, after which it is only good for the bin.

    To make one is to fence every earlier one of its name, and to abort what that one left open.
    """

    def begin(self) -> None:
        """Begin an atomic commit."""
        ...

    def add_offsets(self, offsets: Mapping[int, int], member: Any) -> None:
        """Put consumed offsets into it, as a member of the group; Kafka refuses them if the group has moved on."""
        ...

    def queue(self, output: Output) -> None:
        """Put records into it."""
        ...

    def flush(self) -> None:
        """Wait until Kafka has acknowledged every record."""
        ...

    def commit(self) -> None:
        """End it."""
        ...

    def troubled(self) -> bool:
        """Whether a connection was lost lately."""
        ...

    def close(self) -> None:
        """Release the client."""
        ...


class AtomicPublisher:
    """Outputs and offsets in one of Kafka's transactions. See :class:`services.streams.Publisher`."""

    def __init__(
        self, name: str, make_producer: Callable[[str], AtomicProducer],
        member: Callable[[], Any], monotonic_s: Callable[[], float],
    ) -> None:  # fmt: skip
        """Publish by two producers in turn, whose names begin with one, as whom ``member`` says that the group takes this worker for."""
        self._make_producer, self._member, self._monotonic_s = make_producer, member, monotonic_s
        self._names = (name, f"{name}-2")
        self._turns = cycle(self._names)
        self._producers: dict[str, AtomicProducer] = {}
        self._waiting: dict[int, int] = {}

    @property
    def confirmed(self) -> bool:
        """See :class:`services.streams.Publisher`."""
        return not self._waiting

    @property
    def producers(self) -> tuple[AtomicProducer, ...]:
        """The producers that there are, in the order of their turns."""
        return tuple(self._producers[name] for name in self._names if name in self._producers)

    def open(self) -> None:
        """See :class:`services.streams.Publisher`: new producers end what earlier ones left open, and fence them."""
        self._waiting = {}
        self._make_missing()

    def _make_missing(self) -> None:
        for name in self._names:
            if name not in self._producers:
                self._producers[name] = self._make_producer(name)

    def publish(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> Publication | None:
        """See :class:`services.streams.Publisher`: offsets that nothing came of wait, since an atomic commit costs the same without records."""
        self._waiting |= offsets
        return self._publication(outputs) if outputs else None

    def confirm(self, offsets: Mapping[int, int]) -> None:  # noqa: ARG002 - those that wait are among them
        """See :class:`services.streams.Publisher`."""
        if self._waiting:
            self._publication([])()

    def _publication(self, outputs: Sequence[Output]) -> Publication:
        member = self._member()  # as of now: whatever the group does meanwhile, Kafka then refuses it
        offsets, self._waiting = self._waiting, {}
        return lambda: self._commit(outputs, offsets, member)

    def _commit(self, outputs: Sequence[Output], offsets: Mapping[int, int], member: Any) -> None:
        # Both, whoever is next: what a producer that is not trusted has under way must be refused before anything else is committed.
        self._make_missing()
        name = next(self._turns)
        producer = self._producers[name]
        try:
            producer.begin()
            for output in outputs:
                producer.queue(output)
            # While the records are on their way.
            clean = self._quick(lambda: producer.add_offsets(offsets, member))
            # Before the end: the client would wait for the records then anyway, and the end could not be timed by itself.
            producer.flush()
            clean = self._quick(producer.commit) and clean and not producer.troubled()
        except Exception:
            # Whatever it is, outputs that cannot be encoded among it: what is open must not be gone on with.
            # Both: who fenced one fenced the other as well, which must not be found out, and counted, once more.
            self.close()
            raise
        if not clean:
            self._drop(name)

    def _quick(self, call: Callable[[], None]) -> bool:
        begin_s = self._monotonic_s()
        call()
        return self._monotonic_s() - begin_s <= CLEAN_WITHIN_S

    def _drop(self, name: str) -> None:
        self._producers.pop(name).close()

    def close(self) -> None:
        """See :class:`services.streams.Publisher`."""
        for name in list(self._producers):
            self._drop(name)
