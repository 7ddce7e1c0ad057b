"""``proact watch`` and ``proact tail``: looking at what comes out."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import click

from services.commands.options import UserError, example, with_settings
from services.runtime.config import Settings

LAG_EVERY_S = 1.0


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
    from services.commands.live import LiveView
    from services.observer.tally import OUTPUTS, Tally
    from services.observer.view import Progress
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.reader import KafkaReader

    admin, tally = KafkaAdmin(settings.kafka_bootstrap_servers), Tally()
    try:
        admin.partitions()
        reader = KafkaReader(settings.kafka_bootstrap_servers, OUTPUTS, from_beginning=False)
    except StreamsError as error:
        raise UserError(str(error)) from None
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


@click.command(epilog=example("proact tail card-alerts --json --limit 10"))
@with_settings("kafka_bootstrap_servers")
@click.argument("topic", type=click.Choice(["card-decisions", "card-alerts", "dead-letters", "card-reassessments"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--limit", default=None, type=click.IntRange(1), help="Stop after so many records.")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record, not with the next one.")
@click.option("--seconds", default=None, type=click.FloatRange(0.1), help="Stop after this long; else on Ctrl-C.")
def tail(
    settings: Settings, topic: str, as_json: bool, limit: int | None, from_beginning: bool, seconds: float | None
) -> None:
    """Print the records of an output topic as they come."""
    from services.observer.tally import decoded
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.reader import KafkaReader

    try:
        KafkaAdmin(settings.kafka_bootstrap_servers).partitions()
        reader = KafkaReader(settings.kafka_bootstrap_servers, [topic], from_beginning=from_beginning)
    except StreamsError as error:
        raise UserError(str(error)) from None
    until = None if seconds is None else time.monotonic() + seconds
    printed = 0
    try:
        while (until is None or time.monotonic() < until) and (limit is None or printed < limit):
            for records in reader.read(0.2):
                for record in decoded(records.values)[: None if limit is None else limit - printed]:
                    click.echo(json.dumps(json_ready(record)) if as_json else _line(topic, json_ready(record)))
                    printed += 1
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()  # a closed pipe is how `| head` says that it has seen enough
    finally:
        reader.close()


def _line(topic: str, record: dict[str, Any]) -> str:
    from services.observer.view import alert_line, score_text

    if topic == "card-alerts":
        return alert_line(record)
    if topic == "dead-letters":
        at = f"{record['source_topic']}[{record['source_partition']}]@{record['source_offset']}"
        return f"{record['reason']:<20} {at} {record['value_bytes']} bytes"
    if topic == "card-reassessments":
        was = f"{record['decided_action']:<9} on {record['decided_rung']:<12}"
        return f"{was} would be {record['action']:<9} {record['card_id']} {record['transaction_id']}"
    marks = " repeat" * record["repeat"] + "".join(f" {what}" for what in record["degraded"])
    marks += "" if record.get("rung", "CHAMPION") == "CHAMPION" else f" {record['rung']}"
    return (
        f"{record['action']:<9} {score_text(record['score'], 4)} {record['card_id']} {record['transaction_id']}{marks}"
    )
