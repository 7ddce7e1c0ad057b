"""The contract between the worker loop, which talks, and a service's processor, which decides.

For every batch the worker calls :meth:`Processor.prepare`, reads in one round trip the profiles that it names, its own and
those of other services, and calls :meth:`Processor.decide`. Neither does IO, keeps anything from one batch for the next, or fails for what a record holds; where it does fail
nevertheless, the record is found and left out (:mod:`.isolating`).
Called again with the same records and profiles, they give the same outcome but for the time stamps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar, overload

from services.core.columns import Text, type_bool, type_i64
from services.core.immutable import immutable
from services.core.profiles import CorruptProfileError
from services.grid import GridUnavailableError
from services.runtime.metrics import MetricsRegistry
from services.streams import AtPlaces, Output, Records, StreamsError

T = TypeVar("T")


@immutable
class Places:
    """Places of one topic's log that records of a batch point to."""

    partition: type_i64
    offset: type_i64
    since_ms: type_i64
    """(n,) the Kafka timestamp of the record that points there."""


@immutable
class Prepared:
    """A decoded batch and the profiles that it needs: pair i is (``partitions[i]``, ``cards[i]``)."""

    records: Records
    partitions: Sequence[int]
    cards: Sequence[bytes]
    lookups: Mapping[str, Text]
    """The distinct keys whose profiles are to be read of other services' topics."""

    @property
    def lookup_partitions(self) -> Mapping[str, type_i64]:
        """By topic, (k,) the partition of each of its keys, where it is not the one that the key belongs to that counts."""
        return {}

    @property
    def places(self) -> Mapping[str, Places]:
        """By topic, places whose records are to be read."""
        return {}

    @property
    def stretches(self) -> list[tuple[int, slice]]:
        """Where pairs of one partition lie side by side: there are few such stretches, since records come partition by partition."""
        found, start = [], 0
        for partition, run in groupby(self.partitions):
            stop = start + len(list(run))
            found.append((partition, slice(start, stop)))
            start = stop
        return found


@immutable
class LookedUp:
    """What was found of one topic's keys, in their order: as of now, written by somebody else."""

    profiles: Sequence[bytes | None]
    folded_until_ms: type_i64
    """(k,) the newest event time in the fold of each key's partition; ``NEVER_MS`` where nobody has folded anything."""
    applied: type_i64
    """(k,) up to which offset that partition's log is folded; ``NOT_APPLIED`` where it is not."""
    partitions: int = 0
    """How many partitions the topic has; 0 where nobody asked."""
    places: AtPlaces | None = None
    """What lies at the places that the batch points to: what may still have come was waited for."""


NOT_APPLIED: Final = -1


class NotYetError(Exception):
    """What a batch needs of others is not there yet: the worker stays where it is, and comes back with it in a moment."""


class ProcessingError(Exception):
    """A processor raised what its contract does not know, which is its cause: a mistake of ours, which one record may bring about.

    Its message names the kind of exception alone: what that one says of itself may hold what the record holds.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.__cause__ = cause


NOT_OF_A_RECORD: Final = (
    ProcessingError,
    CorruptProfileError,
    NotYetError,
    StreamsError,
    GridUnavailableError,
    MemoryError,
)
"""What says nothing new of the records at hand: it was said already, stored profiles are damaged, others are waited for, a store is away,
the machine is full."""


def guarded(work: Callable[[], T]) -> T:
    """Return what a processor's work returns; it is pure, so that whatever it raises, nothing has happened.

    Raises:
        ProcessingError: it raised what nobody expects of it, be it an assertion.
    """
    try:
        return work()
    except NOT_OF_A_RECORD:
        raise
    except Exception as error:  # whatever it is, a record must not stop its partition for good
        raise ProcessingError(error) from error


class LateOutputs(Sequence[Output]):
    """Outputs that are encoded when they are first looked at: by whoever publishes them, beside the worker's thread where that happens there."""

    def __init__(self, some: bool, encode: Callable[[], Sequence[Output]], others: Sequence[Output]) -> None:
        """Put off what ``encode`` does, which makes outputs or ``some`` is False; ``others`` come behind them."""
        self._some, self._encode, self._others = some or bool(others), encode, others
        self._encoded: Sequence[Output] | None = None

    def __bool__(self) -> bool:
        """Return whether there are any, which is known before they are encoded."""
        return self._some

    def __len__(self) -> int:
        """Return how many there are. Raises ProcessingError, as every look at them does: they cannot be encoded."""
        return len(self._all)

    @overload
    def __getitem__(self, at: int) -> Output: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Output]: ...
    def __getitem__(self, at: int | slice) -> Output | Sequence[Output]:
        return self._all[at]

    @property
    def _all(self) -> Sequence[Output]:
        if self._encoded is None:
            self._encoded = [*guarded(self._encode), *self._others]
        return self._encoded


P = TypeVar("P", bound=Prepared)
"""What a processor carries from preparing to deciding."""
R = TypeVar("R", bound="Outcome")
"""What it decided."""


@immutable
class Outcome:
    """What a batch comes to: outputs to emit, and the new profile of every pair of :class:`Prepared`, in its order."""

    outputs: Sequence[Output]
    """May be encoded when they are looked at only: on one thread, once the batch is decided."""
    profiles: Sequence[bytes | None]
    """None where the pair's profile did not change."""
    decided: int
    folded_only: int
    refused: type_i64
    """(r,) the partition of each record that became a dead letter."""
    notices: Sequence[dict[str, Any]]
    """What the log may tell of each refused record: facts and tokens, never payloads."""
    folded_until_ms: Mapping[int, int]
    """By partition, the newest event time that was folded: for services whose profiles others look up."""


@immutable
class RefusingOutcome(Outcome):
    """The outcome of a service that refuses records."""

    rejected: type_i64
    """(r,) the Reject of each record that became a dead letter."""


class Processor(Protocol[P, R]):
    """The deciding part of a service."""

    topic: str
    log: str
    """By what the grid knows the topic's partitions: its name, but where another service works it off, too."""
    layout: int
    """The version of the profiles that it writes."""
    history_ms: int
    """How far back a log must reach to fold lost profiles from it; 0 where its beginning will do, whenever that was."""
    looks_up: Sequence[str]
    """The topics of other services whose profiles it reads."""
    read_by_others: bool
    """Whether other services decide by its profiles, so that they are saved soon."""
    announces: bool
    """Whether others keep copies of its profiles, so that every change is announced to them."""

    def prepare(self, records: Records, excluded: type_i64) -> P:
        """Decode and validate a batch; say which profiles it needs.

        Args:
            records: the batch, of n records.
            excluded: (n,) the Reject of records that must not be decoded: whoever does dies of it, or raises; NONE for the others.
        """
        ...

    def decide(
        self,
        prepared: P,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],
        emit: type_bool,
        now_ms: int,
    ) -> R:
        """Decide on a prepared batch.

        Args:
            prepared: what :meth:`prepare` returned.
            profiles: the stored profile of each of its pairs.
            found: what was looked up, by topic; a topic is missing where it could not be read in time, or nothing is emitted.
            emit: (n,) False for records that are only folded, because their outputs exist already.
            now_ms: the stamp of every output of this batch.

        Raises:
            CorruptProfileError: profiles are not what this layout and log make of them; its rows are those of the pairs.
            NotYetError: it does not decide without something that is not there yet.
        """
        ...

    def seed(self, begins_ms: int) -> bytes | None:
        """Return the profile of whatever has none, where nothing is known of before a time; None if that makes no difference."""
        ...

    def measure(self, metrics: MetricsRegistry, prepared: P, outcome: R, committed_ms: int) -> None:
        """Count a batch once it is done: outputs acknowledged, and offsets committed, at ``committed_ms``."""
        ...
