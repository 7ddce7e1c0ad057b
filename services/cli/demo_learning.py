"""``proact demo-learning``: a fraud that the live model never saw, until a model that was trained on it decides."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.learning_story import DAY_MS, Story
from services.cli.options import UserError, example, interruptible, progress, with_settings
from services.runtime.settings import TOPIC_SCALES, Settings

if TYPE_CHECKING:
    from services.cli.session import Session
    from services.offline.simulator.traffic import Traffic

CARDS: Final = 2_500
BEGINS, KNOWN, CANARY, LIVE, END = 40, 58, 61, 64, 72
"""Days: when the fraud begins, when a model is trained, when that one decides for a few cards, for all, and when it is over."""
SHARE_PER_DAY: Final = 0.004
"""Of all cards, how many thieves relay on a day."""
DELAY_DAYS: Final = 7
SHARE: Final = 0.3
"""Of the cards that the canary decides on."""
PROPOSER, APPROVER = "ana", "bo"


@click.command("demo-learning", epilog=example("proact demo-learning --seed 3"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="The simulation's seed.")
def demo_learning(settings: Settings, seed: int) -> None:
    """See a new fraud begin that the live model misses; train on what was decided, try the model, put it live, with traffic flowing.

    Some six minutes. The last line is one JSON object. It uses ports of its own and a folder below the data folder, nothing else.
    """
    from services.cli.session import running_session
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError

    folder, begun_s = (Path(settings.data_folder) / "demo-learning").absolute(), time.monotonic()
    own = settings.with_values(models_path=str(folder / "models"), lake_interval_ms=1_000)
    try:
        with claimed(folder, "a demo"):
            traffic = _traffic(seed)
            _begin_anew(folder)
            with interruptible(), running_session(own, folder, progress) as session:
                result = _tell(session, folder, traffic, seed)
    except (StackError, StreamsError, ChildError) as error:
        raise UserError(str(error)) from None
    click.echo("Everything that was started is stopped.")
    click.echo(json.dumps(result | {"took_s": round(time.monotonic() - begun_s)}))


def _traffic(seed: int) -> Traffic:
    from services.offline.simulator.generate import simulate
    from services.offline.simulator.waves import with_relays

    progress(
        f"simulating {CARDS:,} cards and {END} days, seed {seed}; from day {BEGINS} on thieves relay contactless cards"
    )
    start_ms = (time.time_ns() // 1_000_000 // DAY_MS - END - 1) * DAY_MS
    return with_relays(simulate(CARDS, END, seed, start_ms), seed, start_ms + BEGINS * DAY_MS, SHARE_PER_DAY)


def _begin_anew(folder: Path) -> None:
    """Remove the lake and the models of the demo before: the lake's offsets are of a Kafka that is gone."""
    import shutil

    for name in ("lake", "models"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _tell(session: Session, folder: Path, traffic: Traffic, seed: int) -> dict[str, Any]:
    from services.offline.replay.labels import LabelFeed, simulated_truth
    from services.offline.replay.producer import TransactionProducer
    from services.runtime.clock import SystemClock
    from services.streams.sink import KafkaSink

    sink = KafkaSink(session.settings.kafka)
    try:
        labels = LabelFeed(sink, simulated_truth(traffic, seed))
        story = Story(session, folder, traffic, TransactionProducer(sink, SystemClock()), labels)
        model, trained = _learn(story)
        return _release(story, model) | {"trained": trained}
    finally:
        sink.close()


def _learn(story: Story) -> tuple[str, dict[str, Any]]:
    """Let the fraud begin, and train on it; return the model's name and what its training said."""
    _title(f"Days 1 to {BEGINS}: what the live model knows")
    story.days(0, BEGINS)
    _show("the live model", story.recall(0, BEGINS))
    _title(f"Days {BEGINS + 1} to {KNOWN}: thieves relay contactless cards")
    story.days(BEGINS, KNOWN)
    _show("the live model", story.recall(BEGINS, KNOWN))
    drifted = story.command(
        "drift", "--from", _day(story.traffic, BEGINS), "--until", _day(story.traffic, KNOWN),
        "--baseline-from", _day(story.traffic, BEGINS - 10), "--baseline-until", _day(story.traffic, BEGINS),
        "--output", str(story.folder / "drift"),
    )  # fmt: skip
    farthest = ", ".join(f"{one['name']} {one['stability_index']:.3f}" for one in drifted["features"][:4])
    click.echo(f"  what drifted most, by stability index: {farthest}; the page: {story.folder / 'drift/drift.html'}")
    _title("Labels came for most of it: train on what was decided, and try the model on it in money")
    until = _day(story.traffic, KNOWN)
    output = story.folder / "models/fraud/v5"
    trained = story.command(
        "train",
        "--from-lake",
        "--until",
        until,
        "--replayed",
        "--label-delay-days",
        str(DELAY_DAYS),
        "--output",
        str(output),
    )
    policy = story.folder / "policy.yaml"
    policy.write_text("model: models/fraud/v5\n")
    tried = story.command(
        "backtest", str(policy), "--from", _day(story.traffic, BEGINS), "--until", until, "--replayed",
        "--output", str(story.folder / "backtest"),
    )  # fmt: skip
    click.echo(f"  the page: {story.folder / 'backtest/backtest.html'}")
    return "fraud/v5", {
        "version": trained["version"],
        "drift": {one["name"]: one["stability_index"] for one in drifted["features"][:4]},
        "backtest": _money(tried),
    }


def _release(story: Story, model: str) -> dict[str, Any]:
    """Take the model from the shadow to all cards; return the figures of before and after."""
    _title(f"Days {KNOWN + 1} to {CANARY}: the new model in the shadow")
    story.command(
        "models", "release", model, "--stage", "shadow", "--reason", "contactless relays", "--author", PROPOSER
    )
    story.days(KNOWN, CANARY)
    story.wait(lambda: story.kept("shadow_decisions") > 0, "the archiver does not keep shadow decisions")
    flips = story.ask("SELECT decided_action, action, count(*) AS n FROM shadow_decisions GROUP BY ALL ORDER BY n DESC")
    for one in flips[:5]:
        click.echo(f"  {one['n']:>8,} were {one['decided_action']}, would have been {one['action']}")
    _title(f"Days {CANARY + 1} to {LIVE}: it decides for {SHARE:.0%} of the cards, once another person approves")
    story.command(
        "models",
        "release",
        model,
        "--stage",
        "canary",
        "--share",
        str(SHARE),
        "--alert-share-max",
        "0.2",
        "--author",
        PROPOSER,
    )
    canary = story.command("models", "approve", model, "--author", APPROVER)
    story.days(CANARY, LIVE)
    _title(f"Days {LIVE + 1} to {END}: live for all cards")
    story.command("models", "promote", model, "--author", PROPOSER)
    live = story.command("models", "approve", model, "--author", APPROVER)
    story.days(LIVE, END)
    return _compare(story) | {
        "shadow_decisions": sum(int(one["n"]) for one in flips),
        "canary_s": canary["took_s"],
        "live_s": live["took_s"],
    }


def _compare(story: Story) -> dict[str, Any]:
    """Return how each transaction was answered, and what was stopped before and after."""
    before, after = story.recall(BEGINS, KNOWN), story.recall(LIVE, END)
    _show("the model before", before)
    _show("the new model", after)
    decided = story.ask(
        "SELECT count(*) AS n, count(DISTINCT transaction_id) AS one, count(*) FILTER (model_version = 'v5') AS new FROM card_decisions"
    )[0]
    return {
        "transactions": story.producer.sent,
        "lost": story.producer.sent - int(decided["one"]),
        "twice": int(decided["n"] - decided["one"]),
        "by_new_model": int(decided["new"]),
        "before": before,
        "after": after,
    }


def _day(traffic: Traffic, day: int) -> str:
    first_ms = int(traffic.columns.event_time_ms[0]) // DAY_MS * DAY_MS
    return datetime.fromtimestamp((first_ms + day * DAY_MS) / 1000, UTC).date().isoformat()


def _money(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found["measures"][name] for name in ("net_value_eur", "fraud_stopped_eur")}


def _title(text: str) -> None:
    click.echo(f"\n{text}")


def _show(who: str, found: dict[str, Any]) -> None:
    new = "" if found["recall_new"] is None else f", {found['recall_new']:.0%} of the new kind"
    click.echo(
        f"  {who} stops {found['recall']:.0%} of the frauds{new}; and {found['good_sales_stopped']:.2%} of the good sales"
    )
