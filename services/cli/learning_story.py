"""What the demo of learning works with: a running system, what was sent to it, and commands as people say them."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.options import UserError

if TYPE_CHECKING:
    from services.cli.session import Session
    from services.offline.replay.labels import LabelFeed
    from services.offline.replay.producer import TransactionProducer
    from services.offline.simulator.traffic import Traffic

DAY_MS: Final = 86_400_000
PATIENCE_S: Final = 90.0


@dataclass(slots=True)
class Story:
    """A running system, and what was sent to it."""

    session: Session
    folder: Path
    traffic: Traffic
    producer: TransactionProducer
    labels: LabelFeed
    said: list[dict[str, Any]] = field(default_factory=list)

    def days(self, begin: int, end: int) -> None:
        """Send some days as fast as it goes, and wait until they are decided on, remembered and in the lake. Raises UserError."""
        import numpy as np

        from services.offline.replay.producer import Pace

        times_ms = self.traffic.columns.event_time_ms
        first, last = np.searchsorted(
            times_ms, [int(times_ms[0]) // DAY_MS * DAY_MS + day * DAY_MS for day in (begin, end)]
        )
        self.producer.send(self.traffic.take(np.arange(first, last)), Pace(None), labels=self.labels)
        groups = {"card-transactions": "scorer", "fraud-labels": "router", "terminal-events": "profiler"}
        for topic, service in groups.items():
            self.wait(lambda t=topic, s=service: self._lag(t, s) == 0, f"{service} does not work {topic} off")
        self.wait(lambda: self.kept("card_decisions") >= self.producer.sent, "the archiver does not keep the decisions")
        self.wait(lambda: self.kept("fraud_labels") >= self.labels.sent, "the archiver does not keep the labels")

    def _lag(self, topic: str, service: str) -> int | None:
        from services.registry import BY_NAME

        return self.session.admin.group_lag(topic, BY_NAME[service].group_id(self.session.settings, topic))

    def kept(self, table: str) -> int:
        """Return how many rows a table of the lake has."""
        return int(self.ask(f"SELECT count(*) AS n FROM {table}")[0]["n"])  # noqa: S608 - our own tables

    def wait(self, holds: Any, why: str) -> None:
        """Wait until something holds. Raises UserError."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            for name, child in self.session.children.items():
                if child.process.poll() is not None:
                    raise UserError(f"the {name} ended; its log is in {self.folder}")
            if time.monotonic() > deadline_s:
                raise UserError(f"{why} within {PATIENCE_S:.0f} s; the logs are in {self.folder}")
            time.sleep(0.3)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query of the lake; none before there are tables."""
        from services.cli.lake import ARCHIVED
        from services.lake.queries import Lake
        from services.lake.table import LakeError

        try:
            found: list[dict[str, Any]] = Lake(self.session.settings.lake_url, ARCHIVED).query(sql).to_pylist()
        except LakeError:
            return [{"n": 0}]
        return found

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a command of ours, as a person would, and return its last line. Raises UserError."""
        from services.subprocesses import run_tied

        own = self.session.settings
        where = {
            "PROACT_KAFKA_BOOTSTRAP_SERVERS": str(own.kafka_bootstrap_servers), "PROACT_LAKE_URL": own.lake_url,
            "PROACT_MODELS_PATH": own.models_path, "PROACT_REDIS_URL": str(own.redis_url.reveal()),
        }  # fmt: skip
        shown = [a.removeprefix(f"{self.folder}/") for a in arguments]
        click.echo(f"  $ proact {shlex.join(shown)}")
        done = run_tied(
            [sys.executable, "-m", "services.cli.main", *arguments], text=True, env={**os.environ, **where},
            timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise UserError(
                f"proact {arguments[0]} failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[-1]}"
            )
        last: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        self.said.append(last)
        return last

    def recall(self, begin: int, end: int) -> dict[str, Any]:
        """Return how much of the frauds of some days was not approved, all of them and those of the new pattern."""
        import numpy as np

        from services.offline.simulator.waves import RELAY

        found = self.ask("SELECT transaction_id AS id, action FROM card_decisions WHERE action != 'APPROVE'")
        columns = self.traffic.columns
        kind = np.dtype((np.void, 16))
        stopped = {bytes.fromhex(str(one["id"]).replace("-", "")) for one in found}
        ids = columns.transaction_id.copy().view(kind).reshape(-1).tolist()
        caught = np.fromiter((one in stopped for one in ids), bool, len(ids))
        day = (columns.event_time_ms - columns.event_time_ms[0] // DAY_MS * DAY_MS) // DAY_MS
        some = (day >= begin) & (day < end)
        fraud, new = self.traffic.scenario > 0, self.traffic.scenario == RELAY
        return {
            "recall": _share(caught[some & fraud]),
            "recall_new": _share(caught[some & new]),
            "good_sales_stopped": _share(caught[some & ~fraud]),
        }


def _share(caught: Any) -> float | None:
    return round(float(caught.mean()), 4) if len(caught) else None
