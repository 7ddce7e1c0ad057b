"""How good models are on the handbook's benchmark, by its protocol, with features that came through the stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.columns import type_f64
from services.core.kernels import group_text
from services.core.profiles import DAY_MS
from services.core.vacuous import require_figures
from services.offline.datasets.published import RESULTS
from services.offline.trainer.prequential import MEASURES, PRODUCTION, REPRODUCED, TUNED, Examples, Fold, mean_of_folds
from services.runtime.settings import Settings
from tests.benchmarks.parity import Recorded
from tests.benchmarks.replaying import replay

_FIRST_TEST: Final = int(np.datetime64("2018-08-01", "D").astype(np.int64))
"""The day after the handbook's first week of training."""
FIRST: Final = (Fold(_FIRST_TEST),)
FOLDS: Final = tuple(Fold(_FIRST_TEST + 7 * i) for i in (3, 2, 1, 0))
"""The four weeks of training from 2018-08-15, 08-08, 08-01 and 07-25."""
EARLIER: Final = tuple(Fold(_FIRST_TEST - 7 * i) for i in (1, 2, 3, 4))
"""Four weeks before them, by which no setting was chosen."""
EIGHT_WEEKS: Final = tuple(Fold(fold.train_until, 8) for fold in FOLDS)
_ROWS: Final = (
    ("reproduced", "XGBoost, defaults of 1.5.1: first fold", REPRODUCED, FIRST),
    ("tuned", "XGBoost, the book's best: four folds", TUNED, FOLDS),
    ("production", "production: four folds", PRODUCTION, FOLDS),
    ("production_eight_weeks", "production, eight weeks of training: four folds", PRODUCTION, EIGHT_WEEKS),
    ("tuned_earlier", "the book's best: four earlier folds", TUNED, EARLIER),
    ("production_earlier", "production: four earlier folds", PRODUCTION, EARLIER),
)
_PUBLISHED: Final = {"reproduced": "XGBoost, defaults", "tuned": "XGBoost, best tuned"}
LEAK: Final = 0.75
"""Trained on one week, a higher average precision means that something is known before it can be."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured: AUC ROC, average precision and CP@100 by name."""

    measured: dict[str, dict[str, float]]
    source: str

    @property
    def leaks(self) -> list[str]:
        """What is better than it can be."""
        return [name for name, found in self.measured.items() if not found["average_precision"] <= LEAK]

    def __post_init__(self) -> None:
        require_figures("quality", self.measured)

    def table(self) -> str:
        """Return the table for people, beside what was published."""
        lines = [f"{'':48}{'AUC ROC':>9}{'AP':>9}{'CP@100':>9}   published"]
        for name, title, _, _ in (row for row in _ROWS if row[0] in self.measured):
            said = RESULTS.get(_PUBLISHED.get(name, ""))
            published = " / ".join(f"{value:.3f}" for value in said) if said else ""
            values = "".join(f"{self.measured[name][measure]:>9.4f}" for measure in MEASURES)
            lines.append(f"{title:48}{values}   {published}".rstrip())
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same for machines."""
        short = {"card_precision_at_100": "card_precision_100"}
        named = {n: {short.get(m, m): value for m, value in found.items()} for n, found in self.measured.items()}
        return named | {"features": self.source}


NAMES: Final = tuple(name for name, _, _, _ in _ROWS)


def measure_quality(
    recorded: Recorded,
    settings: Settings | None,
    progress: Callable[[str], None],
    names: Sequence[str] = NAMES,
) -> Quality:
    """Train and test by the protocol.

    Args:
        recorded: the handbook's transactions, in their order, with their truth.
        settings: of the services that the transactions go through; None to compute the same features without them.
        progress: tells what is being done.
        names: what is measured.

    Raises:
        StreamsError, ChildError, StackError: the services can't be run.
        VacuousError: something came out incomplete, or nothing follows from it.
    """
    examples = _examples(recorded, _vectors(recorded, settings, progress))
    measured = {}
    for name, title, recipe, folds in _ROWS:
        if name in names:
            progress(f"training and testing: {title}")
            measured[name] = mean_of_folds(examples, folds, recipe)
    return Quality(measured, "offline" if settings is None else "stream")


def _vectors(recorded: Recorded, settings: Settings | None, progress: Callable[[str], None]) -> type_f64:
    columns = recorded.columns
    if settings is None:
        progress(f"computing the features of {len(columns):,} transactions")
        return recorded.offline()
    return replay(settings, recorded, progress).complete_vectors(columns)


def _examples(recorded: Recorded, vectors: type_f64) -> Examples:
    columns = recorded.columns
    card, _ = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    return Examples(vectors, recorded.fraud, card, columns.event_time_ms // DAY_MS)
