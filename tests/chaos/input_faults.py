"""What comes in."""

from __future__ import annotations

import time

import psutil

from tests.chaos.errors import PATIENCE_S, ChaosError
from tests.chaos.input import (
    bad_records,
    bomb_records,
    hot_and_new,
    odd_time_records,
    raising_records,
    records_of_other_schemas,
)
from tests.chaos.plan import Measured, fault, hit, taken_over
from tests.chaos.system import ChaosSystem, Victim
from tests.chaos.victim import POISON, RAISES

SOME_LEFT = 3_000
"""What may lie in the topic although everybody keeps up: a second of an even load."""


@fault("F-32", "bad records of every kind")
def bad_records_of_every_kind(system: ChaosSystem) -> Measured:
    """One dead letter each, and neighbours that are decided as if it were not there."""
    keys, values = bad_records(system.rng, 200)
    system.load.producer.send_raw(keys, values)
    return {"records": len(values)}


@fault("F-33", "bombs")
def bombs(system: ChaosSystem) -> Measured:
    """Huge lengths, deep nesting, endless arrays: refused before they are decoded, without memory growing."""
    before = max(_rss(victim) for victim in system.victims)
    keys, values = bomb_records(system.rng)
    system.load.producer.send_raw(keys, values)
    time.sleep(2)
    return {"records": len(values), "rss_growth_mb": round((max(_rss(v) for v in system.victims) - before) / 2**20)}


def _rss(victim: Victim) -> int:
    return int(psutil.Process(victim.pid).memory_info().rss)


@fault("F-34", "a record that kills the process which decodes it")
def poison_record(system: ChaosSystem) -> Measured:
    """After two deaths it becomes a dead letter without being decoded, and its partition goes on."""
    deaths = sum(victim.deaths for victim in system.victims)
    system.load.producer.send_raw([b"card-%06d" % system.rng.integers(0, 1_000)], [b"this " + POISON])
    until_s = time.monotonic() + PATIENCE_S
    while "KILLS_DECODER" not in system.live.reasons:
        if time.monotonic() > until_s:
            raise ChaosError(f"the record that kills was not found within {PATIENCE_S:.0f} s")
        time.sleep(0.2)
    system.live.reasons.clear()
    died = sum(victim.deaths for victim in system.victims) - deaths
    return {"deaths": hit(died, "nobody died"), "back_s": taken_over(system)}


@fault("F-34-exception", "an exception in a decoder, and in an encoder")
def exception(system: ChaosSystem) -> Measured:
    """Nobody dies of it; the record alone becomes a dead letter, is in no fold, and its neighbours are decided."""
    deaths = sum(victim.deaths for victim in system.victims)
    for mark in RAISES:
        system.live.reasons.pop("INTERNAL_ERROR", None)
        keys, values = raising_records(system.rng, mark, 100)
        system.load.producer.send_raw(keys, values)
        until_s = time.monotonic() + PATIENCE_S
        while "INTERNAL_ERROR" not in system.live.reasons:
            if time.monotonic() > until_s:
                raise ChaosError(f"the record with {mark.decode()} was not found within {PATIENCE_S:.0f} s")
            time.sleep(0.1)
    system.live.reasons.clear()
    if sum(victim.deaths for victim in system.victims) != deaths:
        raise ChaosError("a worker died of an exception")
    return {"records": len(RAISES)}


@fault("F-37", "records of other versions of the schema among the good ones")
def other_schemas(system: ChaosSystem) -> Measured:
    """A version that is not in schemas/ is refused by its fingerprint, whatever its bytes would look like."""
    keys, values = records_of_other_schemas(system.rng)
    system.load.producer.send_raw(keys, values)
    return {"records": len(values)}


@fault("F-42", "late, repeated, future and simultaneous events")
def odd_times(system: ChaosSystem) -> Measured:
    """The fold goes by the log; repeats get the same decision id."""
    keys, values = odd_time_records(system.rng, 4_000)
    system.load.producer.send_raw(keys, values)
    return {"records": len(values)}


@fault("F-43", "a hot card, and very many new ones")
def hot_card(system: ChaosSystem) -> Measured:
    """Half of a burst belongs to one card, the other half each to a card of its own."""
    keys, values = hot_and_new(system.rng, 12_000)
    system.load.producer.send_raw(keys, values)
    return {"records": len(values), "drained_s": system.drained_within(60, SOME_LEFT)}


@fault("F-46", "three times as much as can be done")
def overload(system: ChaosSystem) -> Measured:
    """Queues stay bounded, and the backlog drains."""
    count = int(min(60_000, 3 * system.capacity * 3))
    keys, values = hot_and_new(system.rng, count, hot=False)
    system.load.producer.send_raw(keys, values)
    drained_s = system.drained_within(PATIENCE_S, SOME_LEFT)
    if drained_s is None:
        raise ChaosError("the backlog did not drain")
    return {"records": count, "drained_s": round(drained_s, 1)}
