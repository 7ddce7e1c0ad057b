"""The broker, and the way to it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.chaos import proxy as px
from tests.chaos.errors import ChaosError
from tests.chaos.plan import Measured, at_point, fault, freeze, hit, taken_over, wait_for_progress
from tests.chaos.system import ChaosSystem


@fault("F-04", "a stale end of a commit that arrives during the next one")
def stale_end(system: ChaosSystem) -> Measured:
    """The request is held, the client sends it again, and the first one is let go while the next commit is open."""
    victim = system.any_victim()
    link = f"kafka-{victim.number}"
    system.proxy.order("rule", name=link, what=px.HOLD, keys=[px.END_TXN], count=1)
    until_s = time.monotonic() + 8
    while not system.proxy.order("held", name=link) and time.monotonic() < until_s:
        time.sleep(0.02)
    time.sleep(3.6)  # the client gives up on the answer after 3 s, and goes on
    at_point(victim, "before-commit", "sleep 0.5", 20)
    released = hit(system.proxy.order("release", name=link), "no end of a commit was held")
    system.proxy.order("heal", name=link)
    time.sleep(1)
    return {"stale_frames": released, "back_s": taken_over(system)}


def _with_rule(system: ChaosSystem, what: str, keys: tuple[int, ...], seconds: float, **more: Any) -> int:
    link = f"kafka-{system.any_victim().number}"
    system.proxy.order("rule", name=link, what=what, keys=list(keys), count=more.pop("count", 1), **more)
    time.sleep(seconds)
    return int(system.proxy.order("heal", name=link))


@fault("F-05", "the request, and the answer, of a commit is lost")
def lost_commit(system: ChaosSystem) -> Measured:
    """Its outcome is not known: what Kafka says is committed decides."""
    hits = _with_rule(system, px.DROP_REPLY, (px.END_TXN,), 5.0)
    hits += _with_rule(system, px.DROP_REQUEST, (px.END_TXN,), 5.0)
    return {"hits": hit(hits, "no commit"), "back_s": taken_over(system)}


@fault("F-06", "records that Kafka refuses within a commit")
def refused_records(system: ChaosSystem) -> Measured:
    """Decisions are too large for a second: the commit is aborted, and done again from the same offsets."""
    system.admin.configure("card-decisions", {"max.message.bytes": "300"})
    time.sleep(1.5)
    system.admin.configure("card-decisions", {"max.message.bytes": "131072"})
    return {"back_s": taken_over(system)}


@fault("F-07", "requests of a commit that are late beyond the client's patience")
def late_requests(system: ChaosSystem) -> Measured:
    """Each is delayed by 3.5 s, the client's is 3 s."""
    kinds = ((px.PRODUCE,), (px.TXN_OFFSET_COMMIT,), (px.ADD_PARTITIONS, px.ADD_OFFSETS))
    hits = [_with_rule(system, px.DELAY, keys, 5.0, delay_s=3.5) for keys in kinds]
    return {"hits": [hit(n, "no request") for n in hits], "back_s": taken_over(system)}


@fault("F-13", "the broker restarts, in good order and by kill -9")
def broker_restart(system: ChaosSystem) -> Measured:
    """Work resumes within 30 s, and nothing halts."""
    recovered = []
    for clean in (True, False):
        if clean:
            system.stack.kafka.down()
        else:
            os.kill(system.stack.kafka.pid or 0, signal.SIGKILL)
            time.sleep(0.2)
        begin_s = time.monotonic()
        system.stack.kafka.up(lambda _: None)
        wait_for_progress(system, 40)
        recovered.append(round(time.monotonic() - begin_s, 1))
    return {"recovered_s": recovered}


@fault("F-14", "a frozen broker")
def broker_stop(system: ChaosSystem) -> Measured:
    """For 5 s and for 20 s: beyond every timeout of the clients."""
    return _frozen_for(system, (5, 20))


@fault("F-14-long", "a broker that is frozen for 70 s")
def broker_stop_long(system: ChaosSystem) -> Measured:
    """Beyond the sessions of all members."""
    return _frozen_for(system, (70,))


def _frozen_for(system: ChaosSystem, times_s: tuple[int, ...]) -> Measured:
    for seconds in times_s:
        freeze(system.stack.kafka.pid, seconds)
        wait_for_progress(system, 30)
    return {"back_s": taken_over(system)}


def _cut_off(system: ChaosSystem, mode: str) -> Measured:
    victim = system.any_victim()
    link = f"kafka-{victim.number}"
    system.proxy.order("mode", name=link, mode=mode)
    others = [other for other in system.victims if other is not victim]
    took_s = system.owned_within(20, others)
    system.proxy.order("mode", name=link, mode=px.OPEN)
    system.proxy.order("reset", name=link)
    if took_s is None:
        raise ChaosError("the others did not take over from a worker that is cut off")
    return {"takeover_s": [round(took_s, 2)], "back_s": taken_over(system)}


@fault("F-15", "the broker is out of reach for one worker only")
def black_hole(system: ChaosSystem) -> Measured:
    """The others take over; it comes back as a member like any other."""
    return _cut_off(system, px.BLACK_HOLE)


@fault("F-16", "requests pass and answers do not")
def one_way(system: ChaosSystem) -> Measured:
    """Commits may happen that their owner never hears of."""
    victim = system.any_victim()
    system.proxy.order("mode", name=f"kafka-{victim.number}", mode=px.ONE_WAY)
    time.sleep(5)
    system.proxy.order("heal", name=f"kafka-{victim.number}")
    system.proxy.order("reset", name=f"kafka-{victim.number}")
    return {"back_s": taken_over(system)}


@fault("F-18", "a storm of connections that break")
def resets(system: ChaosSystem) -> Measured:
    """Every 200 ms, on both ways of one worker."""
    victim, broken = system.any_victim(), 0
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        broken += system.proxy.order("reset", name=f"kafka-{victim.number}")
        broken += system.proxy.order("reset", name=f"redis-{victim.number}")
        time.sleep(0.2)
    return {"broken": hit(broken, "no connection"), "back_s": taken_over(system)}
