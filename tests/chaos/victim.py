"""A worker whose ports are wrapped, so that it can be hurt between any two effects: ``python -m tests.chaos.victim``.

The runner leaves a file in the folder that ``PROACT_CHAOS_FOLDER`` names: its name is the point, its content what to do there
(``kill``, ``stop``, ``sleep SECONDS``). The victim removes it and obeys, once. Nothing of this is in the workers themselves. The variable ``PROACT_CHAOS_SERVICE`` says whose worker
it is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.decision.model_loader import usable_model
from services.registry import BY_NAME, LogSpec, ServiceSpec
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings, resolve_settings
from services.scorer import parts as scorer_parts
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.streams import Output, Records
from services.streams.clients import ATOMIC
from services.streams.publishers import KafkaAtomicProducer
from services.worker.assembling import Parts, build_service, membership, parts_of
from services.worker.ports import Ports
from services.worker.processor import LateOutputs
from services.worker.sandbox import try_records
from services.worker.service import run_service
from services.worker.wiring import build_ports, build_worker
from services.worker.worker_group import Runnable

POISON: Final = b"kills-the-decoder"
RAISES: Final = (b"raises-in-the-decoder", b"raises-in-the-encoder")
"""Marks in records that are good but for the exceptions that they bring about."""
SANDBOX: Final = "sandbox"
"""The argument that makes it the scorers' sandbox."""
POINTS: Final = (
    "after-poll", "before-prepare", "before-read", "after-read", "after-decide", "after-begin", "after-queue",
    "before-add_offsets", "after-add_offsets", "after-flush", "before-commit", "after-commit", "before-apply", "after-apply",
    "after-claim",
)  # fmt: skip


class Points:
    """Looks for orders at each point."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def reach(self, point: str) -> None:
        """Obey the order that waits here, if there is one."""
        path = self._folder / point
        if not path.exists():
            return
        order, *argument = path.read_text().split()
        path.unlink()
        (self._folder / "reached").open("a").write(f"{point} {order}\n")
        if order == "sleep":
            time.sleep(float(argument[0]))
        else:
            os.kill(os.getpid(), signal.SIGKILL if order == "kill" else signal.SIGSTOP)

    def around(self, owner: Any, method: str, name: str | None = None) -> None:
        """Put points before and after a method."""
        call: Callable[..., Any] = getattr(owner, method)
        label = name or method

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.reach(f"before-{label}")
            result = call(*arguments, **named)
            self.reach(f"after-{label}")
            return result

        setattr(owner, method, wrapped)


class SkewedClock(SystemClock):
    """A wall clock that is wrong, and a monotonic one that is not."""

    def __init__(self, skew_ms: int) -> None:
        self._skew_ms = skew_ms

    def now_ms(self) -> int:
        """See :class:`services.runtime.clock.Clock`."""
        return super().now_ms() + self._skew_ms


class VictimProcessor(ScorerProcessor):
    """A scorer's processor that dies of a certain record, as a decoder with a fault in native code does, and raises on others."""

    def prepare(self, records: Records, excluded: Any) -> PreparedTransactions:
        """See :class:`services.worker.processor.Processor`."""
        die_of_poison(records.values, excluded)
        raise_on(RAISES[0], records.values, excluded)
        return super().prepare(records, excluded)

    def decide(self, prepared: PreparedTransactions, *rest: Any) -> ScoredOutcome:
        """See :class:`services.worker.processor.Processor`."""
        outcome = super().decide(prepared, *rest)
        encoded = outcome.outputs

        def encode() -> Sequence[Output]:
            raise_on(RAISES[1], prepared.records.values, prepared.status)
            return list(encoded)

        return replace(outcome, outputs=LateOutputs(bool(encoded), encode, []))


def die_of_poison(values: Sequence[bytes | None], excluded: Any) -> None:
    """Abort the process if a record that is to be decoded holds the mark."""
    for i, value in enumerate(values):
        if value is not None and POISON in value and not np.asarray(excluded)[i]:
            os.abort()


def raise_on(mark: bytes, values: Sequence[bytes | None], excluded: Any) -> None:
    """Raise if a record that is to be decided on holds a mark."""
    for i, value in enumerate(values):
        if value is not None and mark in value and not np.asarray(excluded)[i]:
            raise ValueError(value)


def _hurt_ports(ports: Ports, points: Points) -> None:
    for owner, methods in ((ports.source, ("poll",)), (ports.grid, ("read", "apply", "claim"))):
        for method in methods:
            points.around(owner, method)


def _hurt_producers(points: Points) -> Callable[..., KafkaAtomicProducer]:
    def make_hurt(*arguments: Any) -> KafkaAtomicProducer:
        producer = KafkaAtomicProducer(*arguments)
        for method in ("begin", "queue", "add_offsets", "flush", "commit"):
            points.around(producer, method)
        return producer

    return make_hurt


def build_killable(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:
    """Build the parts of a scorer that dies of certain records."""
    return scorer_parts.parts_with(
        VictimProcessor(None, scorer_parts.safe_default_of(settings)), settings, metrics, health
    )


def killable_in_sandbox(settings: Settings) -> VictimProcessor:
    """Return what the deadly record kills in the sandbox, too."""
    return VictimProcessor(usable_model(settings), scorer_parts.safe_default_of(settings))


def spec_of(name: str) -> ServiceSpec:
    """Return a service as a victim: a scorer dies of certain records, the others are as they are elsewhere."""
    spec = BY_NAME[name]
    return replace(spec, build="tests.chaos.victim:build_killable") if name == "scorer" else spec


def build_victim(
    spec: ServiceSpec, settings: Settings, health: Health, metrics: MetricsRegistry, environment: Mapping[str, str]
) -> Runnable:
    """Build a service's worker and put points around everything that it does; where a service has several workers they have none."""
    if len(spec.logs) > 1:
        return build_service(spec, settings, health, metrics)
    points = Points(environment["PROACT_CHAOS_FOLDER"])
    if "PROACT_CHAOS_QUEUE" in environment:
        ATOMIC["queue.buffering.max.messages"] = int(environment["PROACT_CHAOS_QUEUE"])
    clock = SkewedClock(int(environment.get("PROACT_CHAOS_SKEW_MS", "0")))
    [log] = spec.logs
    parts = parts_of(spec, log)(settings, clock, metrics, health)
    points.around(parts.processor, "prepare")
    points.around(parts.processor, "decide")
    member = membership(spec, log, settings)
    if spec.name == "scorer":
        member = replace(member, sandbox=("tests.chaos.victim", SANDBOX))
    ports = parts.into(build_ports(settings, clock, member, _hurt_producers(points)))
    _hurt_ports(ports, points)
    return build_worker(settings, parts.processor, ports, health, metrics)


def main() -> None:
    """Run with settings from the environment."""
    settings = resolve_settings({})
    if sys.argv[1:] == [SANDBOX]:
        try_records(lambda _: killable_in_sandbox(settings))
        return
    try:
        run_service(
            spec_of(os.environ.get("PROACT_CHAOS_SERVICE", "scorer")),
            settings,
            lambda spec, s, h, m: build_victim(spec, s, h, m, os.environ),
        )
    except Exception as error:  # noqa: BLE001 - the supervisor starts it again, and the run's folder keeps what it said
        sys.exit(f"victim: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
