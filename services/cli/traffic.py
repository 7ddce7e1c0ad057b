"""``proact simulate`` and ``proact replay``: transactions into Kafka or into a file."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.options import UserError, counted, example, progress, with_settings
from services.offline.simulator.generate import CARDS_MAX, DAYS_MAX, PRESETS
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.offline.simulator.reference import SimulatedReference
    from services.offline.simulator.traffic import Traffic

DAY_MS = 86_400_000
REFERENCE_FLUSH_S = 30.0


def first_day_ms(start: str | None, days: int, now_ms: int) -> int:
    """Return the midnight that a history begins at: ``start``, or such that it ends with yesterday. Raises UserError."""
    if start is None:
        return (now_ms // DAY_MS - days) * DAY_MS
    try:
        day = date.fromisoformat(start)
    except ValueError:
        raise UserError(f"--start must be a day such as 2026-01-31, not {start!r}") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def live_days(cards: int, count: int) -> int:
    """Return how many more days hold ``count`` transactions, with some to spare."""
    from services.offline.simulator.generate import PER_DAY

    return int(1.5 * count / (PER_DAY * cards)) + 2


def history_and_live(
    cards: int, days: int, seed: int, start_ms: int, preset: str, live: int
) -> tuple[Traffic, Traffic]:
    """Return a history of ``days`` and the ``live`` transactions that come after it. Raises UserError if there are fewer."""
    import numpy as np

    from services.offline.simulator.generate import simulate as generate

    wanted_days = days + live_days(cards, live)
    if wanted_days > DAYS_MAX:
        raise UserError(f"{cards} cards take {wanted_days:,} days to make {live:,} transactions: give more --cards")
    traffic = generate(cards, wanted_days, seed, start_ms, preset)
    edge = int(np.searchsorted(traffic.columns.event_time_ms, start_ms + days * DAY_MS))
    if len(traffic) < edge + live:
        raise UserError(f"{cards} cards do not make {live} transactions: give more --cards")
    return traffic.take(np.arange(edge)), traffic.take(np.arange(edge, edge + live))


@click.command(
    epilog=example(
        "proact simulate --cards 5000 --days 30 --seed 7\n  proact simulate --rate 500 --seconds 20 --days 30"
    )
)
@with_settings("kafka_bootstrap_servers")
@click.option("--cards", default=5_000, show_default=True, type=click.IntRange(1, CARDS_MAX), help="How many cards.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, DAYS_MAX), help="Days of history.")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="The same seed, the same traffic.")
@click.option(
    "--preset",
    default="default",
    show_default=True,
    type=click.Choice(PRESETS, case_sensitive=False),
    help="The kind of traffic.",
)
@click.option(
    "--start", default=None, metavar="DAY", help="First day, such as 2026-01-31; by default the history ends yesterday."
)
@click.option(
    "--rate",
    default=None,
    type=click.FloatRange(0.1, 100_000),
    help="Send what follows the history, live, at this many a second.",
)
@click.option(
    "--seconds", default=20, show_default=True, type=click.IntRange(1, 86_400), help="How long the live traffic lasts."
)
@click.option(
    "--fresh", is_flag=True, help="Another seed and other cards with every run, so that nothing repeats what was sent."
)
@click.option(
    "--output", default=None, type=click.Path(path_type=Path), help="Write a Parquet file with the truth instead."
)
def simulate(
    settings: Settings, cards: int, days: int, seed: int, preset: str, start: str | None,
    rate: float | None, seconds: int, fresh: bool, output: Path | None,
) -> None:  # fmt: skip
    """Make up card traffic: into Kafka, with its accounts, customers and labels, or into a Parquet file.

    Without --rate the history goes out as fast as Kafka takes it. With --rate the transactions that follow the history
    go out at an even pace: their event times go on from the history's, so the cards stay in character.
    """
    from services.offline.simulator.reference import simulate_reference

    tag = format(time.time_ns() // 1_000_000, "x")
    seed = int(tag, 16) if fresh else seed
    count = 0 if rate is None else int(rate * seconds)
    start_ms = first_day_ms(start, days + (0 if rate is None else live_days(cards, count)), time.time_ns() // 1_000_000)
    progress(f"simulating {counted(cards, 'card')}, {counted(days, 'day')}, seed {seed}")
    history, live = history_and_live(cards, days, seed, start_ms, preset, count)
    if fresh:
        history, live = history.of_others(tag), live.of_others(tag)
    if output is not None:
        _write(output, history)
    else:
        people = history.joined(live)
        reference = simulate_reference(people.columns, people.scenario == 0, seed)
        _send(settings, history if rate is None else live, reference, rate, seed)


def _write(output: Path, traffic: Traffic) -> None:
    from services.offline.datasets.parquet import write_parquet
    from services.offline.simulator.traffic import SCENARIOS

    try:
        write_parquet(output, traffic.columns, traffic.scenario, SCENARIOS)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}") from None
    click.echo(f"{len(traffic):,} transactions, {int((traffic.scenario > 0).sum()):,} frauds: {output}")


def _send(settings: Settings, traffic: Traffic, reference: SimulatedReference, rate: float | None, seed: int) -> None:
    from services.offline.replay.labels import LabelFeed, simulated_truth
    from services.offline.replay.producer import NotDeliveredError, Pace, TransactionProducer
    from services.offline.replay.reference import send_reference
    from services.runtime.clock import SystemClock
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.sink import KafkaSink

    require_topics(KafkaAdmin(settings.kafka))
    clock, sink = SystemClock(), KafkaSink(settings.kafka)
    pace = Pace(None) if rate is None else Pace.at_rate(len(traffic), rate)
    begin = clock.monotonic_s()
    try:
        send_reference(sink, reference, clock.now_ms())
        sink.flush(REFERENCE_FLUSH_S)
        labels = LabelFeed(sink, simulated_truth(traffic, seed))
        sent = TransactionProducer(sink, clock).send(traffic, pace, labels=labels)
    except (NotDeliveredError, StreamsError) as error:
        raise UserError(with_remedy(error)) from None
    finally:
        sink.close()
    took = clock.monotonic_s() - begin
    click.echo(
        f"{sent:,} transactions in {took:.1f} s, {int((traffic.scenario > 0).sum()):,} frauds, {labels.sent:,} labels"
    )


def require_topics(admin: object) -> None:
    """Raise UserError unless Kafka answers and the topics exist."""
    from services.codec.schemas import topics
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin

    assert isinstance(admin, KafkaAdmin)
    try:
        missing = topics().keys() - admin.partitions().keys()
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None
    if missing:
        raise UserError(f"topics are missing ({', '.join(sorted(missing))}): create them with `proact topics apply`")


def parse_speed(speed: str) -> float | None:
    """Return how many times faster than event time, None for as fast as it goes. Raises UserError."""
    if speed == "max":
        return None
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not speed.endswith("x") or not 0.0 < factor < float("inf"):
        raise UserError(f"--speed must be max or a factor such as 1x or 60x, not {speed!r}")
    return factor


@click.command(epilog=example("proact replay transactions.parquet --mapping handbook --speed 60x --limit 10000"))
@with_settings("kafka_bootstrap_servers")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--mapping", default="proact", show_default=True, help="The mapping: proact, handbook, or a YAML file's path."
)
@click.option("--speed", default="max", show_default=True, help="max, or a factor of event time such as 1x or 60x.")
@click.option("--limit", default=None, type=click.IntRange(1), help="Send only the first so many.")
def replay(settings: Settings, file: Path, mapping: str, speed: str, limit: int | None) -> None:
    """Send the transactions of a Parquet or CSV file into Kafka, in the file's order.

    Where the mapping says which of them are frauds, labels follow, a day of event time behind.
    """
    from services.offline.datasets.mapping import DatasetError, load_mapping, read_dataset
    from services.offline.replay.labels import LabelFeed, Truth, recorded_truth
    from services.offline.replay.producer import NotDeliveredError, Pace, TransactionProducer
    from services.runtime.clock import SystemClock
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin
    from services.streams.sink import KafkaSink

    factor = parse_speed(speed)
    try:
        chunks = read_dataset(file, load_mapping(mapping), limit)
        require_topics(KafkaAdmin(settings.kafka))
        clock, sink = SystemClock(), KafkaSink(settings.kafka)
        producer = TransactionProducer(sink, clock)
        labels = LabelFeed(sink, Truth.nothing())
        for chunk in chunks:
            if chunk.is_fraud is not None:
                labels.add(recorded_truth(chunk.columns, chunk.is_fraud))
            pace = Pace(None) if factor is None else Pace.by_event_time(chunk.columns.event_time_ms, factor)
            producer.send(chunk, pace, labels=labels)
            last = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(chunk.columns.event_time_ms[-1]))
            progress(f"{producer.sent:,} sent, up to {last:%Y-%m-%d %H:%M}")
        sink.close()
    except (DatasetError, NotDeliveredError, StreamsError) as error:
        raise UserError(with_remedy(error)) from None
    click.echo(f"{producer.sent:,} transactions, {labels.sent:,} labels")
