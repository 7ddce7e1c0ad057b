"""Stacks that tests take in turn: starting a Kafka takes longer than most tests, so one that was left whole is emptied and lent again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port
from tests.containers import ContainerStack

Stack = EmbeddedStack | ContainerStack
TIMEOUT_S: Final = 10.0


def new_stack(kind: str, folder: Path) -> Stack:
    """Return a stack of a kind, ``containers`` or ``embedded``, which does not run yet."""
    make = ContainerStack if kind == "containers" else EmbeddedStack.of
    return make(folder, free_port(), free_port())


class StackPool:
    """Lends running stacks without any topic, record, group or key; whoever takes one has it alone."""

    def __init__(self, make: Callable[[], Stack]) -> None:
        """Take what makes a stack that does not run yet."""
        self._make = make
        self._idle: list[Stack] = []
        self._lent: dict[Stack, object] = {}

    def take(self, partitions: int) -> Stack:
        """Return a stack with the topics."""
        stack = self._idle.pop() if self._idle else self._make()
        self._lent[stack] = None
        stack.up(lambda _: None)
        self._lent[stack] = _state_of(stack)
        stack.apply_topics({"partitions": partitions})
        return stack

    def give_back(self, stack: Stack) -> bool:
        """Empty a stack, and return whether it is lent again; one that was stopped, changed, or cannot be emptied is thrown away."""
        before = self._lent.pop(stack)
        whole = before is not None and _emptied(stack, before)
        if whole:
            self._idle.append(stack)
        else:
            stack.down()
        return whole

    @property
    def lent(self) -> list[Stack]:
        """Those that somebody has."""
        return list(self._lent)

    def down(self) -> None:
        """Stop all."""
        for stack in [*self._lent, *self._idle]:
            stack.down()


def _state_of(stack: Stack) -> object:
    """Return which processes there are and how Redis is set: what a test may have changed."""
    client: Any = redis.Redis.from_url(stack.redis_url, socket_timeout=TIMEOUT_S)
    return stack.kafka.pid, stack.redis.pid, client.config_get("*"), client.acl_list()


def _emptied(stack: Stack, before: object) -> bool:
    """Empty a stack and return whether it is as it was before it was lent."""
    try:
        if _state_of(stack) != before:
            return False
        admin = AdminClient(stack.kafka_connection.admin({"log_level": 0, "socket.timeout.ms": 3_000}))
        topics = admin.list_topics(timeout=TIMEOUT_S).topics
        ours = [name for name in topics if not name.startswith("__")]
        if _transactions_are_open(admin, [TopicPartition(name, p) for name in ours for p in topics[name].partitions]):
            return False
        groups = [group.group_id for group in admin.list_consumer_groups().result(TIMEOUT_S).valid]
        for names, delete in ((groups, admin.delete_consumer_groups), (ours, admin.delete_topics)):
            for future in delete(names).values() if names else ():
                future.result(TIMEOUT_S)
        client: Any = redis.Redis.from_url(stack.redis_url, socket_timeout=TIMEOUT_S)
        client.flushall()
        client.script_flush()
    except (KafkaException, redis.RedisError, TimeoutError):  # such as a group that still has members
        return False
    return True


def _transactions_are_open(admin: AdminClient, partitions: list[TopicPartition]) -> bool:
    """Return whether somebody died in a transaction: its end would come into the next test's topics."""
    wanted = {partition: OffsetSpec.latest() for partition in partitions}
    ends = []
    for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
        asked = admin.list_offsets(wanted, isolation_level=level)
        ends.append({(tp.topic, tp.partition): one.result(TIMEOUT_S).offset for tp, one in asked.items()})
    return ends[0] != ends[1]
