"""Workers that die, freeze, come and go."""

from __future__ import annotations

import resource
import signal
import time

import psutil
from confluent_kafka import Consumer, Producer

from services.subprocesses import start_tied
from tests.chaos.errors import ChaosError
from tests.chaos.plan import TAKE_OVER_S, Measured, NotFiredError, at_point, fault, restart_with, taken_over
from tests.chaos.system import TOPIC, ChaosSystem, Victim, percentile
from tests.chaos.victim import POINTS


def _kill_at(system: ChaosSystem, victim: Victim, point: str) -> float:
    at_point(victim, point, "kill")
    time.sleep(0.05)
    return taken_over(system)


@fault("F-01", "kill -9 at a point within a batch")
def kill_at_a_point(system: ChaosSystem) -> Measured:
    """Two scorers and the profiler, at points that are chosen anew each time."""
    points = [p for p in POINTS if p not in ("after-claim", "after-read", "before-read")]
    chosen = system.rng.choice(points, 2, replace=False).tolist()
    chosen.append(str(system.rng.choice([p for p in points if p != "after-queue"])))  # a profiler has no outputs
    victims = [system.any_victim(), system.any_victim(), system.helpers[0]]
    return {"points": chosen, "takeover_s": [_kill_at(system, *pair) for pair in zip(victims, chosen, strict=True)]}


@fault("F-02", "kill -9 of all workers at once")
def kill_all(system: ChaosSystem) -> Measured:
    """And the cold start of all of them."""
    for victim in system.everybody:
        victim.signal(signal.SIGKILL)
    time.sleep(0.1)
    return {"takeover_s": [taken_over(system)]}


@fault("F-03", "a graceful stop, another number of workers, a rolling restart")
def roll(system: ChaosSystem) -> Measured:
    """Nothing is lost, and the latency at p99 stays within a second."""
    time.sleep(4.0)
    begin_s = time.monotonic()
    before = percentile(system.live.latencies_between(begin_s - 4.0, begin_s), 99)
    first, *others = system.victims
    first.wanted = False
    first.signal(signal.SIGTERM)
    clean_s = system.owned_within(TAKE_OVER_S, others)
    first.child.process.wait(10)
    first.died_at_s, first.wanted = None, True
    back_s = taken_over(system)
    time.sleep(2.0)
    for victim in others:
        victim.signal(signal.SIGTERM)
        victim.child.process.wait(10)
        time.sleep(0.1)
        taken_over(system)
        time.sleep(2.0)  # as whoever rolls does: one after the other has caught up
    p99 = percentile(system.live.latencies_between(begin_s, time.monotonic()), 99)
    if before is None or p99 is None:
        raise NotFiredError("no decision came to measure")
    return {
        "clean_takeover_s": round(clean_s or 99.0, 2),
        "back_s": back_s,
        "latency_p99_ms": p99,
        "before_p99_ms": before,
    }


@fault("F-08", "SIGSTOP within a commit, for longer than Kafka leaves it open")
def stop_in_commit(system: ChaosSystem) -> Measured:
    """Kafka aborts it, and refuses its owner when it wakes up."""
    return _stop_at(system, system.any_victim(), "before-commit", 12.0)


@fault("F-09", "a zombie between commit and apply")
def zombie(system: ChaosSystem) -> Measured:
    """The others take over and go on; its late write is refused by the grid. So it is with a profiler."""
    profiler = system.helpers[0]
    at_point(profiler, "before-apply", "stop")
    time.sleep(12)
    profiler.signal(signal.SIGCONT)
    taken_over(system)
    return _stop_at(system, system.any_victim(), "before-apply", 12.0)


def _stop_at(system: ChaosSystem, victim: Victim, point: str, seconds: float) -> Measured:
    at_point(victim, point, "stop")
    others = [other for other in system.victims if other is not victim]
    took_s = system.owned_within(seconds + 8, others)
    time.sleep(max(0.0, seconds - (took_s or 0.0)))
    victim.signal(signal.SIGCONT)
    return {"takeover_s": [round(took_s or 99.0, 2)], "back_s": taken_over(system)}


@fault("F-10", "a worker that is stuck in Python while its client's thread goes on")
def stuck(system: ChaosSystem) -> Measured:
    """It leaves the group by the poll interval, and its late commit is refused."""
    victim = system.any_victim()
    at_point(victim, "before-commit", "sleep 19")
    others = [other for other in system.victims if other is not victim]
    took_s = system.owned_within(25, others)
    return {"takeover_s_of_stuck": round(took_s or 99.0, 2), "back_s": taken_over(system)}


@fault("F-11", "a second process with the same transactional id")
def double(system: ChaosSystem) -> Measured:
    """Both are fenced in turn; no harm is done."""
    victim = system.any_victim()
    made = _steal(system, victim, 4)
    return {"fenced": made, "back_s": taken_over(system)}


@fault("F-12", "a foreign application with a worker's transactional id")
def foreign(system: ChaosSystem) -> Measured:
    """Without access control it can fence the worker, which starts again; it can do no harm to the records."""
    made = _steal(system, system.any_victim(), 1)
    return {"fenced": made, "back_s": taken_over(system)}


def _steal(system: ChaosSystem, victim: Victim, times: int) -> int:
    """Make producers of a worker's name, which fences the worker's own."""
    name = victim.child.environment["PROACT_TRANSACTIONAL_ID"]
    for _ in range(times):
        thief = Producer({"bootstrap.servers": system.stack.kafka_address, "transactional.id": name, "log_level": 0})
        thief.init_transactions(10)
        time.sleep(1.0)
    return times


@fault("F-20", "a storm of rebalances")
def rebalance_storm(system: ChaosSystem) -> Measured:
    """A member that takes partitions and never reads comes and goes, all the time."""
    before, joins = system.live.decided, 6
    for _ in range(joins):
        dummy = Consumer({
            "bootstrap.servers": system.stack.kafka_address, "group.id": system.settings.group_id, "log_level": 0,
            "partition.assignment.strategy": "range", "session.timeout.ms": 6_000, "enable.auto.commit": False,
        })  # fmt: skip
        dummy.subscribe([TOPIC], on_assign=lambda consumer, _: consumer.assign([]))
        until_s = time.monotonic() + 1.2
        while time.monotonic() < until_s:
            dummy.poll(0.1)
        dummy.close()
        time.sleep(0.8)
    progress = system.live.decided - before
    if not progress:
        raise ChaosError("nothing was decided during the storm")
    return {"rebalances": 2 * joins, "decided_meanwhile": progress, "back_s": taken_over(system)}


@fault("F-31", "wall clocks that are an hour off")
def skew(system: ChaosSystem) -> Measured:
    """One worker an hour ahead, one an hour behind: decisions are the same but for their stamp."""
    skews = {0: 3_600_000, 1: -3_600_000}
    for i, skew_ms in skews.items():
        restart_with(system, system.victims[i], PROACT_CHAOS_SKEW_MS=str(skew_ms))
    time.sleep(4)
    for i in skews:
        restart_with(system, system.victims[i], PROACT_CHAOS_SKEW_MS="0")
    return {"skewed": len(skews)}


@fault("F-44", "a producer with room for next to nothing")
def small_queue(system: ChaosSystem) -> Measured:
    """What does not fit is queued again or its commit given up; nothing is dropped."""
    victim = system.any_victim()
    restart_with(system, victim, PROACT_CHAOS_QUEUE="50")
    time.sleep(4)
    restart_with(system, victim, PROACT_CHAOS_QUEUE="500000")
    return {"queue_records": 50}


@fault("F-45", "no file descriptors, no memory, no processor")
def starved(system: ChaosSystem) -> Measured:
    """A worker gives up or is killed, and never does half a batch."""
    victim = system.any_victim()
    limits = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (10, limits[1]))
    system.proxy.order("reset", name=f"kafka-{victim.number}")
    system.proxy.order("reset", name=f"redis-{victim.number}")
    time.sleep(4)
    if victim.child.process.poll() is None:
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, limits)
    taken_over(system)
    hungry = system.any_victim()
    resource.prlimit(hungry.pid, resource.RLIMIT_AS, (_vms(hungry) + 2**20, resource.RLIM_INFINITY))
    time.sleep(4)
    if hungry.child.process.poll() is None:
        resource.prlimit(hungry.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    eaters = [start_tied(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(3)]
    time.sleep(5)
    for eater in eaters:
        eater.kill()
        eater.wait()
    return {"back_s": taken_over(system)}


def _vms(victim: Victim) -> int:
    return int(psutil.Process(victim.pid).memory_info().vms)
