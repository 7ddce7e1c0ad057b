"""Runs of the real scorer over the models of the stores, judged by the checker as if they had been on Kafka and Redis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from services.checker.evidence import OUTPUTS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.scoring import Scoring, released_folders
from services.checker.verdict import Checker
from services.codec.transactions import TOPIC, encode_transactions
from services.scorer.processor import ScorerProcessor
from tests.generators import random_events, to_columns
from tests.simulation.world import Schedule, World
from tests.worker.memory_system import SAFE, released_model

EVENTS = 30


def scorer_world(schedule: Schedule | None = None, **changes: Any) -> World:
    """Return a world in which the real scorer decides."""
    changes = {"processor": lambda: ScorerProcessor(released_model(), SAFE), **changes}
    world = World(schedule or Schedule(), topic=TOPIC, **changes)
    columns = to_columns(random_events(3, EVENTS, cards=4, dense=True))
    records: list[tuple[bytes, bytes]] = list(zip(columns.card_id.tolist(), encode_transactions(columns), strict=True))
    records[7] = (records[7][0], b"rubbish")
    records[19] = (records[19][0], b"more rubbish")
    world.produce(records)
    return world


def evidence_of(world: World) -> Evidence:
    """Return what there is to see of a world."""
    log, partitions = world.log, range(world.partitions)
    world.clock.sleep(60)
    log.expire()

    def seen(topic: str) -> list[Seen]:
        found = []
        for p in partitions:
            visible = {id(record) for record in log.visible(topic, p)}
            found += [
                Seen(p, offset, r.timestamp_ms, r.key, r.value)
                for offset, r in enumerate(log.partition_log(topic, p))
                if id(r) in visible
            ]
        return found

    metas = {p: world.grid.metas.get((TOPIC, p)) for p in partitions}
    return Evidence(
        inputs=seen(TOPIC),
        outputs={topic: seen(topic) for topic in OUTPUTS},
        committed={p: c for (topic, p), c in log.committed.items() if topic == TOPIC},
        log_start=dict.fromkeys(partitions, 0),
        log_end={p: log.end(TOPIC, p) for p in partitions},
        applied={p: meta.applied if meta else None for p, meta in metas.items()},
        profiles={p: dict(world.grid.of(TOPIC, p)) for p in partitions},
        terminal_applied=dict.fromkeys(partitions),
        late_applies=list(world.grid.late_applies),
    )


@cache
def _scoring() -> Scoring:
    """It reads every release, and keeps nothing of the runs."""
    return Scoring(released_folders())


def judge(evidence: Evidence, **how: Any) -> Verdict:
    """Return the checker's verdict."""
    return Checker(evidence, _scoring(), **{"repeats": False, **how}).judge(lambda _: None)


def run(schedule: Schedule, make: Callable[[Schedule], World] = scorer_world, **how: Any) -> Verdict:
    """Run a world with two workers until it is done, or for long enough, and judge it."""
    world = make(schedule)
    world.spawn("a")
    world.spawn("b")
    with suppress(Exception):  # a mutant may break anything: what is left is judged
        world.settle(60)
    return judge(evidence_of(world), **how)
