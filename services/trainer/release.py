"""A trained model as files: the model, its manifest, golden rows, the card that people read, and its plot."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH, FEATURES
from services.core.policy import Action
from services.inference.artifact import Manifest, save_model
from services.trainer.costs import CostTable
from services.trainer.evaluation import curve
from services.trainer.training import Trained

PLOT = "precision_recall.svg"


def release(folder: Path, trained: Trained, costs: CostTable, now_ms: int) -> Manifest:
    """Write ``folder`` (its name is the version, its parent's the model's name) and verify what was written."""
    thresholds = trained.thresholds
    manifest = {
        "name": folder.parent.name,
        "version": folder.name,
        "feature_names": list(FEATURE_NAMES),
        "feature_set_hash": FEATURE_SET_HASH,
        "thresholds": {"challenge": thresholds.challenge, "review": thresholds.review, "block": thresholds.block},
        "trained_at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds"),
        "training": trained.training,
        "metrics": trained.metrics,
        "costs": costs.as_dict(),
    }
    model = save_model(folder, trained.booster, manifest, trained.golden_vectors)
    _plot(folder / PLOT, trained)
    (folder / "MODEL_CARD.md").write_text(_card(model.manifest))
    return model.manifest


def _plot(path: Path, trained: Trained) -> None:
    """Draw the precision-recall curve of the test days, with the points that the thresholds stand for."""
    mpl.rcParams["svg.hashsalt"] = "proact"  # the same curve is the same file
    precision, recall, levels = curve(trained.test_scores, trained.test_fraud)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(recall, precision, color="#1f4e79", linewidth=1.6)
    t = trained.thresholds
    for name, level, colour in (("CHALLENGE", t.challenge, "#2e8b57"), ("REVIEW", t.review, "#e08a00"), ("BLOCK", t.block, "#c0392b")):
        at = min(int((levels < level).sum()), len(levels))
        axes.plot(recall[at], precision[at], "o", color=colour, label=f"{name} from {level:.3g}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="Test days, by transaction")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    path.write_text(re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE))


def _card(manifest: Manifest) -> str:
    test, training = manifest.metrics["test"], manifest.training
    rows = [f"| {name} | {m['frauds']} | {m['recall']:.0%} |" for name, m in manifest.metrics["by_scenario"].items()]
    actions = [f"| {a.name} | {test['actions'][a.name]:,} | {test['frauds_by_action'][a.name]} |" for a in Action]
    features = [f"| `{f.name}` | {f.unit} | {f.meaning} |" for f in FEATURES]
    ranges = {name: f"days {a} to {b - 1}" for name, (a, b) in training["ranges_in_days"].items()}
    return f"""# Model card: {manifest.name} {manifest.version}

The probability that a card transaction is fraud, from the transaction and the card's own past of 30 days.
XGBoost {manifest.xgboost_version}, {training["parameters"]["rounds"]} trees of depth {training["parameters"]["max_depth"]}, trained {manifest.trained_at}.

## Data

{training["source"]}: {training["transactions"]:,} transactions of {training["days"]} days, split by time. Labels take up to
{training["label_delay_days"]} days to arrive, so that many days lie between training and validation. Only the first days, which fill
the 30-day windows, are used for nothing else.

| range | {" | ".join(ranges)} |
|---|{"---|" * len(ranges)}
| days | {" | ".join(ranges.values())} |
| transactions | {" | ".join(f"{training['rows'][r]:,}" for r in ranges)} |
| frauds | {" | ".join(f"{training['frauds'][r]:,}" for r in ranges)} |

## Results on the test days

AUC ROC {test["auc_roc"]:.3f}, average precision {test["average_precision"]:.3f}, card precision at 100 {test["card_precision_at_100"]:.3f}.
Not approved: precision {test["precision"]:.1%}, recall {test["recall"]:.1%}. Cost by the table below: {test["cost_eur"]:,.0f} EUR, against
{test["cost_without_model_eur"]:,.0f} EUR if everything were approved.

![precision and recall]({PLOT})

| scenario | frauds | not approved |
|---|---|---|
{chr(10).join(rows)}

| action | transactions | frauds among them |
|---|---|---|
{chr(10).join(actions)}

## Thresholds

Chosen on the validation days as the cheapest by this table: challenge from {manifest.thresholds["challenge"]}, review from
{manifest.thresholds["review"]}, block from {manifest.thresholds["block"]}.

{_cost_table(manifest.costs)}

## Limits

- The data are simulated or public: figures show that the path from events to decisions works, not what a bank will see.
- The model sees one card's own past and nothing else: a compromised terminal is invisible to it, and a card without
  history is scored on the transaction alone.
- Amounts are in the card's billing currency; the ratios to the card's own past carry over between currencies, the
  absolute amounts do not.
- Scores are not calibrated probabilities outside the share of fraud that the model was trained on.

## Features

Feature set `{manifest.feature_set_hash}`; SHA-256 of model.json `{manifest.sha256}`.

| feature | unit | meaning |
|---|---|---|
{chr(10).join(features)}
"""


def _cost_table(costs: dict[str, Any]) -> str:
    rows = ["| action | handling, EUR | on a genuine one, EUR | share of the loss that remains |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {c['handling_eur']:.2f} | {c['genuine_eur']:.2f} | {c['loss_share']:.0%} |"
        for name, c in costs["actions"].items()
    ]
    return "\n".join(rows) + f"\n\nA loss is the amount and a chargeback fee of {costs['chargeback_fee_eur']:.0f} EUR."
