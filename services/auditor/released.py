"""The released models, read again when a decision names one that is not known yet: between two batches, never within one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from services.checker.scoring import Scoring
from services.runtime.clock import Clock
from services.runtime.logs import fields
from services.worker.processor import NotYetError

log = logging.getLogger("proact.auditor")

LOOK_AGAIN_S: Final = 30.0
"""How long a model that was not found is taken for one that is not released."""

ModelKey = tuple[str, str]
"""Name and version."""


class ReleasedModels:
    """Keeps the models that decisions name, as a :class:`services.worker.followers.Follower` that looks when it was asked for one."""

    def __init__(self, folders: Callable[[], Iterable[Path]], safe: tuple[float, float], clock: Clock) -> None:
        """Keep them.

        Args:
            folders: returns those of the released models, as of now.
            safe: from which amounts on a transaction is challenged and reviewed if nobody can speak, in major units.
            clock: says when to look again.
        """
        self.folders, self._safe, self._clock = folders, safe, clock
        self._known: set[ModelKey] = set()
        self._looked_s: dict[ModelKey, float] = {}
        """When those were looked for that are not there."""
        self._wanted: set[ModelKey] = set()
        self.scoring = Scoring([], safe)

    def ask(self, decisions: Iterable[dict[str, Any]]) -> None:
        """Make sure that the models of decisions were looked for. Raises NotYetError: they will be."""
        now_s = self._clock.monotonic_s()
        named = {(one["model"], one["model_version"]) for one in decisions if one["model"] is not None}
        self._wanted = {
            model for model in named - self._known if now_s >= self._looked_s.get(model, -LOOK_AGAIN_S) + LOOK_AGAIN_S
        }
        if self._wanted:
            raise NotYetError("a decision names a model that is not read yet")

    def begin(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if not self._known:
            self._look()

    def turn(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._wanted:
            self._look()

    def _look(self) -> None:
        found: dict[ModelKey, Path] = {}
        for folder in self.folders():
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                found[manifest["name"], manifest["version"]] = folder
                Scoring([folder], self._safe)
            except Exception as error:  # noqa: BLE001 - whatever is in it: one that cannot be read is not there
                found = {model: one for model, one in found.items() if one != folder}
                log.warning("a model cannot be read", extra=fields(folder=folder.name, error=type(error).__name__))
        if found.keys() != self._known:
            self.scoring, self._known = Scoring(found.values(), self._safe), set(found)
        for model in self._wanted - self._known:
            self._looked_s[model] = self._clock.monotonic_s()
        self._wanted = set()

    def close(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
