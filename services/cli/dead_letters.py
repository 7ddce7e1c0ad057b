"""``proact dead-letters``."""

from __future__ import annotations

import json
from functools import partial

import click

from services.cli.options import UserError, example, progress, with_settings
from services.core.validation import Reject
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

_REASONS = [reason.name for reason in Reject if reason is not Reject.NONE]


@click.group("dead-letters", epilog=example("proact dead-letters redrive --dry-run"))
def dead_letters() -> None:
    """What to do with refused records; to look at them: `proact tail dead-letters`."""


@dead_letters.command(epilog=example("proact dead-letters redrive --reason UNKNOWN_CURRENCY"))
@with_settings("kafka_bootstrap_servers")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    type=click.Choice(_REASONS, case_sensitive=False),
    help="Only these; may be said again.",
)
@click.option(
    "--group", default="proact-redrive", show_default=True, help="Who remembers which letters were looked at."
)
@click.option("--dry-run", is_flag=True, help="Count what would be sent, and send nothing.")
def redrive(settings: Settings, reasons: tuple[str, ...], group: str, dry_run: bool) -> None:
    """Send refused records to their topic again, each once: letters that were looked at are not looked at again.

    Letters that were masked or cut are not the original any more, and those that kill a scorer would again: they are
    passed over, as are those of other reasons. The result is one JSON object.
    """
    from services.cli.traffic import require_topics
    from services.offline.replay.redrive import TOPIC, Redrive
    from services.runtime.clock import SystemClock
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.atomic import AtomicPublisher
    from services.streams.kafka import KafkaSource
    from services.streams.publishers import KafkaAtomicProducer

    kafka = settings.kafka
    require_topics(KafkaAdmin(kafka))
    source = KafkaSource(kafka, group, TOPIC)
    publisher = AtomicPublisher(
        group, partial(KafkaAtomicProducer, kafka, source.topic), source.group_metadata, SystemClock().monotonic_s
    )
    try:
        done = Redrive(source, publisher, frozenset(reasons), 1_000).run(
            lambda so_far: progress(f"{so_far.sent.total():,} sent, {so_far.passed.total():,} passed over"), dry=dry_run
        )
    except StreamsError as error:
        raise UserError(f"{with_remedy(error)}; say it again, nothing is sent twice") from None
    finally:
        publisher.close()
        source.close()
    click.echo(json.dumps({"dry_run": dry_run, "sent": dict(done.sent), "passed_over": dict(done.passed)}))
