"""All releases of models, as people work with them: who may take which step, and what is written for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from services.codec.model_releases import (
    MODEL_RELEASES,
    RELEASE_ACKS,
    Guards,
    ModelRelease,
    ModelReleaseAck,
    Proposal,
    ReleaseError,
    Stage,
    ack_of,
)
from services.codec.records import UndecodableError, decode_as_newest
from services.decision.release_log import ModelReleaseLog
from services.decision.rule_sets import HEARD_EVERY_S, read_all
from services.runtime.clock import Clock
from services.streams import StreamsError
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

SILENT_AFTER_S: Final = 3 * HEARD_EVERY_S
"""A worker that has said nothing for so long is not there."""
FLUSH_S: Final = 10.0
DECIDES: Final = (Stage.CANARY, Stage.LIVE)
"""The stages that change decisions: they need a second person."""


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody asks for."""

    release: str
    stage: Stage
    author: str
    reason: str
    share: float = 0.0
    guards: Guards = field(default_factory=Guards)
    rule_set_version: int | None = None

    def __post_init__(self) -> None:
        if self.stage is Stage.CANARY and not 0 < self.share < 1:
            raise ReleaseError(
                f"a canary decides for a share of the cards between 0 and 1: --share 0.05, not {self.share:g}"
            )
        if self.stage is not Stage.CANARY and self.share:
            raise ReleaseError(f"only a canary has a share, and the stage is {self.stage.name}")
        if self.rule_set_version is not None and self.stage is not Stage.SHADOW:
            raise ReleaseError("only a release in the shadow has rules of its own")


def asked(
    log: ModelReleaseLog, step: Step, files: Callable[[], tuple[str, dict[str, str]]], now_ms: int, *, four_eyes: bool
) -> ModelRelease:
    """Return the record of a step that somebody asks for: taken at once, or waiting for a second person.

    Args:
        log: what was announced before.
        step: what is asked for.
        files: returns the location of the model and the SHA-256 of its files, once it is verified; may raise ModelError.
        now_ms: the time.
        four_eyes: whether what changes decisions waits.

    Raises:
        ReleaseError: the step cannot be taken.
    """
    location, sha256 = files()
    known = log.releases.get(step.release)
    if known is None or known.stage in (Stage.PROPOSED, Stage.WITHDRAWN) or dict(known.files) != sha256:
        if known is not None and known.stage in (*DECIDES, Stage.SHADOW):
            raise ReleaseError(
                f"the files of {step.release} are others than those that are {known.stage.name}: a changed model is another "
                "version"
            )
        known = ModelRelease(step.release, Stage.PROPOSED, now_ms, location, sha256, step.author, now_ms)
    if known.stage is step.stage and known.share == step.share and step.stage is not Stage.SHADOW:
        raise ReleaseError(f"{step.release} is {step.stage.name} already")
    if four_eyes and step.stage in DECIDES:
        waiting = Proposal(step.stage, step.share, step.guards, step.author, now_ms, step.reason)
        return replace(known, at_ms=now_ms, proposed=waiting)
    return replace(
        known, stage=step.stage, share=step.share, since_ms=now_ms, author=step.author, at_ms=now_ms, reason=step.reason,
        guards=step.guards, rule_set_version=step.rule_set_version, approved_by=None, proposed=None,
    )  # fmt: skip


def approved(log: ModelReleaseLog, release: str, person: str, now_ms: int) -> ModelRelease:
    """Return the record with which a person approves what another one asked for. Raises ReleaseError."""
    known = _known(log, release)
    waiting = known.proposed
    if waiting is None:
        raise ReleaseError(f"nothing waits for approval: {release} is {known.stage.name}")
    if waiting.author == person:
        raise ReleaseError(
            f"{person} asked for {release} to be {waiting.stage.name}: another person approves it (four_eyes)"
        )
    return replace(
        known, stage=waiting.stage, share=waiting.share, since_ms=now_ms, author=waiting.author, at_ms=now_ms,
        reason=waiting.reason, guards=waiting.guards, approved_by=person, proposed=None, rule_set_version=None,
    )  # fmt: skip


def taken_back(log: ModelReleaseLog, release: str | None, person: str, reason: str, now_ms: int) -> ModelRelease:
    """Return the record that takes a release back; the live one if none is named. Raises ReleaseError."""
    if release is None:
        live = log.wanted.live
        if live is None:
            raise ReleaseError("no release is live: the model of the settings decides, and cannot be taken back")
        release = live.release
    known = _known(log, release)
    if known.stage is Stage.WITHDRAWN and known.proposed is None:
        raise ReleaseError(f"{release} was taken back already")
    return known.withdrawn(person, now_ms, reason)


def _known(log: ModelReleaseLog, release: str) -> ModelRelease:
    if release not in log.releases:
        there = ", ".join(sorted(log.releases)) or "none"
        raise ReleaseError(f"{release[:60]!r} was never released; announced are: {there}")
    return log.releases[release]


class ModelReleases:
    """Reads the topic of releases, and writes to it."""

    def __init__(self, connection: KafkaConnection, clock: Clock) -> None:
        """Raises StreamsError."""
        self._connection, self._clock = connection, clock
        self.log = ModelReleaseLog()
        self._catch_up()

    def _catch_up(self) -> None:
        reader = KafkaReader(self._connection, [MODEL_RELEASES], from_beginning=True)
        try:
            self.log.add(read_all(reader))
        finally:
            reader.close()

    def announce(self, release: ModelRelease) -> None:
        """Write a record. Raises StreamsError."""
        sink = KafkaSink(self._connection)
        key, value = release.record()
        sink.send(MODEL_RELEASES, [key], [value])
        acknowledged = sink.flush(FLUSH_S)
        sink.close()
        if not acknowledged:
            raise StreamsError(f"Kafka did not take the record within {FLUSH_S:.0f} s")
        self.log.add([value])

    def acks(self) -> list[ModelReleaseAck]:
        """Return what each worker that is there said last. Raises StreamsError."""
        reader = KafkaReader(self._connection, [RELEASE_ACKS], from_beginning=True)
        try:
            heard: dict[bytes, ModelReleaseAck] = {}
            while not reader.caught_up():
                _hear(reader, heard, 0.2)
            return _there(heard, self._clock.now_ms())
        finally:
            reader.close()

    def wait(self, release: ModelRelease, wait_s: float) -> tuple[list[str], list[str], dict[str, str]]:
        """Wait until every worker that is heard of does what a release's stage says, or cannot.

        Returns:
            The workers that do, those that have not said so, and of each that cannot, why.

        Raises:
            StreamsError: Kafka does not answer.
        """
        reader = KafkaReader(self._connection, [RELEASE_ACKS], from_beginning=True)
        heard: dict[bytes, ModelReleaseAck] = {}
        until_s = self._clock.monotonic_s() + wait_s
        try:
            while True:
                _hear(reader, heard, 0.05)
                there = _there(heard, self._clock.now_ms())
                done = [ack.worker for ack in there if ack.runs(release)]
                refused = {a.worker: a.refused[release.release] for a in there if release.release in a.refused}
                waiting = [a.worker for a in there if a.worker not in done and a.worker not in refused]
                if (reader.caught_up() and there and not waiting) or self._clock.monotonic_s() > until_s:
                    return done, waiting, refused
        finally:
            reader.close()


def _hear(reader: KafkaReader, heard: dict[bytes, ModelReleaseAck], timeout_s: float) -> None:
    for records in reader.read(timeout_s):
        for key, value in zip(records.keys, records.values, strict=True):
            heard.pop(key or b"", None)
            if value is not None:
                try:
                    heard[key or b""] = ack_of(decode_as_newest(value)[1])
                except (UndecodableError, KeyError):
                    continue


def _there(heard: dict[bytes, ModelReleaseAck], now_ms: int) -> list[ModelReleaseAck]:
    there = [ack for ack in heard.values() if now_ms - ack.heard_ms < 1000 * SILENT_AFTER_S]
    return sorted(there, key=lambda ack: ack.worker)
