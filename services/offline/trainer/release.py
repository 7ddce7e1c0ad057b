"""A trained model as files: the model, its manifest, golden rows, the card that people read, and its plot."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from services.core.classes import TransactionClass
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH, FEATURES
from services.core.policy import Action
from services.inference.artifact import Manifest, save_model
from services.offline.trainer.costs import CostTable
from services.offline.trainer.evaluation import curve
from services.offline.trainer.training import SMALL_DEPTH, SMALL_ROUNDS, Trained

PLOT = "precision_recall.svg"
_TEMPLATE = Path(__file__).parent / "model_card.md"


def check_free(folder: Path, live: Path | None, *, overwrite: bool) -> None:
    """Check that a release may be written to ``folder``, and make the folder that it lies in.

    Args:
        folder: NAME/vN.
        live: the folder of the live model, None if there is none; it is never written to.
        overwrite: whether another model that is there may go.

    Raises:
        ValueError: its name is none of a release's, or there is one already.
        OSError: its parent cannot be made.
    """
    if not re.fullmatch(r"v[1-9][0-9]{0,5}", folder.name) or not re.fullmatch(
        r"[a-z][a-z0-9-]{0,30}", folder.parent.name
    ):
        raise ValueError(f"a release's folder is named like models/fraud/v5, not {folder}")
    if live is not None and folder.resolve() == live.resolve():
        raise ValueError(f"{folder} is live, and what is live is not trained anew: train to another folder")
    if folder.exists() and not overwrite:
        raise ValueError(f"{folder} is there already: train to another folder, or say --overwrite")
    folder.parent.mkdir(parents=True, exist_ok=True)


def release(folder: Path, trained: Trained, costs: CostTable, now_ms: int) -> Manifest:
    """Write ``folder`` (its name is the version, its parent's the model's name), all at once when all of it is verified.

    What was there is gone then; until then it is as it was, whatever fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".training-") as temporary:
        written = Path(temporary) / folder.name
        manifest = _write(written, folder, (trained, costs), now_ms)
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        written.rename(folder)
    return manifest


def _write(written: Path, folder: Path, what: tuple[Trained, CostTable], now_ms: int) -> Manifest:
    trained, costs = what
    manifest = {
        "name": folder.parent.name,
        "version": folder.name,
        "feature_names": list(FEATURE_NAMES),
        "feature_set_hash": FEATURE_SET_HASH,
        "classes": {one.name: asdict(route) for one, route in trained.table.routes.items()},
        "small": asdict(trained.small_route),
        "trained_at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds"),
        "training": trained.training,
        "metrics": trained.metrics,
        "costs": costs.as_dict(),
    }
    model = save_model(written, trained.boosters, trained.anomaly, manifest, trained.golden_vectors)
    _plot(written / PLOT, trained)
    (written / "MODEL_CARD.md").write_text(_card(model.manifest, trained.anomaly.review))
    return model.manifest


def _plot(path: Path, trained: Trained) -> None:
    """Draw the precision-recall curve of the test days, with the points that the thresholds of the commonest class stand for."""
    mpl.rcParams["svg.hashsalt"] = "proact"  # the same curve is the same file
    precision, recall, levels = curve(trained.test_scores, trained.test_fraud)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(recall, precision, color="#1f4e79", linewidth=1.6)
    t = trained.table.routes[TransactionClass.CARD_PRESENT].thresholds
    for name, level, colour in (
        ("CHALLENGE", t.challenge, "#2e8b57"),
        ("REVIEW", t.review, "#e08a00"),
        ("BLOCK", t.block, "#c0392b"),
    ):
        at = min(int((levels < level).sum()), len(levels))
        axes.plot(recall[at], precision[at], "o", color=colour, label=f"{name} from {level:.3g}, card present")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="Test days, by transaction")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    path.write_text(re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE))


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *rows])


def _card(manifest: Manifest, anomaly_review: float) -> str:
    test, training = manifest.metrics["test"], manifest.training
    ranges = {name: f"days {a} to {b - 1}" for name, (a, b) in training["ranges_in_days"].items()}
    by_range = {
        "days": list(ranges.values()),
        "transactions": [f"{training['rows'][name]:,}" for name in ranges],
        "frauds": [f"{training['frauds'][name]:,}" for name in ranges],
    }
    return _TEMPLATE.read_text().format(
        manifest=manifest,
        anomaly_review=anomaly_review,
        training=training,
        test=test,
        plot=PLOT,
        ranges=_table(f"| range | {' | '.join(ranges)} |", [f"| {k} | {' | '.join(v)} |" for k, v in by_range.items()]),
        scenarios=_table(
            "| scenario | frauds | not approved |",
            [f"| {n} | {m['frauds']} | {m['recall']:.0%} |" for n, m in manifest.metrics["by_scenario"].items()],
        ),
        actions=_table(
            "| action | transactions | frauds among them |",
            [f"| {a.name} | {test['actions'][a.name]:,} | {test['frauds_by_action'][a.name]} |" for a in Action],
        ),
        classes=_class_table(manifest),
        sums=", ".join(f"{name}.json `{sha256}`" for name, sha256 in manifest.boosters.items()),
        small_size=f"{SMALL_ROUNDS} trees of depth {SMALL_DEPTH}",
        costs=_cost_table(manifest.costs),
        features=_table("| feature | unit | meaning |", [f"| `{f.name}` | {f.unit} | {f.meaning} |" for f in FEATURES]),
    )


def _class_table(manifest: Manifest) -> str:
    rows = []
    for one, route in manifest.routes.items():
        found, t = manifest.metrics["by_class"][one.name], route.thresholds
        own = found.get("own_booster_cost_eur")
        cost = f"{found['cost_eur']:,.0f}", "not tried" if own is None else f"{own:,.0f}"
        rows.append(
            f"| {one.name} | {route.booster} | {t.challenge} | {t.review} | {t.block} | {found['frauds']} | {' | '.join(cost)} |"
        )
    return _table(
        "| class | booster | challenge from | review from | block from | frauds, validation | cost with the champion, EUR | with a booster of its own, EUR |",
        rows,
    )


def _cost_table(costs: dict[str, Any]) -> str:
    return _table(
        "| action | handling, EUR | on a genuine one, EUR | share of the loss that remains |",
        [
            f"| {name} | {c['handling_eur']:.2f} | {c['genuine_eur']:.2f} | {c['loss_share']:.0%} |"
            for name, c in costs["actions"].items()
        ],
    )
