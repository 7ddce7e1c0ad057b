"""The workload ``core``: what a stream processor would do with the same model, assembled from the scorer's parts, to measure by.

It decides by the card's own profile and the champion alone: no terminals, accounts, rules, anomaly score, reasons and alerts. As a process of its
own (:mod:`tests.benchmarks.core_scorer`) it is a scorer in all else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from services.codec.writing import Nullable
from services.core.card.windows import MODEL_MISSED, PROFILE_MISSED
from services.core.columns import type_bool, type_i64
from services.core.fallback import FallbackTier
from services.core.immutable import immutable
from services.core.rules.engine import RuleEngine
from services.decision.batches import DEGRADED_BITS, REPEATED, TransactionBatch
from services.decision.engine import DecisionEngine, decide_actions
from services.decision.outputs import Decided
from services.decision.shadows import Shadows
from services.inference import Anomaly
from services.scorer.processor import ScorerProcessor
from services.worker.processor import LookedUp


@immutable
class CoreDecided(Decided):
    """Decisions that nobody hears of."""

    @property
    def alerted(self) -> type_i64:
        """See :class:`services.decision.outputs.Decided`."""
        return np.empty(0, np.int64)

    @property
    def folded_by_others(self) -> type_bool:
        """See :class:`services.decision.outputs.Decided`."""
        return np.zeros(len(self.rows), bool)


class CoreJudges(DecisionEngine):
    """The model, without its anomaly score, and nobody else."""

    def anomaly(self, tier: FallbackTier) -> Anomaly | None:  # noqa: ARG002 - on no fallback tier
        """See :class:`services.decision.engine.DecisionEngine`."""
        return None


class CoreProcessor(ScorerProcessor):
    """See :class:`services.scorer.processor.ScorerProcessor`."""

    looks_up = ()

    def adopt_rules(self, version: int, engine: RuleEngine | None) -> None:
        """See :class:`services.decision.releases.FollowsReleases`: there are none."""

    def decide_batch(
        self,
        engine: DecisionEngine,
        batch: TransactionBatch,
        found: Mapping[str, LookedUp],  # noqa: ARG002 - nothing was looked up
        shadows: Shadows,  # noqa: ARG002 - there are none
    ) -> Decided:
        """See :class:`services.scorer.processor.ScorerProcessor`."""
        n, flags = len(batch.rows), batch.folded.flags
        engine = CoreJudges(engine.model, None, engine.safe)
        if engine.model is None or engine.model.champion is None:
            flags |= MODEL_MISSED
        if not batch.profiles_seen:
            flags |= PROFILE_MISSED
        tier = engine.tier(profiles=batch.profiles_seen, others=True)
        return CoreDecided(
            columns=batch.columns,
            rows=batch.rows,
            vectors=batch.folded.vectors,
            decisions=decide_actions(engine, tier, batch.columns, batch.folded.vectors, None),
            explain=tuple,
            degraded=DEGRADED_BITS[flags],
            behind_ms=Nullable(np.zeros(n, np.int64), np.zeros(n, bool)),
            repeat=REPEATED[flags],
        )
