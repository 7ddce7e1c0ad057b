"""Who decides by a model and rules that change while it runs: what scorer and reassessor share."""

from __future__ import annotations

from dataclasses import replace

from services.core.fallback import SafeDefault
from services.core.rules.engine import RuleEngine
from services.decision.engine import DecisionEngine
from services.decision.outputs import OutputEncoder
from services.inference import Model


class FollowsReleases:
    """Holds those who have a say, and the encoder that names them; both change between two batches only."""

    def __init__(self, model: Model | None, safe: SafeDefault) -> None:
        """Decide by a model, until another is adopted; without one by rules and the safe default.

        Args:
            model: the model.
            safe: the safe default.
        """
        self.engine = DecisionEngine(model, None, safe)
        self._encoder = OutputEncoder().with_model(model)

    def adopt_model(self, model: Model | None) -> None:
        """Score by this model from the next batch on."""
        self.engine = replace(self.engine, model=model)
        self._encoder = self._encoder.with_model(model)

    def adopt_rules(self, version: int, engine: RuleEngine | None) -> None:
        """Decide by these rules from the next batch on; None for no rules."""
        self.engine = replace(self.engine, rules=engine)
        self._encoder = self._encoder.with_rules(version, engine)
