"""What the grid's commands ask: Kafka and Redis, of the partitions whose profiles one service folds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.options import UserError
from services.registry import BY_LOG, BY_NAME, DEFAULT_LOG, LOG_OF, LOGS, SERVICES, group_of, load, service_name
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.grid.redis import RedisGrid
    from services.streams import LogState
    from services.streams.admin import KafkaAdmin
    from services.worker.halting import Halt
    from services.worker.processor import Processor

CONNECTION: Final = (
    "kafka_bootstrap_servers",
    "redis_url",
    *(spec.group_setting for spec in SERVICES if spec.group_setting),
    "grid_timeout_ms",
)
COUNTED_MAX: Final = 1_000
"""How many records that seem to wait are looked at, whether they are records."""
COMMIT_SEEN_S: Final = 0.1
"""By when the offsets of an atomic commit that has ended can be read, with a wide margin: some milliseconds are usual."""
PARTITION = click.option("--partition", default=None, type=click.IntRange(0), help="One partition; all if left out.")


class _Service(click.Choice[str]):
    """A service whose partitions are meant; of one that works several topics off, one of them has to be named."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        spec = BY_NAME.get(str(value).lower())
        if spec is not None and spec.name not in LOG_OF:
            named = " or ".join(f"--service {service_name(log.name)}" for log in spec.logs)
            self.fail(f"the {spec.name} service keeps {len(spec.logs)} topics: say {named}.", param, ctx)
        return super().convert(value, param, ctx)


SERVICE = click.option(
    "--service",
    default=DEFAULT_LOG,
    show_default=True,
    type=_Service(tuple(LOG_OF), case_sensitive=False),
    help=f"Whose partitions. They hold: {'; '.join(f'{spec.name}: {spec.holds}' for spec in SERVICES)}.",
)


@dataclass(frozen=True)
class Stores:
    """Kafka and Redis, and whose profiles are meant."""

    settings: Settings
    service: str
    admin: KafkaAdmin
    grid: RedisGrid

    @property
    def log(self) -> str:
        """By what the grid knows the partitions."""
        return LOG_OF[self.service]

    @property
    def topic(self) -> str:
        """The topic whose fold the profiles are."""
        return LOGS[self.log].topic

    @property
    def group_id(self) -> str:
        """The group that folds it."""
        return group_of(self.settings, self.log)

    @property
    def command(self) -> str:
        """The command that starts who folds it."""
        return BY_LOG[self.log].name

    @cached_property
    def processor(self) -> Processor[Any, Any]:
        """What folds it, made once; to fold takes no model."""
        made: Processor[Any, Any] = load(LOGS[self.log].processor)()
        return made

    def look(self, partition: int | None, *, stable: bool = False) -> dict[int, tuple[LogState, PartitionStatus]]:
        """Return what Kafka and Redis hold of the partitions, beside workers that go on.

        Args:
            partition: one of them; None for all.
            stable: see :meth:`KafkaAdmin.committed`.

        Raises:
            UserError: there is no such partition.
            StreamsError: as :meth:`KafkaAdmin.committed`.
        """
        wanted = self.numbers(partition)
        # The grid first: what it holds is committed, so Kafka, asked later, cannot seem to be behind it.
        held = dict(zip(wanted, self.grid.status(self.log, wanted), strict=True))
        states = self.log_states(wanted, stable=stable)
        if any(halt_seen(states[p], held[p]) for p in wanted):
            time.sleep(COMMIT_SEEN_S)
            states = self.log_states(wanted, stable=stable)
        return {p: (states[p], held[p]) for p in wanted}

    def waiting(self, partition: int, state: LogState, held: PartitionStatus) -> int:
        """Return how many records of a partition are not worked off: not committed, or not in the grid where it holds their profiles."""
        from services.streams.ranges import count_records

        done = state.committed or 0
        if BY_LOG[self.log].keeps_profiles:
            done = min(done, held.applied or 0)
        begin = max(done, state.log_start)
        if not 0 < state.log_end - begin <= COUNTED_MAX:
            return max(0, state.log_end - begin)
        # What seems to wait may be the marks of atomic commits alone.
        return count_records(self.settings.kafka, self.topic, partition, (begin, state.log_end))

    def numbers(self, partition: int | None) -> list[int]:
        """Return the numbers of one partition or of all. Raises UserError when there is no such partition."""
        count = self.admin.partitions().get(self.topic, 0)
        if not count:
            raise UserError(f"there is no topic {self.topic}: create the topics with `proact topics apply`")
        if partition is not None and partition >= count:
            raise UserError(f"{self.topic} has no partition {partition}, it has {count}")
        return list(range(count)) if partition is None else [partition]

    def log_states(self, partitions: Sequence[int], *, stable: bool = False) -> dict[int, LogState]:
        """Return what Kafka knows of partitions; for what ``stable`` means see :meth:`KafkaAdmin.committed`."""
        from services.streams import LogState

        committed = self.admin.committed(self.topic, self.group_id, partitions, stable=stable)
        extents = self.admin.extents(self.topic)  # later, so that what is committed lies within
        topic_id = self.admin.topic_id(self.topic)
        return {p: LogState(committed.get(p), *extents[self.topic, p], topic_id, len(extents)) for p in partitions}


@contextmanager
def open_stores(settings: Settings, service: str) -> Iterator[Stores]:
    """Connect; what the stores refuse becomes a UserError."""
    from services.grid import GridUnavailableError
    from services.grid.redis import RedisGrid
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.worker.folding import FoldError

    try:
        yield Stores(
            settings,
            service,
            KafkaAdmin(settings.kafka),
            RedisGrid(settings.grid, settings.grid_timeout_ms / 1000),
        )
    except (GridUnavailableError, StreamsError, FoldError) as error:
        raise UserError(with_remedy(error)) from None


def halt_seen(state: LogState, held: PartitionStatus) -> Halt | None:
    """Return why workers leave a partition alone, as far as it can be seen from outside."""
    from services.worker.halting import Cause, Halt, halt_of, identity_halt

    if held.halted is not None:
        return Halt(Cause.MARKED, held.halted)
    moved = None if held.identity is None else identity_halt(held.identity, state)
    if moved is not None:
        return moved
    return halt_of(state, held.applied)
