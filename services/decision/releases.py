"""Who decides by models and rules that change while it runs: what scorer and reassessor share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from services.codec.model_releases import Guards
from services.codec.rule_sets import NO_RULES
from services.core.columns import Text, type_bool
from services.core.fallback import SafeDefault
from services.core.immutable import immutable
from services.core.kernels import hash_text
from services.core.rules.engine import RuleEngine
from services.decision.batches import TransactionBatch
from services.decision.engine import DecisionEngine
from services.decision.outputs import Decided, OutputEncoder
from services.decision.release_watch import ReleaseWatch
from services.decision.shadows import Shadow, Shadows
from services.inference import Model
from services.runtime.logs import fields, frames_of
from services.worker.processor import NOT_OF_A_RECORD, LookedUp

log = logging.getLogger("proact.model")

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MANTISSA: Final = 53


@dataclass(frozen=True, slots=True)
class CanaryModel:
    """A model that decides for a share of the cards."""

    release: str
    model: Model
    share: float
    guards: Guards = field(default_factory=Guards)

    def cards(self, card_id: Text) -> type_bool:
        """Return (n,) which transactions it decides on: always the same cards, others with another release."""
        mixed = (hash_text(card_id) ^ hash_text(Text.of([self.release.encode()]))) * _MIX
        return (mixed >> np.uint64(64 - _MANTISSA)).astype(np.float64) < self.share * 2.0**_MANTISSA


@dataclass(frozen=True, slots=True)
class ShadowModel:
    """A model that scores and decides nothing."""

    release: str
    model: Model
    rule_set_version: int | None = None
    rules: RuleEngine | None = None
    """Of that version; where it names none the live rules count."""


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """The models that a worker runs."""

    live: Model | None
    canary: CanaryModel | None = None
    shadows: Sequence[ShadowModel] = ()


@immutable
class DecidedPart:
    """Transactions that one model decided on, with the encoder that names it."""

    decided: Decided
    encoder: OutputEncoder
    canary: bool = False


Decide = Callable[[DecisionEngine, TransactionBatch, Mapping[str, LookedUp], Shadows], Decided]


class FollowsReleases:
    """Holds those who have a say, and the encoder that names them; both change between two batches only."""

    runs_beside = False
    """Whether it decides on transactions, so that canaries and shadows are its business."""

    def __init__(self, model: Model | None, safe: SafeDefault) -> None:
        """Decide by a model, until another is adopted; without one by rules and the safe default.

        Args:
            model: the model.
            safe: the safe default.
        """
        self.engine = DecisionEngine(model, None, safe)
        self.watch: ReleaseWatch | None = None
        """Set where canaries are looked at."""
        self.shadows = Shadows()
        self._canary: CanaryModel | None = None
        self._encoder = OutputEncoder().with_model(model)
        self._rule_set_version: int | None = None

    def adopt_model(self, model: Model | None) -> None:
        """Score by this model alone from the next batch on."""
        self.adopt_models(ModelsInUse(model))

    def adopt_models(self, models: ModelsInUse) -> None:
        """Score by these models from the next batch on."""
        self.engine = replace(self.engine, model=models.live)
        self._encoder = self._encoder.with_model(models.live)
        if self.watch is not None and models.canary != self._canary:
            self.watch.begin()
        self._canary = models.canary
        self.shadows = Shadows([self._shadow(one) for one in models.shadows])

    def _shadow(self, one: ShadowModel) -> Shadow:
        own = one.rule_set_version is not None
        version, rules = (one.rule_set_version, one.rules) if own else (self._rule_set_version, self.engine.rules)
        return Shadow(one.release, replace(self.engine, model=one.model, rules=rules, control=None), version, own)

    def adopt_rules(self, version: int, engine: RuleEngine | None) -> None:
        """Decide by these rules from the next batch on; None for no rules."""
        self.engine = replace(self.engine, rules=engine)
        self._encoder = self._encoder.with_rules(version, engine)
        self._rule_set_version = None if version == NO_RULES else version
        self.shadows = self.shadows.with_rules(self._rule_set_version, engine)

    def decide_by_release(
        self, batch: TransactionBatch, found: Mapping[str, LookedUp], decide: Decide
    ) -> list[DecidedPart]:
        """Decide on a batch, each card by the model whose it is; a card's transactions stay in one part, in their order.

        Args:
            batch: the transactions.
            found: what was found of others, by topic.
            decide: decides by one engine.
        """
        canary = self._canary
        if canary is None:
            return [DecidedPart(decide(self.engine, batch, found, self.shadows), self._encoder)]
        mine = canary.cards(batch.columns.card_id)
        parts = []
        if not mine.all():
            parts.append(self._part(batch.take(~mine) if mine.any() else batch, found, decide, None))
        if mine.any():
            parts.append(self._canary_part(batch, mine, (found, decide), canary))
        return parts

    def _canary_part(
        self, batch: TransactionBatch, mine: type_bool, how: tuple[Mapping[str, LookedUp], Decide], canary: CanaryModel
    ) -> DecidedPart:
        try:
            return self._part(batch.take(mine), *how, canary)
        except NOT_OF_A_RECORD:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, each transaction gets its decision
            said = fields(release=canary.release, traceback=frames_of(error))
            log.error("a canary raises an exception: the live model decides", extra=said)  # noqa: TRY400
            if self.watch is not None:
                self.watch.raised()
            return self._part(batch.take(mine), *how, None)

    def _part(
        self, batch: TransactionBatch, found: Mapping[str, LookedUp], decide: Decide, canary: CanaryModel | None
    ) -> DecidedPart:
        engine, encoder = self.engine, self._encoder
        if canary is not None:
            engine, encoder = replace(engine, model=canary.model), encoder.with_model(canary.model)
        watch = self.watch
        begun_s = 0.0 if watch is None else watch.monotonic_s()
        decided = decide(engine, batch, found, self.shadows)
        if watch is not None:
            watch.decided(decided.decisions, watch.monotonic_s() - begun_s, canary=canary is not None)
        return DecidedPart(decided, encoder, canary is not None)
