"""``proact bench`` and ``proact parity``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.commands.options import UserError, example, interruptible, progress, with_settings
from services.runtime.config import Settings

if TYPE_CHECKING:
    from services.core.columns import TransactionColumns

ANSWER_TIMEOUT_S = 300.0


@click.command(epilog=example("proact bench --runs 3"))
@with_settings("data_folder", "partitions")
@click.option(
    "--records", default=400_000, show_default=True, type=click.IntRange(10_000), help="Transactions of the backlog."
)
@click.option(
    "--cards", default=50_000, show_default=True, type=click.IntRange(1_000), help="Cards that they belong to."
)
@click.option(
    "--rate",
    default=1_000.0,
    show_default=True,
    type=click.FloatRange(10),
    help="Transactions a second for the latency.",
)
@click.option(
    "--seconds", default=20, show_default=True, type=click.IntRange(5), help="How long the latency is measured."
)
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Measurements; medians are told."
)
def bench(settings: Settings, records: int, cards: int, rate: float, seconds: int, runs: int) -> None:
    """Measure one scorer with Kafka and Redis on this machine, with either guarantee: backlog throughput, and latency of an open loop."""
    from services.measure.bench import run_bench
    from services.runtime.children import ChildError
    from services.stack.processes import StackError
    from services.streams import StreamsError

    folder = Path(settings.data_folder) / "bench"
    try:
        with interruptible():
            result = run_bench(
                settings, folder, progress, records=records, cards=cards, rate=rate, seconds=seconds, runs=runs
            )
    except (ChildError, StackError, StreamsError, ValueError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(result))


@click.command(epilog=example("proact parity ../shared/data/handbook --cards 500"))
@with_settings("data_folder", "partitions")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--cards", default=None, type=click.IntRange(1), help="Only the first so many cards; all if left out.")
def parity(settings: Settings, folder: Path, cards: int | None) -> None:
    """Replay the handbook's transactions through a running scorer; compare what comes out with what was published.

    FOLDER holds transactions.parquet and features.parquet. Also compares online with offline features, bit for bit.
    """
    from services.datasets.mapping import DatasetError, load_mapping, read_dataset
    from services.runtime.children import ChildError
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from services.trainer.history import concatenate

    features = folder / "features.parquet"
    if not features.is_file():
        raise UserError(f"there is no {features}: the folder must hold the handbook's two files")
    try:
        columns = concatenate(list(read_dataset(folder / "transactions.parquet", load_mapping("handbook"))))
        with interruptible():
            line, holds = run_parity(settings, columns, features, cards)
    except (DatasetError, ChildError, StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(line)
    if not holds:
        raise SystemExit(1)


def run_parity(settings: Settings, columns: TransactionColumns, features: Path, cards: int | None) -> tuple[str, bool]:
    """Replay, collect and compare; return the line to print and whether parity holds."""
    from services.datasets.mapping import Dataset
    from services.measure.parity import VectorCollector, cards_below, compare
    from services.measure.session import running_session
    from services.replay.producer import Pace, TransactionProducer
    from services.runtime.clock import SystemClock
    from services.streams.reader import KafkaReader
    from services.streams.sink import KafkaSink

    chosen = columns if cards is None else cards_below(columns, cards)
    with running_session(settings, Path(settings.data_folder) / "parity", progress) as session:
        servers = session.settings.kafka_bootstrap_servers
        reader, sink, collector = (
            KafkaReader(servers, ["card-decisions"], from_beginning=True),
            KafkaSink(servers),
            VectorCollector(),
        )
        progress(f"replaying {len(chosen):,} transactions")
        TransactionProducer(sink, SystemClock()).send(Dataset(chosen, None, None), Pace(None), flush_s=300.0)
        told_s = quiet_s = time.monotonic()
        while collector.count < len(chosen):
            for records in reader.read(0.5):
                collector.add(records)
                quiet_s = time.monotonic()
            if time.monotonic() - told_s > 5.0:
                told_s = time.monotonic()
                progress(f"{collector.count:,} decisions")
            if time.monotonic() - quiet_s > ANSWER_TIMEOUT_S / 5:
                raise UserError(f"only {collector.count:,} of {len(chosen):,} transactions were decided")
        reader.close()
        sink.close()
    progress("comparing with offline and published features")
    found = compare(chosen, features, collector, "handbook")
    return found.line(), found.holds
