"""Every halt ends by its own remedies: what is halted says a command, that command is run, and so on until the partition runs again.

On a real Kafka and a real Redis. A remedy that leads back to where it came from, or names nothing, fails.
"""

from __future__ import annotations

import io
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click
import pytest
import redis

from services.archiver.publisher import TABLE_LOST
from services.cli.main import proact
from services.codec.records import decode_record
from services.codec.transactions import TOPIC
from services.grid.keys import meta_key, profiles_key
from services.grid.redis import RedisGrid
from services.registry import sandbox_of, service_name
from services.runtime.clock import SystemClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.streams.admin import KafkaAdmin
from services.streams.sink import KafkaSink
from services.worker.halting import GAP_ACCEPTED, REBUILDING, REBUILDING_SHORT, Cause, Halt
from services.worker.loop import Worker
from services.worker.wiring import Membership, build_ports, build_worker
from tests.integration.system import produce, read_all, settings_for, traffic_of
from tests.test_tidy import SOURCES, name_of
from tests.worker.test_keys import PROCESSORS

PARTITIONS, RECORDS, STEPS_MAX = 2, 400, 4
COMMAND = re.compile(r"proact (grid \w+(?: --service [a-z]+)?(?: --partition \d+)?(?: --accept-[a-z]+)*)")


def commands_of(text: str) -> list[str]:
    """Return the commands that a text names."""
    return [found.strip() for found in COMMAND.findall(text)]


@dataclass
class System:
    """One Kafka and Redis, and the worker of one service at a time."""

    stack: Any
    settings: Settings = field(init=False)
    _ends: dict[int, int] = field(default_factory=dict)
    service: str = "scorer"
    topic: str = TOPIC
    broken: bool = False
    """Whether the program raises an exception on every record."""

    def begin(self, topic: str) -> None:
        """Begin anew: an empty topic, an empty Redis, a group that nobody knows."""
        self.topic, self.service = topic, service_name(topic)
        own = "group_id" if self.service == "scorer" else f"{self.service}_group_id"
        self.settings = settings_for(self.stack, poll_timeout_ms=20, **{own: f"group-{uuid.uuid4().hex[:8]}"})
        redis.Redis.from_url(self.stack.redis_url).flushall()
        self.recreate()

    @property
    def group_id(self) -> str:
        return str(getattr(self.settings, "group_id" if self.service == "scorer" else f"{self.service}_group_id"))

    @property
    def admin(self) -> Any:
        return KafkaAdmin(self.stack.kafka_connection)

    @cached_property
    def _counting(self) -> KafkaAdmin:
        """One for all: a client that is made anew takes a third of a second to be let in."""
        return KafkaAdmin(self.stack.kafka_connection)

    @property
    def client(self) -> Any:
        return redis.Redis.from_url(self.stack.redis_url)

    def recreate(self) -> None:
        self.admin.delete_topic(self.topic)
        wait_for(lambda: self.topic not in self.admin.partitions(), "the topic is gone")
        self.stack.apply_topics({"partitions": PARTITIONS})
        wait_for(lambda: self.admin.partitions().get(self.topic) == PARTITIONS, "the topic is there")

    def send(self, seed: int) -> None:
        if self.topic == TOPIC:
            produce(self.stack, traffic_of(RECORDS, cards=40, seed=seed))
            return
        sink = KafkaSink(self.stack.kafka_connection)
        sink.send(self.topic, [b"%d" % i for i in range(RECORDS)], [b"bad"] * RECORDS)
        assert sink.flush(30)
        sink.close()

    def ends(self) -> dict[int, int]:
        return {p: end for (_, p), (_, end) in self.admin.extents(self.topic).items()}

    def trim(self, share: float) -> None:
        """Delete the first records of every partition."""
        self.admin.delete_records(self.topic, {p: int(end * share) for p, end in self.ends().items()})

    def work(self, until: Callable[[Worker[Any, Any]], bool]) -> dict[int, Halt]:
        """Let a worker work until something holds; return what it leaves alone."""
        self._ends = {}
        health = Health(SystemClock())
        member = Membership(self.topic, self.group_id, sandbox_of("scorer"))
        ports = build_ports(self.settings, SystemClock(), member)
        processor = PROCESSORS[self.topic]()
        if self.broken:
            processor.decide = raise_always
        worker = build_worker(self.settings, processor, ports, health, MetricsRegistry())
        try:
            worker.open()
            deadline = time.monotonic() + 60
            while not until(worker):
                assert time.monotonic() < deadline, health.detail
                worker.turn()
            worker.release()
            return dict(worker.partitions.halted)
        finally:
            worker.close()

    def settled(self, worker: Worker[Any, Any]) -> bool:
        """Whether a worker has taken all partitions over, and worked off all but of those that are halted."""
        partitions = worker.partitions
        if len(partitions.owned) + len(partitions.halted) < self._counting.partitions()[self.topic]:
            return False
        self._ends = self._ends or self.ends()  # nobody sends meanwhile
        return all(one.published >= self._ends[p] for p, one in partitions.owned.items())

    def run(self, command: str) -> tuple[int, str]:
        """Run a command as an operator would; return its exit code, and what it says."""
        wait_for(lambda: self.admin.members(self.group_id) == 0, "the worker has left")
        said, environment = io.StringIO(), {**os.environ, **self.settings.environment()}
        with redirect_stdout(said), redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                code = int(proact.main(command.split(), prog_name="proact", standalone_mode=False) or 0)
            except click.ClickException as error:
                error.show()
                code = error.exit_code
        return code, said.getvalue()


def raise_always(*_: Any) -> Any:
    raise LookupError


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def system(stack_pool) -> Iterator[System]:
    stack = stack_pool.take(PARTITIONS)
    yield System(stack)
    stack_pool.give_back(stack)


# -- what may be wrong ---------------------------------------------------------------------------------------------------


def lose_offsets(system: System) -> None:
    system.admin.delete_group(system.group_id)


def set_offsets_back(system: System) -> None:
    system.admin.commit(system.topic, system.group_id, dict.fromkeys(system.ends(), 1))


def commit_beyond_the_end(system: System) -> None:
    system.admin.commit(system.topic, system.group_id, {p: end + 100 for p, end in system.ends().items()})


def overtake(system: System) -> None:
    """Retention deletes records that nobody has decided on yet."""
    before = system.ends()
    system.send(2)
    after = system.ends()
    system.admin.delete_records(system.topic, {p: (before[p] + after[p]) // 2 for p in before})


def overtake_all(system: System) -> None:
    system.send(2)
    system.trim(1)


def recreate(system: System) -> None:
    system.recreate()
    system.send(2)


def recreate_without_its_beginning(system: System) -> None:
    recreate(system)
    system.trim(0.5)


def recreate_and_empty(system: System) -> None:
    recreate(system)
    system.trim(1)


def recreate_and_keep_offsets(system: System) -> None:
    """As a copy of the group's offsets would leave it."""
    recreate(system)
    system.admin.commit(system.topic, system.group_id, {p: end + 100 for p, end in system.ends().items()})


def recreate_without_what_is_committed(system: System) -> None:
    recreate_without_its_beginning(system)
    system.admin.commit(system.topic, system.group_id, dict.fromkeys(system.ends(), 1))


def add_a_partition(system: System) -> None:
    system.admin.add_partitions(system.topic, PARTITIONS + 1)
    wait_for(lambda: system.admin.partitions()[system.topic] == PARTITIONS + 1, "there is one more")


def lose_redis(system: System) -> None:
    system.client.flushall()


def lose_a_profile(system: System) -> None:
    key = profiles_key(system.topic, 0)
    system.client.hdel(key, system.client.hkeys(key)[0])


def change_the_layout(system: System) -> None:
    for p in range(PARTITIONS):
        system.client.hset(meta_key(system.topic, p), "layout", 1)


def shorten(system: System) -> None:
    system.trim(0.5)


def empty(system: System) -> None:
    system.trim(1)


def damage(system: System) -> None:
    key = profiles_key(system.topic, 0)
    for card in system.client.hkeys(key):
        system.client.hset(key, card, b"rubbish")
    system.send(2)


def burst(system: System) -> None:
    """A sender sends rubbish."""
    sink = KafkaSink(system.stack.kafka_connection)
    sink.send(system.topic, [b"card-1"] * 3_000, [b"rubbish"] * 3_000)
    assert sink.flush(30)
    sink.close()


def break_the_program(system: System) -> None:
    system.broken = True
    system.send(2)


def marked(reason: str, *, drop: bool = False) -> Callable[[System], None]:
    def mark(system: System) -> None:
        RedisGrid(system.stack.grid_connection).halt(system.topic, 0, reason, drop=drop)

    return mark


@dataclass(frozen=True)
class Case:
    """What is done to a system, and for what it must be halted then."""

    cause: Cause
    spoils: tuple[Callable[[System], None], ...]
    topic: str = TOPIC


LABELS = "fraud-labels"
CASES = {
    "offsets lost": Case(Cause.OFFSETS_MISSING, (lose_offsets,)),
    "offsets lost and the log is short": Case(Cause.OFFSETS_MISSING, (shorten, lose_offsets)),
    "offsets lost and the log is empty": Case(Cause.OFFSETS_MISSING, (empty, lose_offsets)),
    "offsets lost, of labels": Case(Cause.OFFSETS_MISSING, (lose_offsets,), LABELS),
    "offsets set back": Case(Cause.LOG_BEHIND, (set_offsets_back,)),
    "offsets set back before a short log": Case(Cause.LOG_BEHIND, (shorten, set_offsets_back)),
    "offsets beyond the end": Case(Cause.LOG_BEHIND, (commit_beyond_the_end,)),
    "offsets beyond the end of an empty log": Case(Cause.LOG_BEHIND, (empty, commit_beyond_the_end)),
    "retention overtakes": Case(Cause.RETENTION, (overtake,)),
    "retention overtakes all": Case(Cause.RETENTION, (overtake_all,)),
    "retention overtakes, of labels": Case(Cause.RETENTION, (overtake,), LABELS),
    "retention overtakes and redis is lost": Case(Cause.RETENTION, (overtake, lose_redis)),
    "recreated": Case(Cause.TOPIC_RECREATED, (recreate,)),
    "recreated and its beginning is gone": Case(Cause.TOPIC_RECREATED, (recreate_without_its_beginning,)),
    "recreated and empty": Case(Cause.TOPIC_RECREATED, (recreate_and_empty,)),
    "recreated with offsets beyond its end": Case(Cause.TOPIC_RECREATED, (recreate_and_keep_offsets,)),
    "recreated with offsets before its beginning": Case(Cause.TOPIC_RECREATED, (recreate_without_what_is_committed,)),
    "recreated and its beginning is gone, of labels": Case(
        Cause.TOPIC_RECREATED, (recreate_without_its_beginning,), LABELS
    ),
    "partitions added": Case(Cause.PARTITIONS_CHANGED, (add_a_partition,)),
    "partitions added to a short log": Case(Cause.PARTITIONS_CHANGED, (shorten, add_a_partition)),
    "partitions added and offsets lost": Case(Cause.PARTITIONS_CHANGED, (lose_offsets, add_a_partition)),
    "redis lost and the log is short": Case(Cause.HISTORY_MISSING, (shorten, lose_redis)),
    "redis lost and the log is empty": Case(Cause.HISTORY_MISSING, (empty, lose_redis)),
    "all lost but half of the log": Case(Cause.HISTORY_MISSING, (shorten, lose_redis, lose_offsets)),
    "a profile lost and the log is short": Case(Cause.HISTORY_MISSING, (shorten, lose_a_profile)),
    "another layout and the log is short": Case(Cause.HISTORY_MISSING, (shorten, change_the_layout)),
    "marked": Case(Cause.MARKED, (marked("somebody looks at it"),)),
    "the breaker": Case(Cause.MARKED, (burst,)),
    "a broken program": Case(Cause.MARKED, (break_the_program,)),
    "a damaged profile": Case(Cause.MARKED, (damage,)),
    "a damaged profile and the log is short": Case(Cause.MARKED, (shorten, damage)),
    "a rebuild was interrupted": Case(Cause.MARKED, (marked(REBUILDING, drop=True),)),
    "a rebuild was interrupted and the log is short": Case(Cause.MARKED, (shorten, marked(REBUILDING, drop=True))),
    "a rebuild of a short log was interrupted": Case(Cause.MARKED, (shorten, marked(REBUILDING_SHORT, drop=True))),
    "the acceptance of a gap was interrupted": Case(Cause.MARKED, (overtake, marked(GAP_ACCEPTED, drop=True))),
    "an archiver that lost its table was interrupted": Case(Cause.MARKED, (marked(TABLE_LOST, drop=True),)),
}
HALTERS = {
    "archiver/publisher.py": "an archiver that lost its table was interrupted",
    "cli/grid.py": "the acceptance of a gap was interrupted",
    "cli/grid_folds.py": "a rebuild was interrupted",
    "worker/loop.py": "the breaker",  # and a damaged profile, of which there are cases, too
    "worker/isolating.py": "a broken program",
    "worker/ownership.py": "marked",
}
"""Every source file that marks partitions, with the case that shows how its mark ends."""


def test_every_cause_and_everything_that_marks_a_partition_is_walked():
    assert {case.cause for case in CASES.values()} | {Cause.TOPIC_MISSING} == set(Cause)
    marking = {name_of(path) for path in SOURCES if re.search(r"(grid|ownership)\.halt\(", path.read_text())}
    assert marking == HALTERS.keys()
    assert set(HALTERS.values()) <= CASES.keys()


def follow(system: System, partition: int, halt: Halt) -> str:
    """Do what a halt says, and what a command that is refused says in turn, until one is done; return that."""
    run: list[str] = []
    [command] = commands_of(halt.remedy(system.topic, partition))
    for _ in range(STEPS_MAX):
        assert f"--partition {partition}" in command, "it must be about this partition alone"
        assert command not in run, f"a circle: {[*run, command]}"
        run.append(command)
        code, said = system.run(command)
        if code == 0:
            return command
        [command] = commands_of(said)
    raise AssertionError(f"no end after {run}")


@pytest.mark.parametrize("name", CASES)
def test_whoever_does_what_a_halt_says_ends_where_the_partition_runs(system: System, name: str):
    case = CASES[name]
    system.begin(case.topic)
    system.send(1)
    assert system.work(system.settled) == {}
    for spoil in case.spoils:
        spoil(system)
    halted = system.work(system.settled)
    system.broken = False
    assert case.cause in {halt.cause for halt in halted.values()}
    walk(system, halted)


def walk(system: System, halted: dict[int, Halt]) -> None:
    """Follow the remedies of halts until everything runs, and look whether it does."""
    walked: set[tuple[int, str, str]] = set()
    for _ in range(STEPS_MAX):
        for partition, halt in halted.items():
            step = (partition, halt.cause.name, follow(system, partition, halt))
            assert step not in walked, f"a circle: {step} after {walked}"
            walked.add(step)
        halted = system.work(system.settled)
        if not halted:
            break
    assert not halted, f"still halted after {walked}: {halted}"
    before, begun_ms = system.ends(), time.time_ns() // 1_000_000
    system.send(9)
    assert system.work(system.settled) == {}, "it goes on"
    short = {p for p, _, command in walked if command.endswith("--accept-loss")}
    if short and system.topic == TOPIC:
        marked_so = [
            "PROFILE_TRUNCATED" in one["degraded"]
            for one in (decode_record(value or b"")[1] for *_, value in read_all(system.stack, "card-decisions"))
            if one["source_partition"] in short and one["source_offset"] >= before[one["source_partition"]]
            if one["decided_at_ms"] >= begun_ms
        ]
        assert marked_so, "it decides"
        assert all(marked_so), "and says that it does not know all of the past that counts"
    rebuilt = {partition for partition, _, command in walked if "rebuild" in command}
    for (_, p), (start, _) in system.admin.extents(system.topic).items():
        # Older profiles know more than a log that is short; those that were folded from it do not.
        if p in rebuilt or not start:
            code, said = system.run(f"grid verify --service {system.service} --partition {p}")
            assert code == 0, said
    states = system.run(f"grid status --service {system.service}")[1]
    assert states.count("current") == system.admin.partitions()[system.topic], states


def test_a_topic_that_is_deleted_under_a_worker_ends_by_its_remedies(system: System):
    """The one halt that only a running worker sees: the next one is given no partition of a topic that is not there."""
    system.begin(TOPIC)
    system.send(1)
    deleted = False

    def missed(worker: Worker[Any, Any]) -> bool:
        nonlocal deleted
        if not deleted and system.settled(worker):
            system.admin.delete_topic(TOPIC)
            deleted = True
        return [halt.cause for halt in worker.partitions.halted.values()] == [Cause.TOPIC_MISSING] * PARTITIONS

    halted = system.work(missed)
    for partition, halt in halted.items():
        assert "proact topics apply" in halt.remedy(TOPIC, partition)
    wait_for(lambda: TOPIC not in system.admin.partitions(), "the topic is gone")
    system.stack.apply_topics({"partitions": PARTITIONS})
    wait_for(lambda: system.admin.partitions().get(TOPIC) == PARTITIONS, "the topic is there")
    system.send(2)

    halted = system.work(system.settled)
    assert {halt.cause for halt in halted.values()} == {Cause.TOPIC_RECREATED}
    walk(system, halted)
