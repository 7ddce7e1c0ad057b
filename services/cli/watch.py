"""``proact watch`` and ``proact tail``: looking at what comes out."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from services.cli.options import UserError, example, progress, with_settings
from services.core.policy import Action, AlertKind, Severity
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.observer.choosing import Choice
    from services.streams.reader import KafkaReader

LAG_EVERY_S = 1.0
REPORTED_AFTER_S = 1.0
"""How long nothing may come before it is said that something is waited for: the first records of a topic take a moment."""


def json_ready(record: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded record with its identifiers as UUIDs and its other bytes as text or base64."""
    from services.observer.view import uuid_text

    ready: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, bytes):
            ready[name] = uuid_text(value) if name.endswith("_id") else base64.b64encode(value).decode()
        elif name == "features":
            ready[name] = [None if x != x else x for x in value]  # noqa: PLR0124 - NaN, which JSON has not
        else:
            ready[name] = value
    return ready


@click.command(epilog=example("proact watch --seconds 60"))
@with_settings("kafka_bootstrap_servers", "group_id")
@click.option("--seconds", default=None, type=click.FloatRange(0.1), help="Stop after this long; else on Ctrl-C.")
def watch(settings: Settings, seconds: float | None) -> None:
    """Show rate, lag, latency, decisions by action and the latest alerts, from now on."""
    from services.cli.live import LiveView
    from services.observer.tally import OUTPUTS, Tally
    from services.observer.view import Progress
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.reader import KafkaReader

    admin, tally = KafkaAdmin(settings.kafka), Tally()
    try:
        admin.partitions()
        reader = KafkaReader(settings.kafka, OUTPUTS, from_beginning=False)
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None
    until = None if seconds is None else time.monotonic() + seconds
    lag, asked_s = None, 0.0
    try:
        with LiveView() as view:
            while until is None or time.monotonic() < until:
                if time.monotonic() - asked_s > LAG_EVERY_S:
                    lag, asked_s = admin.group_lag("card-transactions", settings.group_id), time.monotonic()
                for records in reader.read(0.1):
                    tally.add(records, time.time_ns() // 1_000_000, time.monotonic())
                view.show(tally, Progress("live", lag))
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()


_SHOWN = ["card-decisions", "card-alerts", "dead-letters", "card-reassessments"]


@click.command(
    epilog=example(
        "proact tail card-alerts --since 2h --severity HIGH --severity MEDIUM\n"
        "  proact tail card-alerts --kind DECLINE --limit 10 --json\n"
        "  proact tail card-decisions --card card-000042 --since 2026-01-31T09:30Z"
    )
)
@with_settings("kafka_bootstrap_servers")
@click.argument("topic", type=click.Choice(_SHOWN, case_sensitive=False), metavar="TOPIC")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--limit", default=None, type=click.IntRange(1), help="Stop after so many records.")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record, not with the next one.")
@click.option(
    "--since",
    default=None,
    metavar="AGO|TIME",
    help="Begin with what came so long ago (90s, 10m, 2h, 3d) or at a time (ISO 8601).",
)
@click.option("--card", default=None, metavar="TOKEN", help="Only of this card.")
@click.option(
    "--severity",
    multiple=True,
    type=click.Choice([s.name for s in Severity], case_sensitive=False),
    help="Only such alerts; may be said again.",
)
@click.option(
    "--kind",
    multiple=True,
    type=click.Choice([k.name for k in AlertKind], case_sensitive=False),
    help="Only alerts about this.",
)
@click.option(
    "--action",
    multiple=True,
    type=click.Choice([a.name for a in Action], case_sensitive=False),
    help="Only where this was done; may be said again.",
)
@click.option("--seconds", default=None, type=click.FloatRange(0.1), help="Stop after this long; else on Ctrl-C.")
def tail(
    settings: Settings, topic: str, as_json: bool, limit: int | None, from_beginning: bool, since: str | None,
    seconds: float | None, **chosen: Any,
) -> None:  # fmt: skip
    """Print the records of an output topic as they come: an alert with its time (UTC) and its transaction in front.

    TOPIC is card-decisions, card-alerts, dead-letters or card-reassessments.
    """
    from services.observer.choosing import Choice, parse_since
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.reader import KafkaReader

    if since is not None and from_beginning:
        raise UserError("--since and --from-beginning say two different things: leave one out")
    try:
        choice = Choice(topic, **chosen)
    except ValueError as error:
        raise UserError(with_remedy(error)) from None
    try:
        since_ms = None if since is None else parse_since(since, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise UserError(f"--since {error}") from None
    try:
        KafkaAdmin(settings.kafka).partitions()
        reader = KafkaReader(settings.kafka, [topic], from_beginning=from_beginning, since_ms=since_ms)
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None
    waits = "waiting for new records"
    if since is None and not from_beginning:
        waits += "; --from-beginning or --since 1h shows what is there"
    print_as_they_come(reader, choice, as_json, limit, (None if seconds is None else time.monotonic() + seconds, waits))


def print_as_they_come(
    reader: KafkaReader, choice: Choice, as_json: bool, limit: int | None, end: tuple[float | None, str]
) -> None:
    """Print what comes up to a time, or for ever; while nothing has, say once that it is waited for."""
    from services.observer.tally import decoded

    printed, (until, waits), tell_at = 0, end, time.monotonic() + REPORTED_AFTER_S
    try:
        while (until is None or time.monotonic() < until) and (limit is None or printed < limit):
            if waits and not printed and time.monotonic() > tell_at:
                progress(waits)
                waits = ""
            for records in reader.read(0.2):
                chosen = [record for record in decoded(choice.values(records)) if choice.takes(record)]
                for record in chosen[: None if limit is None else limit - printed]:
                    ready = json_ready(record)
                    click.echo(json.dumps(ready) if as_json else _line(choice.topic, ready))
                    printed += 1
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()  # a closed pipe is how `| head` says that it has seen enough
    finally:
        reader.close()


def _line(topic: str, record: dict[str, Any]) -> str:
    from services.observer.view import alert_line, score_text, time_text

    if topic == "card-alerts":
        return alert_line(record)
    if topic == "dead-letters":
        at = f"{record['source_topic']}[{record['source_partition']}]@{record['source_offset']}"
        return f"{record['reason']:<20} {at} {record['value_bytes']} bytes"
    if topic == "card-reassessments":
        was = f"{record['decided_action']:<9} on {record['decided_fallback_tier']:<12}"
        said = f"{was} would be {record['action']:<9} {record['card_id']}"
        return f"{time_text(record['event_time_ms'])} {record['transaction_id']} {said}"
    marks = " repeat" * record["repeat"] + "".join(f" {what}" for what in record["degraded"])
    marks += "" if record.get("fallback_tier", "CHAMPION") == "CHAMPION" else f" {record['fallback_tier']}"
    said = f"{record['action']:<9} {score_text(record['score'], 4)} {record['card_id']}{marks}"
    return f"{time_text(record['event_time_ms'])} {record['transaction_id']} {said}"
