"""``proact train`` and ``proact evaluate``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from services.cli.dataset import REPLAYED, SCHEDULER, SINCE, UNTIL, in_parts, period_of, read
from services.cli.options import UserError, counted, example, progress, with_settings
from services.offline.simulator.generate import CARDS_MAX
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.inference.artifact import Manifest
    from services.offline.datasets.served import TrainingPeriod
    from services.offline.trainer.labelled import History, Labelled

_START_MS = 1_750_032_000_000  # 2025-06-16: a fixed day, so that the same seed trains the same model
LABEL_DELAY_DAYS = 14


def history_of(data: Path | None, mapping: str, cards: int, days: int, seed: int) -> History:
    """Return a file's transactions with their truth, or simulated ones. Raises UserError."""
    from services.offline.datasets.mapping import DatasetError
    from services.offline.trainer.history import file_history, simulated_history

    if data is None:
        progress(f"simulating {counted(cards, 'card')}, {counted(days, 'day')}, seed {seed}")
        return simulated_history(cards, days, seed, _START_MS)
    progress(f"reading {data} through mapping {mapping}")
    try:
        return file_history(data, mapping)
    except DatasetError as error:
        raise UserError(str(error)) from None


_DATA = click.option(
    "--data", default=None, type=click.Path(path_type=Path), help="A Parquet or CSV file; without it, simulated data."
)
_MAPPING = click.option(
    "--mapping",
    default="proact",
    show_default=True,
    help="The file's mapping: proact, handbook, or a YAML file's path.",
)
_CARDS = click.option(
    "--cards", default=6_000, show_default=True, type=click.IntRange(100, CARDS_MAX), help="Simulated cards."
)
_DAYS = click.option("--days", default=130, show_default=True, type=click.IntRange(30, 1_000), help="Simulated days.")
_SEED = click.option("--seed", default=11, show_default=True, type=click.IntRange(0), help="The simulation's seed.")


@click.command(
    epilog=example("proact train --data transactions.parquet --mapping handbook --output /tmp/models/handbook/v1")
)
@_DATA
@_MAPPING
@_CARDS
@_DAYS
@_SEED
@click.option("--from-lake", is_flag=True, help="Train on what was decided and became of it: the lake, until --until.")
@with_settings("lake_url")
@SINCE
@UNTIL
@REPLAYED
@SCHEDULER
@click.option(
    "--scratch",
    default=Path(),
    type=click.Path(path_type=Path),
    help="With --scheduler: a folder that all workers see, for the training set while it is used; the current one by default.",
)
@click.option(
    "--label-delay-days",
    default=LABEL_DELAY_DAYS,
    show_default=True,
    type=click.IntRange(0, 180),
    help="How long labels take.",
)
@click.option(
    "--output",
    default=None,
    type=click.Path(path_type=Path),
    help="NAME/vN: the release's folder; by default models/fraud/vN with a number that no model has.",
)
@click.option("--overwrite", is_flag=True, help="Write over a model that is there; never over the live one.")
def train(settings: Settings, label_delay_days: int, output: Path | None, overwrite: bool, **source: Any) -> None:
    """Train on history, choose thresholds from the cost table, test on the last days, and write the release.

    What is live stays live: the last line but one says how to change that.
    """
    from services.inference.released import DEFAULT_NAME, next_release
    from services.offline.trainer.costs import CostTable
    from services.offline.trainer.release import check_free, release
    from services.offline.trainer.training import train as run

    begin_s, live = time.monotonic(), _live_or_none()
    output = next_release(Path("models"), DEFAULT_NAME) if output is None else output
    try:
        check_free(output, live, overwrite=overwrite)
        with _labelled(settings, label_delay_days, source) as labelled:
            trained = run(labelled, label_delay_days, CostTable(), progress)
        manifest = release(output, trained, CostTable(), time.time_ns() // 1_000_000)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    _track(output, manifest)
    progress(f"wrote {output} in {time.monotonic() - begin_s:.0f} s; {_how_to_use(output, live)}")
    click.echo(
        json.dumps(
            {"model": manifest.name, "version": manifest.version, "classes": manifest.classes, **manifest.metrics}
        )
    )


@contextmanager
def _labelled(settings: Settings, label_delay_days: int, source: dict[str, Any]) -> Iterator[Labelled]:
    """Give what is trained on, with its vectors: of the lake, of a file, or simulated. Raises UserError, ValueError."""
    from services.core.features import FEATURE_NAMES
    from services.offline.trainer.labelled import Labelled

    from_lake, replayed = source.pop("from_lake"), source.pop("replayed")
    since, until = source.pop("since"), source.pop("until")
    scheduler, scratch = source.pop("scheduler"), source.pop("scratch")
    if from_lake:
        if source["data"] is not None:
            raise UserError("say --data or --from-lake, not both")
        wanted = period_of(since, until, label_delay_days, replayed=replayed)
        if scheduler is None:
            yield read(settings, wanted).labelled()
        else:
            with _on_dask(settings, wanted, scratch, scheduler) as labelled:
                yield labelled
        return
    if since or until or replayed or scheduler:
        raise UserError("--from, --until, --replayed and --scheduler are of the lake: say --from-lake, too")
    found = history_of(**source)
    progress(f"computing {len(FEATURE_NAMES)} features of {len(found.columns):,} transactions")
    yield Labelled.of(found)


@contextmanager
def _on_dask(settings: Settings, wanted: TrainingPeriod, scratch: Path, scheduler: str) -> Iterator[Labelled]:
    from services.offline.trainer.parted import PartedLabelled
    from services.offline.workers import OnDask

    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(dir=scratch, prefix=".training-set-") as folder,
            in_parts(settings, wanted, Path(folder), scheduler) as (description, runner),
        ):
            assert isinstance(runner, OnDask)
            yield PartedLabelled.open(Path(folder), description, runner)
    except OSError as error:
        raise UserError(f"{scratch}: {error.strerror or error}") from None


def _track(output: Path, manifest: Manifest) -> None:
    """Note a release in MLflow, where its own variable says where that is; what fails there is said, and no more."""
    from services.offline.trainer.tracking import MLFLOW_URI, PATIENCE, TrackingError, log_release

    uri = os.environ.get(MLFLOW_URI)
    if not uri:
        return
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        run = log_release(output, manifest, uri, time.time_ns() // 1_000_000)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mlflow":
            raise
        progress(f"not noted in MLflow: {MLFLOW_URI} is set, but mlflow is not there: pip install 'proact[mlflow]'")
    except TrackingError as error:
        progress(f"not noted in MLflow, the model is as good without: {error}")
    else:
        progress(f"noted in MLflow as run {run} of experiment proact-{manifest.name}")


def _live_or_none() -> Path | None:
    from services.inference import ModelError
    from services.inference.released import live_model

    try:
        return live_model()
    except ModelError:  # whoever trains may have none yet
        return None


def _how_to_use(output: Path, live: Path | None) -> str:
    """Return what is live, and how what was trained is used."""
    from services.inference.released import release_of

    stays = "no model is live" if live is None else f"{live.parent.name}/{live.name} is live as before"
    named = release_of(output)
    command = f"proact scorer --model-path {output}" if named is None else f"proact models live {named}"
    return f"{stays}; to score with this one: {command}"


@click.command(epilog=example("proact evaluate models/fraud/v4 --seed 99"))
@click.argument("model", type=click.Path(path_type=Path))
@_DATA
@_MAPPING
@_CARDS
@_DAYS
@click.option(
    "--seed", default=99, show_default=True, type=click.IntRange(0), help="Another seed than in training: other people."
)
@click.option(
    "--warm-up-days",
    default=30,
    show_default=True,
    type=click.IntRange(0, 365),
    help="How many days only fill the windows.",
)
def evaluate(model: Path, warm_up_days: int, **source: Any) -> None:
    """Test a released model on transactions that it was not trained on; the first days only fill the windows."""
    from services.inference import ModelError
    from services.inference.artifact import load_model
    from services.offline.trainer.training import evaluate as run

    try:
        loaded = load_model(model)
        metrics = run(loaded, history_of(**source), warm_up_days)
    except (ModelError, ValueError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(metrics))
