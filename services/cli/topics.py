"""``proact topics`` and ``proact topology``."""

from __future__ import annotations

import json
import time

import click

from services.cli.options import UserError, example, with_settings
from services.runtime.remedies import with_remedy
from services.runtime.settings import TOPIC_SCALES, Settings


@click.group()
def topics() -> None:
    """Create the topics of schemas/, or show them."""


@topics.command(epilog=example("proact topics apply --partitions 12"))
@with_settings("kafka_bootstrap_servers", *TOPIC_SCALES)
@click.option(
    "--wait-s", default=0.0, show_default=True, type=click.FloatRange(0, 600), help="How long to wait for Kafka."
)
def apply(settings: Settings, wait_s: float) -> None:
    """Create what is missing and set the settings of the rest; never changes a number of partitions."""
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.topology import topic_plans

    admin, until_s = KafkaAdmin(settings.kafka), time.monotonic() + wait_s
    while not admin.answers() and time.monotonic() < until_s:
        time.sleep(0.2)
    try:
        done = admin.apply(topic_plans(settings.topic_counts))
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None
    for name, what in done.items():
        click.echo(f"{name:<20} {what}")


@topics.command(epilog=example("proact topics show --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """Show every topic as schemas/ describes it; needs no Kafka."""
    from services.codec.schemas import topics as known
    from services.topology import describe_topic

    if as_json:
        described = {
            t.name: {
                "key": t.key, "partitions": t.partitions, "retention_days": t.retention_days,
                "max_message_bytes": t.max_message_bytes, "producers": t.producers, "consumers": t.consumers,
                "fingerprints": {f"v{s.version}": s.header[2:].hex() for s in t.versions},
            }
            for t in known().values()
        }  # fmt: skip
        click.echo(json.dumps(described))
        return
    for topic in known().values():
        click.echo(describe_topic(topic))


@click.command(epilog=example("proact topology"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def topology(as_json: bool) -> None:
    """Show which service reads and writes which topic."""
    from services.topology import edges, render

    click.echo(json.dumps([list(edge) for edge in edges()]) if as_json else render())
