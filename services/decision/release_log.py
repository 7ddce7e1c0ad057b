"""What the topic of releases says: which model decides, which does for a share of the cards, and which score in the shadow."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.codec.model_releases import MODEL_RELEASES, ModelRelease, ReleaseError, Stage, release_of
from services.codec.records import UndecodableError, decode_as_newest
from services.runtime.clock import SystemClock
from services.runtime.rate_limited_log import Repeated

log = logging.getLogger("proact.model")

NOT_TAKEN: Final = "a release is not taken"
SHADOWS_MAX: Final = 4
"""Each scores every transaction: the newest ones do."""


@dataclass(frozen=True, slots=True)
class WantedModels:
    """What workers are to run."""

    live: ModelRelease | None = None
    """None: the model that the settings name, or models/live.json."""
    canary: ModelRelease | None = None
    shadows: tuple[ModelRelease, ...] = ()

    @property
    def all(self) -> tuple[ModelRelease, ...]:
        """All of them."""
        return tuple(one for one in (self.live, self.canary, *self.shadows) if one is not None)


@dataclass(slots=True)
class ModelReleaseLog:
    """The last record of each release; the topic is compacted, so that in whatever order they come, they are the same."""

    releases: dict[str, ModelRelease] = field(default_factory=dict)
    not_taken: Repeated = field(default_factory=lambda: Repeated(log, NOT_TAKEN, SystemClock()))
    """Tells of records that are no releases: of very many, a line now and again."""

    def add(self, values: Iterable[bytes | None]) -> None:
        """Take records in their order; what is not one of them is passed over, and said."""
        for value in values:
            try:
                schema, record = decode_as_newest(value or b"")
                if schema.topic != MODEL_RELEASES:
                    continue
                found = release_of(record)
            except UndecodableError:
                continue
            except ReleaseError as error:
                self.not_taken.happened(1, error=str(error))
                continue
            self.releases[found.release] = found

    @property
    def in_order(self) -> list[ModelRelease]:
        """All releases, by when they came to their stage."""
        return sorted(self.releases.values(), key=lambda one: (one.since_ms, one.release))

    @property
    def wanted(self) -> WantedModels:
        """What workers are to run."""
        newest_last = self.in_order
        live = [one for one in newest_last if one.stage is Stage.LIVE]
        canaries = [one for one in newest_last if one.stage is Stage.CANARY]
        shadows = [one for one in newest_last if one.stage is Stage.SHADOW]
        return WantedModels(
            live[-1] if live else None, canaries[-1] if canaries else None, tuple(shadows[-SHADOWS_MAX:])
        )  # fmt: skip

    @property
    def before_live(self) -> tuple[ModelRelease, ...]:
        """The release that decides again when the live one is withdrawn: its model is kept at hand."""
        live = [one for one in self.in_order if one.stage is Stage.LIVE]
        return tuple(live[-2:-1])
