"""Redis, and the way to it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import redis

from services.stack.processes import free_port
from services.stack.redis import EmbeddedRedis
from services.worker.outages import REFUSED_MAX_S
from tests.chaos import proxy as px
from tests.chaos.errors import ChaosError
from tests.chaos.plan import (
    Measured,
    NotFiredError,
    fault,
    freeze,
    hit,
    restart_with,
    taken_over,
    wait_for_progress,
)
from tests.chaos.system import TOPIC, ChaosSystem


def _redis(system: ChaosSystem) -> Any:
    return redis.Redis(port=system.redis_port, socket_timeout=10)


@fault("F-25", "Redis dies, with its file and without")
def redis_dies(system: ChaosSystem) -> Measured:
    """With the file the tail is folded again; without it everything is, from the log."""
    for keep in (True, False):
        os.kill(system.stack.redis.pid or 0, signal.SIGKILL)
        time.sleep(0.3)
        if not keep:
            for left in (system.folder / "redis").glob("appendonly*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        system.set_back()
        system.stack.redis.up(lambda _: None)
        wait_for_progress(system, 40)
    return {"back_s": taken_over(system)}


@fault("F-26", "Redis is emptied, loses one partition's meta, and one card")
def redis_loses(system: ChaosSystem) -> Measured:
    """Each is noticed before a card looks new, and folded again from the log."""
    client, tag = _redis(system), f"{{{TOPIC}:{int(system.rng.integers(0, system.settings.partitions))}}}"
    lost: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("all", client.flushall),
        ("meta", lambda: client.delete(f"{tag}:meta")),
        ("card", lambda: client.hdel(f"{tag}:profiles", _some_card(client, f"{tag}:profiles"))),
    )
    for _, lose in lost:
        system.set_back()
        lose()
        wait_for_progress(system, 30)
        time.sleep(2.5)
    return {"lost": [name for name, _ in lost], "back_s": taken_over(system)}


def _some_card(client: redis.Redis, profiles: str) -> str | bytes:
    """Return a card that has a profile: after the loss before, the first ones are perhaps still to be written."""
    until_s = time.monotonic() + 30
    while (card := client.hrandfield(profiles)) is None:
        if time.monotonic() > until_s:
            raise NotFiredError("there is no profile to lose")
        time.sleep(0.1)
    return card  # type: ignore[return-value]  # the client is not asynchronous


@fault("F-27", "answers of Redis are lost after it wrote")
def redis_answers(system: ChaosSystem) -> Measured:
    """The write is found done when it is repeated."""
    hits = 0
    for _ in range(5):
        link = f"redis-{system.any_victim().number}"
        system.proxy.order("drop_replies", name=link, count=2)
        time.sleep(1.0)
        hits += system.proxy.order("heal", name=link)
    return {"hits": hit(hits, "no answer"), "back_s": taken_over(system)}


@fault("F-28", "a fail-over to a replica that lags")
def fail_over(system: ChaosSystem) -> Measured:
    """The grid goes back with its offsets, and the log makes up for it."""
    door, port = free_port(), free_port()
    system.proxy.order("link", name=f"replica-{door}", port=door, upstream=system.redis_port, kafka=False)
    replica = EmbeddedRedis(system.folder / f"replica-{port}", port)
    replica.up(lambda _: None)
    system.extra_redis.append(replica)
    client = redis.Redis(port=port)
    client.replicaof("127.0.0.1", door)
    until_s = time.monotonic() + 15
    while client.info("replication").get("master_link_status") != "up":
        if time.monotonic() > until_s:
            raise NotFiredError("the replica did not follow")
        time.sleep(0.1)
    time.sleep(1)
    system.proxy.order("mode", name=f"replica-{door}", mode=px.BLACK_HOLE)
    time.sleep(1.5)
    ahead, behind = (
        _redis(system).info("replication")["master_repl_offset"],
        client.info("replication")["slave_repl_offset"],
    )
    os.kill(system.stack.redis.pid or 0, signal.SIGKILL)
    client.replicaof("NO", "ONE")
    system.set_back()
    system.use_redis(port)
    wait_for_progress(system, 30)
    return {"bytes_lost": hit(ahead - behind, "the replica did not lag"), "back_s": taken_over(system)}


@fault("F-29", "Redis is full, and then set to drop keys")
def redis_full(system: ChaosSystem) -> Measured:
    """A full one is waited for; one that would drop profiles is not used, and says so by not being ready."""
    client = _redis(system)
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", "1mb")
    time.sleep(4)
    client.config_set("maxmemory", before)
    wait_for_progress(system, 20)
    client.config_set("maxmemory-policy", "allkeys-lru")
    time.sleep(4)
    unready = sum((victim.child.health() or {}).get("status") != 200 for victim in system.victims)
    client.config_set("maxmemory-policy", "noeviction")
    wait_for_progress(system, 20)
    return {"refused_by": hit(unready, "no worker noticed the policy"), "back_s": taken_over(system)}


@fault("F-30", "Redis is frozen, and slow")
def redis_slow(system: ChaosSystem) -> Measured:
    """Commits do not run ahead of it by more than a batch."""
    for seconds in (4.0, *[0.3] * 6):
        freeze(system.stack.redis.pid, seconds)
        time.sleep(0.2)
    return {"back_s": taken_over(system)}


@fault("F-48", "a wrong Redis password on one of three workers")
def wrong_password(system: ChaosSystem) -> Measured:
    """It leaves its partitions to the others after a while, and comes back when Redis takes it again."""
    victim, client = system.any_victim(), _redis(system)
    others = [other for other in system.victims if other is not victim]
    address, user = f"127.0.0.1:{system.redis_doors[victim.number]}/0", "the-victim"
    client.execute_command("ACL", "SETUSER", user, "reset", "on", ">right", "~*", "&*", "+@all")
    try:
        restart_with(system, victim, PROACT_REDIS_URL=f"redis://{user}:right@{address}")
        deaths = [each.deaths for each in system.victims]
        client.execute_command("ACL", "SETUSER", user, "resetpass", ">another")
        system.proxy.order("reset", name=f"redis-{victim.number}")
        left_s = system.owned_within(REFUSED_MAX_S + 30, others)
        health = victim.child.health() or {}
        if left_s is None or "left" not in health or health["status"] == 200:
            raise ChaosError(f"a worker that Redis refuses keeps its partitions: {health}")
        client.execute_command("ACL", "SETUSER", user, "resetpass", ">right")
        back_s = taken_over(system)
    finally:
        client.execute_command("ACL", "SETUSER", user, "resetpass", ">right")
        restart_with(system, victim, PROACT_REDIS_URL=f"redis://{address}")
        client.execute_command("ACL", "DELUSER", user)
    if [each.deaths - (each is victim) for each in system.victims] != deaths:
        raise ChaosError("a worker died of it")
    return {"left_s": round(left_s, 1), "back_s": back_s}


@fault("F-51", "three faults at once, healed in another order")
def swizzle(system: ChaosSystem) -> Measured:
    """A worker is cut off, Redis is frozen, and another worker dies within a commit."""
    first, second = system.victims[0], system.victims[1]
    system.proxy.order("mode", name=f"kafka-{first.number}", mode=px.BLACK_HOLE)
    time.sleep(float(system.rng.uniform(0.2, 1.0)))
    second.order("after-flush", "kill")
    reached = second.reached("after-flush", 5)
    os.kill(system.stack.redis.pid or 0, signal.SIGSTOP)
    time.sleep(float(system.rng.uniform(1.0, 3.0)))
    system.proxy.order("mode", name=f"kafka-{first.number}", mode=px.OPEN)
    system.proxy.order("reset", name=f"kafka-{first.number}")
    time.sleep(float(system.rng.uniform(0.2, 1.0)))
    os.kill(system.stack.redis.pid or 0, signal.SIGCONT)
    if not reached:
        raise NotFiredError("the second worker did not come to its commit")
    return {"back_s": taken_over(system)}
