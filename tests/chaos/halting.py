"""Faults after which a partition's state cannot be proved: the worker must halt it, say why, and decide nothing of it."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.checker.evidence import DECISIONS, Log
from services.codec.records import decode_record
from services.offline.replay.producer import Pace
from services.runtime.settings import Settings
from tests.chaos.errors import ChaosError
from tests.chaos.input import load_of
from tests.chaos.system import TOPIC, ChaosSystem, running
from tests.chaos.watchers import where_of

LOAD: Final = 6_000


@dataclass(frozen=True, slots=True)
class Halting:
    """One fault that must halt partitions."""

    name: str
    title: str
    cause: str
    make: Callable[[ChaosSystem], set[int]]
    """Does it; returns the partitions that must be halted."""
    live: bool = False
    """Whether it is done while workers run, none of which may die of it; else while none runs."""


def _all(system: ChaosSystem) -> set[int]:
    return set(range(system.settings.partitions))


def add_partitions(system: ChaosSystem) -> set[int]:
    """F-21."""
    system.admin.add_partitions(TOPIC, system.settings.partitions + 2)
    return _all(system)


def recreate_topic(system: ChaosSystem) -> set[int]:
    """F-22."""
    system.admin.delete_topic(TOPIC)
    time.sleep(1)
    system.stack.apply_topics(system.settings.topic_counts)
    return _all(system)


def delete_records(system: ChaosSystem) -> set[int]:
    """F-23: of one partition, some that were not decided on yet."""
    _send(system, 2)
    system.admin.delete_records(TOPIC, {0: system.admin.extents(TOPIC)[TOPIC, 0][1]})
    return {0}


def delete_offsets(system: ChaosSystem) -> set[int]:
    """F-24."""
    system.admin.delete_group(system.settings.group_id)
    return _all(system)


def truncate_under_a_frozen_worker(system: ChaosSystem) -> set[int]:
    """F-23-frozen: all of a frozen worker's partitions lose what it has not decided on."""
    victim, load = system.any_victim(), load_of(LOAD, 500, 2)
    partitions = set((victim.child.health() or {})["partitions"])
    victim.signal(signal.SIGSTOP)
    system.load.producer.send(load, Pace(None))
    ends = system.admin.extents(TOPIC)
    system.admin.delete_records(TOPIC, {p: ends[TOPIC, p][1] for p in partitions})
    victim.signal(signal.SIGCONT)
    return partitions


HALTING: Final = (
    Halting("F-21", "partitions are added to the topic", "PARTITIONS_CHANGED", add_partitions),
    Halting("F-22", "the topic is deleted and made again", "TOPIC_RECREATED", recreate_topic),
    Halting("F-23", "retention overtakes the grid", "RETENTION", delete_records),
    Halting(
        "F-22-live",
        "the topic is deleted and made again under its workers",
        "TOPIC_RECREATED",
        recreate_topic,
        live=True,
    ),
    Halting(
        "F-23-frozen",
        "the log is truncated under a frozen worker",
        "RETENTION",
        truncate_under_a_frozen_worker,
        live=True,
    ),
    Halting("F-24", "the group's offsets are deleted", "OFFSETS_MISSING", delete_offsets),
)


def _send(system: ChaosSystem, seed: int) -> None:
    system.load.producer.send(load_of(LOAD, 500, seed), Pace(None))


def _halted(system: ChaosSystem) -> dict[int, str]:
    healths = [victim.child.health() or {} for victim in system.victims]
    return {int(p): reason for health in healths for p, reason in health.get("halted", {}).items()}


def run_halting(fault: Halting, settings: Settings, folder: Path, progress: Callable[[str], None]) -> dict[str, object]:
    """Run one such fault on a system of its own; raise ChaosError when partitions are not halted, or decided on."""
    with running(settings, folder, progress) as system:
        _send(system, 1)
        if system.drained_within(60) is None:
            raise ChaosError("the load was not worked off")
        if not fault.live:
            system.stop_victims()
        deaths = [victim.deaths for victim in system.victims]
        wanted = fault.make(system)
        before = _decided(system)
        for victim in system.victims if not fault.live else ():
            victim.died_at_s, victim.wanted = None, True
        begin_s = time.monotonic()
        while (found := _halted(system)).keys() != wanted or any(fault.cause not in r for r in found.values()):
            if time.monotonic() - begin_s > 40:
                raise ChaosError(f"{sorted(wanted)} must be halted for {fault.cause}, but {found or 'none'} are")
            time.sleep(0.1)
        took_s = time.monotonic() - begin_s
        if fault.name != "F-21":
            _send(system, 3)
        time.sleep(2)
        after = _decided(system)
        if wrong := [p for p in wanted if after[p] != before[p]]:
            raise ChaosError(f"halted partitions were decided on: {wrong}")
        if fault.live and deaths != [victim.deaths for victim in system.victims]:
            raise ChaosError("a worker died of it instead of halting")
        return {"halted": len(found), "cause": fault.cause, "halted_s": round(took_s, 1)}


def _decided(system: ChaosSystem) -> Counter[int]:
    """Return how many decisions there are by the partition of their transactions: decisions have partitions of another number."""
    log = Log(where_of(system.settings), system.settings.group_id)
    return Counter(decode_record(seen.value or b"")[1]["source_partition"] for seen in log.read(DECISIONS))
