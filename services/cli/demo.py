"""``proact demo``: a month of simulated traffic and then some live, through the real thing, and stopped again."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from services.cli.options import UserError, example, interruptible, progress, with_settings
from services.runtime.settings import TOPIC_SCALES, Settings

if TYPE_CHECKING:
    from services.cli.live import LiveView
    from services.cli.session import Session
    from services.offline.replay.labels import LabelFeed
    from services.offline.replay.producer import TransactionProducer
    from services.offline.simulator.reference import SimulatedReference
    from services.offline.simulator.traffic import Traffic
    from services.streams.sink import KafkaSink

CARDS, DAYS = 5_000, 30
DAMAGED = 25
"""Records that no producer should send, put among the others to show what becomes of them."""
ANSWER_TIMEOUT_S = 60.0
LAG_EVERY_S = 0.5
RULES = {
    "rules": [
        {
            "id": "large-online",
            "when": "transaction.entry_mode == 'ECOMMERCE' && transaction.amount > 2 * card.mean_with_current_30d && transaction.amount > 60",
            "action": "CHALLENGE",
            "reason": "more than twice the usual, online",
        }
    ]
}
"""What goes live while the traffic flows."""
RULES_AFTER = 0.3
"""Of the live part."""
ALERTS_SHOWN = 3


@click.command(epilog=example("proact demo --rate 500 --seconds 20"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="The simulation's seed.")
@click.option(
    "--rate", default=500.0, show_default=True, type=click.FloatRange(1, 20_000), help="Live transactions a second."
)
@click.option(
    "--seconds", default=20, show_default=True, type=click.IntRange(1, 600), help="How long the live part lasts."
)
def demo(settings: Settings, seed: int, rate: float, seconds: int) -> None:
    """Start everything, stream a month and live traffic through it, show it, sum it up, and stop everything.

    The last line is one JSON object. It uses ports of its own and a folder below the data folder, nothing else.
    """
    from services.cli.session import running_session
    from services.observer.view import alert_line
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError

    folder = Path(settings.data_folder) / "demo"
    try:
        with claimed(folder, "a demo"):  # before it simulates for half a minute
            month, live = _traffic(seed, int(rate * seconds))
            people = _people(month.joined(live), seed)
            with interruptible(), running_session(settings, folder, progress) as session:
                result = _run(session, people, (month, live), rate, seed)
    except (StackError, StreamsError, ChildError) as error:
        raise UserError(str(error)) from None
    _summary(result)
    for alert in list(session.tally.recent_alerts)[-ALERTS_SHOWN:]:
        click.echo(f"  {alert_line(alert)}")
    click.echo("Everything that was started is stopped.")
    click.echo(json.dumps(result))


def _traffic(seed: int, live: int) -> tuple[Traffic, Traffic]:
    from services.cli.traffic import DAY_MS, history_and_live, live_days

    progress(f"simulating {CARDS:,} cards, {DAYS} days and what follows, seed {seed}")
    start_ms = (time.time_ns() // 1_000_000 // DAY_MS - DAYS - live_days(CARDS, live)) * DAY_MS
    return history_and_live(CARDS, DAYS, seed, start_ms, "default", live)


def _people(traffic: Traffic, seed: int) -> SimulatedReference:
    """Make up what the bank knows of everybody: before anything runs, since an interrupt in numba's loading of a kernel ends the process hard."""
    from services.offline.simulator.reference import simulate_reference

    return simulate_reference(traffic.columns, traffic.scenario == 0, seed)


class _Sender(threading.Thread):
    """Does something in a thread of its own, so that the observer never waits for it."""

    def __init__(self, work: Any) -> None:
        super().__init__(name="sender", daemon=True)
        self._work = work
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for this one
            self.error = error


def _run(
    session: Session, people: SimulatedReference, traffic: tuple[Traffic, Traffic], rate: float, seed: int
) -> dict[str, Any]:
    from services.cli.live import LiveView
    from services.offline.replay.labels import LabelFeed, simulated_truth
    from services.offline.replay.producer import Pace, TransactionProducer
    from services.runtime.clock import SystemClock
    from services.streams.sink import KafkaSink

    month, live = traffic
    sink, stopped = KafkaSink(session.settings.kafka), threading.Event()
    producer, labels = TransactionProducer(sink, SystemClock()), LabelFeed(sink, simulated_truth(month, seed))
    try:
        _announce_people(session, sink, people)
        with LiveView() as view:
            begin_s = time.monotonic()
            _phase(
                session,
                view,
                producer,
                "a month of traffic, as fast as it goes",
                lambda: _send_month(producer, month, labels, stopped),
            )
            assert session.tally.last_at_s
            throughput = session.answered / (session.tally.last_at_s - begin_s)
            batches = len(session.tally.latencies_ms)
            change = _RuleChange(session, RULES_AFTER * len(live) / rate)
            change.start()
            _phase(
                session, view, producer, f"live traffic, {rate:,.0f} a second",
                lambda: producer.send(live, Pace.at_rate(len(live), rate), labels=labels, stop=stopped.is_set),
            )  # fmt: skip
            change.join(ANSWER_TIMEOUT_S)
    finally:
        stopped.set()
        sink.close()
    return _result(session, producer.sent, traffic, throughput, batches) | {"rule_change": change.result()}


def _announce_people(session: Session, sink: KafkaSink, people: SimulatedReference) -> None:
    """Send what the bank knows of the people, and wait until the grid knows it. Raises UserError when it does not."""
    from services.codec.reference import ACCOUNTS, CUSTOMERS
    from services.offline.replay.reference import send_reference

    sent = send_reference(sink, people, time.time_ns() // 1_000_000)
    if not sink.flush(ANSWER_TIMEOUT_S):
        raise UserError("Kafka does not take the accounts and customers")
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while any(session.admin.group_lag(t, session.settings.reference_group(t)) != 0 for t in (ACCOUNTS, CUSTOMERS)):
        if time.monotonic() > deadline_s:
            raise UserError("accounts and customers do not come into the grid; the reference service's log says why")
        time.sleep(0.1)
    progress(f"{sent:,} accounts and customers are in the grid")


class _RuleChange(_Sender):
    """Puts rules live while the traffic flows, and measures until the last scorer runs them."""

    def __init__(self, session: Session, after_s: float) -> None:
        super().__init__(self._change)
        self._session, self._after_s, self._took_s = session, after_s, 0.0

    def _change(self) -> None:
        from services.core.rules.rule_set import read_rule_set
        from services.rulebook.book import Rulebook
        from services.runtime.clock import SystemClock

        time.sleep(self._after_s)
        book = Rulebook(self._session.settings.kafka, SystemClock())
        self._session.tally.rules = Counter()
        begin_s = time.monotonic()
        version = book.save(read_rule_set(RULES), "demo")
        book.put_live(version, "demo")
        waited = book.wait(version, ANSWER_TIMEOUT_S)
        self._took_s = time.monotonic() - begin_s
        progress(
            f"a rule set went live in {len(waited.running)} workers within {self._took_s:.2f} s: {RULES['rules'][0]['when']}"
        )

    def result(self) -> dict[str, Any]:
        """Return what came of it. Raises UserError when nothing did."""
        if self.error is not None or self.is_alive():
            raise UserError(f"the rules did not go live: {self.error or 'no scorer says so'}")
        return {"took_s": round(self._took_s, 3), "decided": sum((self._session.tally.rules or Counter()).values())}


def _send_month(producer: TransactionProducer, month: Traffic, labels: LabelFeed, stopped: threading.Event) -> None:
    from services.offline.replay.producer import Pace

    producer.send_raw([b"card-%06d" % i for i in range(DAMAGED)], [bytes([i, 255, i]) * i for i in range(DAMAGED)])
    producer.send(month, Pace(None), labels=labels, stop=stopped.is_set)


def _phase(session: Session, view: LiveView, producer: TransactionProducer, title: str, work: Any) -> None:
    """Send, and observe until everything that was sent is answered. Raises UserError when it is not."""
    from services.observer.view import Progress

    sender = _Sender(work)
    sender.start()
    quiet_since, answered, lag, asked_s = time.monotonic(), -1, None, 0.0
    while sender.is_alive() or session.answered < producer.sent:
        session.observe()
        now_s = time.monotonic()
        if now_s - asked_s > LAG_EVERY_S:
            lag, asked_s = session.admin.group_lag("card-transactions", session.settings.group_id), now_s
        view.show(session.tally, Progress(title, lag, producer.sent))
        if session.answered != answered:
            quiet_since, answered = now_s, session.answered
        for name, child in session.children.items():
            if child.process.poll() is not None:
                raise UserError(f"the {name} ended; its log is in the demo's folder")
        if now_s - quiet_since > ANSWER_TIMEOUT_S:
            raise UserError(f"{session.answered:,} of {producer.sent:,} are answered, and no more come")
    if sender.error is not None:
        raise UserError(str(sender.error))
    view.show(session.tally, Progress(title, 0, producer.sent), now=True)


def _result(
    session: Session, sent: int, traffic: tuple[Traffic, Traffic], throughput: float, batches: int
) -> dict[str, Any]:
    import numpy as np

    from services.core.policy import Action
    from services.observer.tally import ALERTS, DEAD_LETTERS, distinct_actions, precision_recall

    tally = session.tally
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while tally.records[ALERTS] < int(tally.actions[1:].sum()) and time.monotonic() < deadline_s:
        session.observe(0.2)  # alerts come beside their decisions, on another topic
    ids, actions = distinct_actions(tally.transaction_ids, tally.kept_actions)
    truth = np.concatenate([part.columns.transaction_id for part in traffic])
    fraud = np.concatenate([part.scenario for part in traffic]) > 0
    precision, recall = precision_recall(ids, actions, truth, fraud)
    latency = tally.latency_ms(slice(batches, None))
    assert latency is not None
    return {
        "transactions": sent,
        "decisions": len(ids),
        "dead_letters": tally.records[DEAD_LETTERS],
        "alerts": tally.records[ALERTS],
        "actions": {a.name: int((actions == a).sum()) for a in Action},
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "throughput_per_s": round(throughput),
        "latency_ms": {"p50": round(latency[0], 1), "p99": round(latency[1], 1)},
    }


def _summary(result: dict[str, Any]) -> None:
    latency, actions = result["latency_ms"], result["actions"]
    lost = result["transactions"] - result["decisions"] - result["dead_letters"]
    click.echo("")
    click.echo(f"{result['transactions']:>9,} transactions sent")
    click.echo(
        f"{result['decisions']:>9,} decided: " + ", ".join(f"{count:,} {name}" for name, count in actions.items())
    )
    click.echo(f"{result['dead_letters']:>9,} refused, with a reason, as dead letters; {lost} lost")
    click.echo(f"{result['alerts']:>9,} alerts, with reasons")
    click.echo(f"{result['throughput_per_s']:>9,} a second while the month went through")
    click.echo(
        f"{latency['p50']:>9.0f} ms from due to decision, live, half of the time; {latency['p99']:.0f} ms 99 of 100 times"
    )
    click.echo(
        f"{result['recall']:>9.0%} of frauds not approved; {result['precision']:.0%} of what was not approved is fraud"
    )
    change = result["rule_change"]
    click.echo(
        f"{change['took_s']:>9.2f} s until a rule set that changed under way ran everywhere; it then decided on {change['decided']:,}"
    )
    click.echo("The latest alerts:")
