"""A worker that keeps up with the topic of releases: loads what is announced, switches between two batches, and says what it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.codec.model_releases import MODEL_RELEASES, RELEASE_ACKS, ModelRelease, ModelReleaseAck
from services.core.rules.engine import RuleEngine
from services.core.rules.syntax import RuleError
from services.decision.model_loader import ModelLoader
from services.decision.release_loading import Key, ReleaseLoader, key_of
from services.decision.release_log import NOT_TAKEN, ModelReleaseLog, WantedModels
from services.decision.releases import CanaryModel, FollowsReleases, ModelsInUse, ShadowModel
from services.decision.rule_sets import FETCH_WAIT_MS, HEARD_EVERY_S, read_all
from services.inference import Model
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.rate_limited_log import Repeated
from services.streams import StreamsError
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

log = logging.getLogger("proact.model")

LOOKED_AT_EVERY_S: Final = 1.0
"""How often a canary is held against its guards."""
SAID_AGAIN_EVERY_S: Final = 5.0
"""How often it is written that a canary is withdrawn, until the topic says so."""
GUARD: Final = "guard"
"""Who withdraws a canary that does not keep to its guards."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a follower works with."""

    clock: Clock
    metrics: MetricsRegistry
    health: Health


class ModelReleaseFollower:
    """Keeps one worker's models up to date; see :class:`services.worker.followers.Follower`.

    What decides where nothing is announced as live is the model of the settings, which a :class:`ModelLoader` keeps.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        worker: str,
        tools: Tools,
        loader: ReleaseLoader,
        adopting: FollowsReleases,
    ) -> None:
        self._connection, self._worker, self._tools = connection, worker, tools
        self._loader, self._adopting = loader, adopting
        self.settings_model: ModelLoader | None = None
        self.rules_of: Callable[[int], RuleEngine] | None = None
        """Returns the engine of a saved version of the rules; may raise RuleError."""
        self._log = ModelReleaseLog(not_taken=Repeated(log, NOT_TAKEN, tools.clock))
        self._reader: KafkaReader | None = None
        self._sink: KafkaSink | None = None
        self._base: Model | None = None
        self._live: ModelRelease | None = None
        """What is announced as live and runs; None: the model of the settings does."""
        self._refused: dict[str, str] = {}
        self._withdrawn: dict[Key, tuple[ModelRelease, float]] = {}
        """Canaries that this worker withdrew, and when it last said so."""
        self._running = ModelsInUse(None)
        self._since_ms = 0
        self._heard_at_s = self._looked_at_s = 0.0

    # -- the follower ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._sink is not None:
            return
        if self._reader is None:
            self._reader = KafkaReader(
                self._connection, [MODEL_RELEASES], from_beginning=True, fetch_wait_ms=FETCH_WAIT_MS
            )
        self._log.add(read_all(self._reader))
        self._loader.load_now(self._wanted.all)  # before anything is decided: by the model that the others decide by
        self._sink = KafkaSink(self._connection)
        self._switch()
        self._acknowledge()

    def turn(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._reader is None or self._sink is None:
            return
        came = False
        for records in self._reader.read(0.0):
            self._log.add(records.values)
            came = True
        self._log.not_taken.pending()
        changed = self._loader.turn(self._wanted.all)
        if self._live is None and self.settings_model is not None:
            self.settings_model.turn()
        if came or changed or self._breached() or self._adopting.shadows.failed.keys() - self._refused.keys():
            self._switch()
            self._acknowledge()
        elif self._tools.clock.monotonic_s() - self._heard_at_s > HEARD_EVERY_S:
            self._acknowledge()

    def close(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        self._loader.close()
        if self._reader is not None:
            self._reader.close()
        if self._sink is not None:
            self._send(RELEASE_ACKS, self._worker.encode(), None)
            self._sink.close()

    def adopt_base(self, model: Model | None) -> None:
        """Take the model of the settings, or what of it can be used: it decides while no release is live."""
        self._base = model
        self._switch()

    # -- switching -------------------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> WantedModels:
        wanted = self._log.wanted
        if not self._adopting.runs_beside:
            return WantedModels(wanted.live)
        if wanted.canary is not None and key_of(wanted.canary) in self._withdrawn:
            return WantedModels(wanted.live, None, wanted.shadows)
        return wanted

    def _switch(self) -> None:
        """Run what is announced, as far as it can be used: what cannot changes nothing, and is said."""
        wanted, loaded = self._wanted, self._loader.loaded
        refused = {one.release: self._loader.refused.get(key_of(one), "") for one in wanted.all}
        refused = {name: why for name, why in refused.items() if why} | self._adopting.shadows.failed
        if wanted.live is None or key_of(wanted.live) in loaded:
            self._live = wanted.live
        canary = wanted.canary if wanted.canary is not None and key_of(wanted.canary) in loaded else None
        shadows = []
        for one in wanted.shadows:
            if key_of(one) in loaded and one.release not in refused:
                try:
                    shadows.append(self._shadow(one))
                except RuleError as error:
                    refused[one.release] = str(error)
        models = ModelsInUse(
            self._base if self._live is None else loaded[key_of(self._live)],
            None if canary is None else CanaryModel(
                canary.release, loaded[key_of(canary)], canary.share, canary.guards
            ),
            tuple(shadows),
        )  # fmt: skip
        self._say_refused(refused)
        self._loader.keep([*wanted.all, *([self._live] if self._live else []), *self._log.before_live])
        if models != self._running or self._since_ms == 0:
            self._running, self._since_ms = models, self._tools.clock.now_ms()
            self._adopting.adopt_models(models)
            self._say_running(models)

    def _shadow(self, one: ModelRelease) -> ShadowModel:
        rules = None
        if one.rule_set_version is not None:
            if self.rules_of is None:
                raise RuleError("it has rules of its own, and this worker follows none")
            rules = self.rules_of(one.rule_set_version)
        return ShadowModel(one.release, self._loader.loaded[key_of(one)], one.rule_set_version, rules)

    def _breached(self) -> bool:
        """Withdraw a canary that does not keep to its guards: at once here, and for all by a record. Return whether it did."""
        now_s, watch, canary = self._tools.clock.monotonic_s(), self._adopting.watch, self._wanted.canary
        for key, (release, said_s) in list(self._withdrawn.items()):
            now_announced = self._log.releases.get(release.release)
            if now_announced is None or now_announced.stage is not release.stage or key_of(now_announced) != key:
                del self._withdrawn[key]  # the topic says so
            elif now_s - said_s > SAID_AGAIN_EVERY_S:
                self._withdraw(now_announced, release.reason, now_s)
        if watch is None or canary is None or now_s - self._looked_at_s < LOOKED_AT_EVERY_S:
            return False
        self._looked_at_s = now_s
        why = watch.breach(canary.guards)
        if why is None:
            return False
        log.error(
            "a canary is withdrawn: it does not keep to its guards", extra=fields(release=canary.release, why=why)
        )
        self._tools.metrics.add(m.GUARD_WITHDRAWALS)
        self._withdraw(canary, why, now_s)
        return True

    def _withdraw(self, release: ModelRelease, why: str, now_s: float) -> None:
        self._withdrawn[key_of(release)] = release, now_s
        self._send(MODEL_RELEASES, *release.withdrawn(GUARD, self._tools.clock.now_ms(), why).record())

    # -- saying ----------------------------------------------------------------------------------------------------

    def _say_refused(self, refused: dict[str, str]) -> None:
        for name, why in refused.items():
            if self._refused.get(name) != why:
                log.error("a release cannot be used", extra=fields(release=name, error=why))
        self._refused = refused
        self._tools.metrics.set(m.RELEASES_REFUSED, len(refused))

    def _say_running(self, models: ModelsInUse) -> None:
        live, metrics = models.live, self._tools.metrics
        complete = live is not None and live.champion is not None
        self._tools.health.set("model_verified", complete)
        metrics.set(m.MODEL_COMPLETE, int(complete))
        metrics.replace(m.MODEL_INFO, {} if live is None else {(live.name, live.version): 1.0})
        beside = [
            *([("CANARY", models.canary.model)] if models.canary else []),
            *(("SHADOW", s.model) for s in models.shadows),
        ]
        metrics.replace(m.RELEASES_BESIDE, {(one.name, one.version, stage): 1.0 for stage, one in beside})
        said = fields(
            live=_name(live), canary=models.canary.release if models.canary else "",
            shadows=[one.release for one in models.shadows],
        )  # fmt: skip
        log.info("runs models", extra=said)

    def _acknowledge(self) -> None:
        self._heard_at_s = self._tools.clock.monotonic_s()
        running = self._running
        ack = ModelReleaseAck(
            worker=self._worker,
            decides=self._adopting.runs_beside,
            live=_name(running.live),
            canary=running.canary.release if running.canary else "",
            share=running.canary.share if running.canary else 0.0,
            shadows=tuple(one.release for one in running.shadows if one.release not in self._adopting.shadows.failed),
            since_ms=self._since_ms,
            heard_ms=self._tools.clock.now_ms(),
            refused=self._refused,
        )
        self._send(RELEASE_ACKS, *ack.record())

    def _send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Say it, if Kafka is there: what is not heard now is said again in a while."""
        assert self._sink is not None
        try:
            self._sink.send(topic, [key], [value])
            self._sink.flush(1.0 if value is None else 0.0)
        except StreamsError as error:
            log.warning("what this worker runs could not be said", extra=fields(error=str(error)))


def _name(model: Model | None) -> str:
    return "" if model is None else f"{model.name}/{model.version}"
