"""Releases of models, and what workers say of them, as records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Final

from services.codec.records import encode_written

MODEL_RELEASES: Final = "model-releases"
RELEASE_ACKS: Final = "model-release-acks"
RELEASE: Final = re.compile(r"[a-z][a-z0-9-]{0,30}/v[1-9][0-9]{0,5}")
"""How a release is named."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")


class ReleaseError(ValueError):
    """A release that is not one, or a step that it cannot take."""


class Stage(Enum):
    """How far a release has come; in the order of the Avro enum."""

    PROPOSED = "it waits for a second person, and is used for nothing"
    SHADOW = "it scores beside the live one, and decides nothing"
    CANARY = "it decides for a share of the cards"
    LIVE = "it decides"
    WITHDRAWN = "it was taken back"
    OTHER = "a stage that only a newer version of this code knows: it is used for nothing"


@dataclass(frozen=True, slots=True)
class Guards:
    """What a canary must keep to; None: that is not looked at."""

    alert_share_max: float | None = None
    """The most of its decisions that may be other than APPROVE, 0 to 1."""
    score_shift_max: float | None = None
    """The most that its scores may differ from the live model's: a population stability index."""
    error_share_max: float | None = None
    """The most of its batches that may raise an exception, 0 to 1."""
    latency_max_ms: float | None = None
    """The most that deciding on a batch may take longer than with the live model, in the mean."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 0 <= value < float("inf"):
                raise ReleaseError(f"the guard {one.name} is a number from 0, not {value}")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A stage that waits for a second person."""

    stage: Stage
    share: float
    guards: Guards
    author: str
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class ModelRelease:
    """A model, and its stage. Raises ReleaseError when it is made of what cannot be."""

    release: str
    """NAME/vN."""
    stage: Stage
    since_ms: int
    """When it came to this stage: of several that are LIVE the newest decides."""
    location: str
    """The folder of its files; relative: within the folder of all models of whoever loads it."""
    files: Mapping[str, str]
    """The SHA-256 of each file."""
    author: str
    at_ms: int
    share: float = 0.0
    """Of the cards that a CANARY decides on, 0 to 1."""
    approved_by: str | None = None
    reason: str = ""
    guards: Guards = field(default_factory=Guards)
    rule_set_version: int | None = None
    """The rules that a SHADOW decides by; None: the live ones."""
    proposed: Proposal | None = None

    def __post_init__(self) -> None:
        if not RELEASE.fullmatch(self.release):
            raise ReleaseError(f"a model is named like fraud/v4, not {self.release[:60]!r}")
        if not self.location or ".." in self.location.split("/"):
            raise ReleaseError(f"the location of {self.release} is a folder, without ..")
        if not 0 <= self.share <= 1 or (self.stage is Stage.CANARY and not 0 < self.share < 1):
            raise ReleaseError(f"a canary decides for a share of the cards between 0 and 1, not {self.share}")
        if not self.files or not all(_FILE.fullmatch(n) and _SHA256.fullmatch(h) for n, h in self.files.items()):
            raise ReleaseError(f"the files of {self.release} are names with their SHA-256")

    def record(self) -> tuple[bytes, bytes]:
        """Return the key and the value of the record."""
        value = _plain(self) | {
            "files": [{"name": name, "sha256": sha256} for name, sha256 in sorted(self.files.items())],
            "guards": _plain(self.guards),
            "proposed": None
            if self.proposed is None
            else _plain(self.proposed) | {"guards": _plain(self.proposed.guards)},
        }
        return self.release.encode(), encode_written(MODEL_RELEASES, value)

    def withdrawn(self, author: str, at_ms: int, reason: str) -> ModelRelease:
        """Return it as taken back."""
        return replace(
            self, stage=Stage.WITHDRAWN, share=0.0, since_ms=at_ms, at_ms=at_ms, author=author, reason=reason,
            approved_by=None, proposed=None,
        )  # fmt: skip


def release_of(record: Mapping[str, Any]) -> ModelRelease:
    """Return the release of a decoded record. Raises ReleaseError."""
    proposed = record["proposed"]
    return ModelRelease(
        **{name: record[name] for name in _COPIED},
        stage=Stage[record["stage"]],
        files={one["name"]: one["sha256"] for one in record["files"]},
        guards=Guards(**record["guards"]),
        proposed=None
        if proposed is None
        else Proposal(**proposed | {"stage": Stage[proposed["stage"]], "guards": Guards(**proposed["guards"])}),
    )


_COPIED: Final = tuple(f.name for f in fields(ModelRelease) if f.name not in ("stage", "files", "guards", "proposed"))


def _plain(one: Any) -> dict[str, Any]:
    found = {f.name: getattr(one, f.name) for f in fields(one)}
    return {name: value.name if isinstance(value, Stage) else value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class ModelReleaseAck:
    """Which models one worker runs."""

    worker: str
    decides: bool
    """Whether it decides on transactions, so that canaries and shadows are its business."""
    live: str
    """NAME/vN; empty: none can be used."""
    canary: str
    """NAME/vN; empty: none."""
    share: float
    shadows: tuple[str, ...]
    since_ms: int
    heard_ms: int
    refused: Mapping[str, str]
    """Of each release that this worker cannot run, why."""

    def record(self) -> tuple[bytes, bytes]:
        """Return the key and the value of the record."""
        value = _plain(self) | {
            "shadows": list(self.shadows),
            "refused": [{"release": name, "error": error} for name, error in sorted(self.refused.items())],
        }
        return self.worker.encode(), encode_written(RELEASE_ACKS, value)

    def runs(self, wanted: ModelRelease) -> bool:
        """Whether this worker does what a release's stage says."""
        if wanted.stage is Stage.LIVE:
            return self.live == wanted.release
        if not self.decides and wanted.stage is not Stage.WITHDRAWN:
            return True
        if wanted.stage is Stage.CANARY:
            return self.canary == wanted.release and self.share == wanted.share
        if wanted.stage is Stage.SHADOW:
            return wanted.release in self.shadows
        return wanted.release not in (self.live, self.canary, *self.shadows)


def ack_of(record: Mapping[str, Any]) -> ModelReleaseAck:
    """Return what a decoded record says."""
    copied = {f.name: record[f.name] for f in fields(ModelReleaseAck)}
    refused = {one["release"]: one["error"] for one in record["refused"]}
    return ModelReleaseAck(**copied | {"shadows": tuple(record["shadows"]), "refused": refused})
