"""``python -m tests.benchmarks``: how quick, how true and how good, measured; `make help` lists the targets that run it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from services.cli.main import run_command
from services.cli.options import UserError, example, interruptible, progress, with_settings
from services.runtime.settings import TOPIC_SCALES, Settings

NAME = "python -m tests.benchmarks"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=example(f"{NAME} bench-gate"))
def benchmarks() -> None:
    """Measure Proact. It takes a checkout: nothing of this is in the package."""


@benchmarks.command(epilog=example(f"{NAME} bench --records 300000 --seconds 5 --runs 1"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.option(
    "--records", default=1_000_000, show_default=True, type=click.IntRange(50_000), help="Transactions of the backlog."
)
@click.option(
    "--cards", default=50_000, show_default=True, type=click.IntRange(1_000), help="Cards that they belong to."
)
@click.option(
    "--seconds",
    default=20,
    show_default=True,
    type=click.IntRange(2),
    help="How long each latency is measured each time.",
)
@click.option(
    "--runs",
    default=3,
    show_default=True,
    type=click.IntRange(1, 20),
    help="How often throughputs and latencies are measured; medians are reported.",
)
def bench(settings: Settings, records: int, cards: int, seconds: int, runs: int) -> None:
    """Measure throughput, latency, recovery and memory with Kafka, Redis and the load on this machine, beside a plain worker; some 20 minutes.

    Writes a page with plots to the data folder; the last line is JSON.
    """
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.benchmarks.bench import Plan, run_bench
    from tests.benchmarks.bench_page import bench_page

    folder = Path(settings.data_folder) / "bench"
    try:
        with claimed(folder, "a bench"), interruptible():
            result = run_bench(settings, folder, progress, Plan(records, cards, seconds, runs))
    except (ChildError, StackError, StreamsError, ValueError) as error:
        raise UserError(str(error)) from None
    page = folder / "bench.html"
    page.write_text(bench_page(result))
    progress(f"a page with plots: {page}")
    click.echo(json.dumps(result))


@benchmarks.command(
    "bench-compare", epilog=example(f"{NAME} bench-compare HEAD~1 --rounds 2 -- --records 300000 --seconds 5 --runs 1")
)
@click.argument("base")
@click.argument("options", nargs=-1)
@click.option(
    "--rounds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Measurements of each; medians are reported.",
)
def bench_compare(base: str, options: tuple[str, ...], rounds: int) -> None:
    """Measure revision BASE and the working tree in turn, and print the ratios; OPTIONS behind -- go to `bench`. The last line is JSON."""
    from tests.benchmarks.compare import CompareError, run_compare

    try:
        with interruptible():
            found = run_compare(base, options, rounds, progress)
    except CompareError as error:
        raise UserError(str(error)) from None
    for name, one in found.items():
        ratio = "-" if one["ratio"] is None else f"{one['ratio']:.3f}"
        click.echo(f"{ratio:>8}  {name:60} {one['base']:>14,.2f} -> {one['this']:>14,.2f}")
    click.echo(json.dumps(found))


@benchmarks.command("bench-lake", epilog=example(f"{NAME} bench-lake --records 500000"))
@with_settings("data_folder")
@click.option(
    "--records", default=1_000_000, show_default=True, type=click.IntRange(200_000), help="Decisions of the backlog."
)
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Measurements; medians are reported."
)
def bench_lake(settings: Settings, records: int, runs: int) -> None:
    """Measure how many decisions a second an archiver keeps on one core, from Kafka to its table. The last line is JSON."""
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.benchmarks.lake import measure_lake

    folder = Path(settings.data_folder) / "bench-lake"
    try:
        with claimed(folder, "a bench"), interruptible():
            found = measure_lake(settings, folder, records, runs, progress)
    except (ChildError, StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(found))


@benchmarks.command("bench-releases", epilog=example(f"{NAME} bench-releases --runs 3"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Measurements; medians are reported."
)
def bench_releases(settings: Settings, runs: int) -> None:
    """Measure what a release costs: latency while a model goes live and back, processor time of a shadow. The last line is JSON."""
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.benchmarks.bench_system import FULL, Subject
    from tests.benchmarks.releases import measure_releases

    folder = Path(settings.data_folder) / "bench-releases"
    try:
        with claimed(folder, "a bench"), interruptible():
            found = measure_releases(Subject(FULL, settings), folder, runs, progress)
    except (ChildError, StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(found))


@benchmarks.command("bench-training-sets", epilog=example(f"{NAME} bench-training-sets --days 60"))
@with_settings("data_folder")
@click.option("--days", default=30, show_default=True, type=click.IntRange(20), help="Of the shorter history.")
def bench_training_sets(settings: Settings, days: int) -> None:
    """Measure the memory that making a training set takes, at once and in parts, of a history and of ten times as much; five minutes. The last line is JSON."""
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from tests.benchmarks.training_sets import measure_training_sets

    folder = Path(settings.data_folder) / "bench-training-sets"
    try:
        with claimed(folder, "a bench"), interruptible():
            found = measure_training_sets(folder, days, progress)
    except (ChildError, StackError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(found))


@benchmarks.command("bench-gate", epilog=example(f"{NAME} bench-gate"))
def bench_gate() -> None:
    """Check that deciding is as many times as quick as the plain worker's way as it was: ratios of pairs, half a minute. The last line is JSON."""
    from tests.benchmarks.gate import asked_ratios, judge, measure_ratios

    found, asked = measure_ratios(), asked_ratios()
    for name, ratio in found.items():
        least = f"{asked[name]:.2f} are asked" if name in asked else "nothing is asked"
        click.echo(f"{name.replace('_', ' of '):>14}: {ratio:6.2f} times the plain worker, {least}")
    slower = judge(found, asked)
    click.echo(json.dumps({"ratios": found, "asked": asked, "holds": not slower}))
    if slower:
        raise UserError("something became slower: " + "; ".join(slower))


@benchmarks.command(epilog=example(f"{NAME} costs --repeats 30"))
@with_settings("model_path")
@click.option(
    "--repeats", default=30, show_default=True, type=click.IntRange(3), help="Measurements; medians are reported."
)
def costs(settings: Settings, repeats: int) -> None:
    """Measure what each part of a decision costs, in microseconds of one thread, without Kafka and Redis. The last line is JSON."""
    from services.core.vacuous import VacuousError
    from services.decision.model_loader import released_folder
    from services.inference import ModelError
    from services.inference.artifact import load_model
    from tests.benchmarks.costs import measure_costs

    progress("measuring, about half a minute")
    try:
        found = measure_costs(load_model(released_folder(settings)), repeats)
    except (ModelError, VacuousError) as error:
        raise UserError(str(error)) from None
    for what, parts in (("of a batch of 1,000", found["batch_us"]), ("by itself", found["single_us"])):
        for name, micros in parts.items():
            click.echo(f"{micros:>9.2f} us a transaction {what}: {name.replace('_', ' ')}")
    click.echo(
        f"{found['explanation_us']:>9.2f} us an explanation, {found['explanation_with_rules_us']:.2f} with {found['rules']} rules"
    )
    click.echo(json.dumps(found))


@benchmarks.command(epilog=example(f"{NAME} parity ../shared/data/handbook --from 2018-06-15 --until 2018-08-05"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "begin", default=None, metavar="DAY", help="Only from this day on, such as 2018-06-15.")
@click.option("--until", "end", default=None, metavar="DAY", help="Only before this day.")
def parity(settings: Settings, folder: Path, begin: str | None, end: str | None) -> None:
    """Replay the handbook's transactions and labels through running services; compare what comes out with what was published.

    FOLDER holds transactions.parquet and features.parquet. Also compares online with offline features, bit for bit.
    """
    from services.cli.traffic import first_day_ms
    from services.offline.datasets.mapping import DatasetError
    from services.runtime.children import ChildError
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.benchmarks.replaying import read_recorded, run_parity

    features = folder / "features.parquet"
    if not features.is_file():
        raise UserError(f"there is no {features}: the folder must hold the handbook's two files")
    edges = [2**62 * sign if day is None else first_day_ms(day, 0, 0) for sign, day in ((-1, begin), (1, end))]
    try:
        recorded = read_recorded(folder / "transactions.parquet", "handbook").between(edges[0], edges[1])
        if not len(recorded.columns):
            raise UserError("there are no transactions between these days")
        with interruptible():
            found = run_parity(settings, recorded, features, progress)
    except (DatasetError, ChildError, StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(found.line())
    if not found.holds:
        raise SystemExit(1)


@benchmarks.command("benchmark-quality", epilog=example(f"{NAME} benchmark-quality ../shared/data/handbook --offline"))
@with_settings("data_folder", *TOPIC_SCALES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--offline", is_flag=True, help="Compute the same features without running services: a minute.")
def benchmark_quality(settings: Settings, folder: Path, offline: bool) -> None:
    """Train and test models on the handbook's transactions, by its protocol, with features that came through running services.

    FOLDER holds transactions.parquet. Prints a table beside what was published; the last line is JSON.
    """
    from services.core.vacuous import VacuousError
    from services.offline.datasets.mapping import DatasetError
    from services.runtime.children import ChildError
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.benchmarks.quality import measure_quality
    from tests.benchmarks.replaying import read_recorded

    try:
        recorded = read_recorded(folder / "transactions.parquet", "handbook")
        with interruptible():
            found = measure_quality(recorded, None if offline else settings, progress)
    except (DatasetError, ChildError, StackError, StreamsError, VacuousError) as error:
        raise UserError(str(error)) from None
    click.echo(found.table())
    click.echo(json.dumps(found.as_json()))
    if found.leaks:
        raise UserError(f"too good to be true, something leaks: {', '.join(found.leaks)}")


if __name__ == "__main__":
    sys.exit(run_command(benchmarks, NAME))
