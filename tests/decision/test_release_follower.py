"""A worker that follows releases: loads beside its thread, switches, refuses what cannot be used, withdraws what breaks its guards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.codec.model_releases import Guards, ModelRelease, Stage, ack_of, release_of
from services.codec.records import decode_as_newest
from services.decision import release_follower
from services.decision.model_loader import ModelLoader
from services.decision.release_follower import GUARD, SAID_AGAIN_EVERY_S, ModelReleaseFollower, Tools
from services.decision.release_loading import RETRY_EVERY_S, ReleaseLoader, files_of
from services.decision.release_watch import ReleaseWatch
from services.inference import ModelError
from services.inference.released import live_model
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import resolve_settings
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from tests.decision.candidates import Later, candidate
from tests.decision.test_releases import SAFE, STRICT, good
from tests.scorer.test_scorer import decide


class Topic:
    """Kafka as far as a follower sees it: what is announced, and what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.announced: list[bytes | None] = []
        self.said: list[tuple[str, bytes | None, bytes | None]] = []
        topic = self

        class Reader:
            def __init__(self, *_: Any, **__: Any) -> None:
                self.at = 0

            def caught_up(self) -> bool:
                return self.at == len(topic.announced)

            def read(self, timeout_s: float) -> list[Records]:  # noqa: ARG002 - the signature
                new, self.at = topic.announced[self.at :], len(topic.announced)
                zeros = np.zeros(len(new), np.int64)
                return [Records("model-releases", zeros, zeros, zeros, [None] * len(new), new)] if new else []

            def close(self) -> None:
                pass

        class Sink:
            def __init__(self, *_: Any) -> None:
                pass

            def send(self, name: str, keys: Any, values: Any) -> None:
                topic.said.append((name, keys[0], values[0]))

            def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - the signature
                return True

            def close(self) -> None:
                pass

        monkeypatch.setattr(release_follower, "KafkaReader", Reader)
        monkeypatch.setattr(release_follower, "KafkaSink", Sink)

    def announce(self, *releases: ModelRelease) -> None:
        self.announced += [one.record()[1] for one in releases]

    @property
    def ack(self) -> Any:
        return ack_of(decode_as_newest([v for t, _, v in self.said if t == "model-release-acks" and v][-1])[1])

    @property
    def withdrawn(self) -> list[ModelRelease]:
        return [release_of(decode_as_newest(v or b"")[1]) for t, _, v in self.said if t == "model-releases"]


class Scene:
    """One worker that follows, with a folder of models."""

    def __init__(self, topic: Topic, models: Path) -> None:
        self.topic, self.models = topic, models
        self.clock, self.background = ManualClock(1_000_000), Later()
        self.metrics = MetricsRegistry(m.SCORER_METRICS)
        self.health = Health(self.clock, {"model_verified": False})
        self.processor = ScorerProcessor(None, SAFE)
        self.processor.watch = ReleaseWatch(self.clock.monotonic_s)
        loader = ReleaseLoader(lambda: models, self.background, self.clock.monotonic_s)
        tools = Tools(self.clock, self.metrics, self.health)
        self.follower = ModelReleaseFollower(None, "w-1", tools, loader, self.processor)  # type: ignore[arg-type]
        settings = resolve_settings({"model_path": str(live_model())}, {})
        self.follower.settings_model = ModelLoader(settings, self.clock, self.follower.adopt_base)
        self.follower.settings_model.load()

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.sleep(seconds)
        self.follower.turn()

    def release(self, version: str, stage: Stage, since_ms: int, **more: Any) -> ModelRelease:
        folder = self.models / "fraud" / version
        name = f"fraud/{version}"
        return ModelRelease(name, stage, since_ms, name, files_of(folder), "ana", since_ms, **more)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for version in ("v5", "v6"):
        candidate(tmp_path, version, challenge=STRICT)
    return Scene(Topic(monkeypatch), tmp_path)


def version_of(scene: Scene) -> str:
    keys, values = good(3)
    return str(decide(keys, values, processor=scene.processor)[2]["card-decisions"][0]["model_version"])


def test_what_is_live_when_a_worker_starts_decides_from_its_first_batch(scene):
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1))
    scene.follower.begin()

    assert version_of(scene) == "v5"
    assert scene.topic.ack.live == "fraud/v5"
    assert scene.health.conditions["model_verified"]
    assert scene.metrics.value(m.MODEL_INFO, "fraud", "v5") == 1


def test_a_model_is_loaded_beside_the_worker_and_decides_once_it_is_there(scene):
    scene.follower.begin()
    assert (version_of(scene), scene.topic.ack.live) == ("v4", "fraud/v4")
    scene.background.held = True
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1))
    for _ in range(3):
        scene.turn(0.1)
        assert version_of(scene) == "v4"
    scene.background.held = False
    scene.turn()

    assert version_of(scene) == "v5"
    assert scene.topic.ack.live == "fraud/v5"


def test_going_back_loads_nothing(scene):
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1), scene.release("v6", Stage.LIVE, 2))
    scene.follower.begin()
    scene.turn()
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1))  # its model was not needed yet
    assert version_of(scene) == "v6"
    scene.topic.announce(scene.release("v6", Stage.LIVE, 2).withdrawn("bo", 5, "why"))
    scene.turn()
    scene.turn()
    assert version_of(scene) == "v5"
    scene.background.held = True
    scene.topic.announce(scene.release("v6", Stage.LIVE, 7))
    scene.turn()
    scene.background.held = False
    scene.turn()
    assert version_of(scene) == "v6"
    scene.background.held = True  # nothing could be loaded from here
    scene.topic.announce(scene.release("v6", Stage.LIVE, 7).withdrawn("bo", 9, "why"))
    scene.turn()
    assert version_of(scene) == "v5"
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1).withdrawn("bo", 10, "why"))
    scene.turn()
    assert version_of(scene) == "v4", "the model of the settings"


def damage(folder: Path) -> None:
    (folder / "champion.json").write_bytes((folder / "champion.json").read_bytes()[:-10])


@pytest.mark.parametrize("how", ["missing", "truncated", "changed manifest", "other version"])
def test_a_release_that_cannot_be_verified_changes_nothing_and_is_said_until_it_can_be(scene, how, caplog):
    scene.follower.begin()
    announced = scene.release("v5", Stage.LIVE, 1)
    folder, away = scene.models / "fraud/v5", scene.models / "away"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if how == "missing":
        folder.rename(away)
    elif how == "truncated":
        damage(folder)
    elif how == "changed manifest":
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")
    else:
        announced = ModelRelease(
            "fraud/v5", Stage.LIVE, 1, "fraud/v6", scene.release("v6", Stage.LIVE, 1).files, "ana", 1
        )
    scene.topic.announce(announced)
    scene.turn()
    scene.turn()

    assert version_of(scene) == "v4"
    assert list(scene.topic.ack.refused) == ["fraud/v5"]
    assert scene.topic.ack.live == "fraud/v4"
    assert scene.metrics.value(m.RELEASES_REFUSED) == 1
    assert caplog.text.count("a release cannot be used") == 1
    if how == "other version":
        assert "released as fraud/v5" in scene.topic.ack.refused["fraud/v5"]
        return
    if how == "missing":
        away.rename(folder)
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    scene.turn(RETRY_EVERY_S + 1)
    scene.turn()
    assert version_of(scene) == "v5"
    assert scene.topic.ack.refused == {}
    assert scene.metrics.value(m.RELEASES_REFUSED) == 0


def test_a_worker_that_only_assesses_again_follows_what_is_live_alone(scene):
    scene.processor.runs_beside = False
    scene.topic.announce(scene.release("v5", Stage.CANARY, 1, share=0.5), scene.release("v6", Stage.SHADOW, 2))
    scene.follower.begin()
    ack = scene.topic.ack
    assert (ack.live, ack.canary, ack.shadows, ack.decides) == ("fraud/v4", "", (), False)


def test_canary_and_shadow_are_said_and_taken_up(scene):
    canary, shadow = scene.release("v5", Stage.CANARY, 1, share=0.5), scene.release("v6", Stage.SHADOW, 2)
    scene.topic.announce(canary, shadow)
    scene.follower.begin()
    ack = scene.topic.ack
    assert (ack.canary, ack.share, ack.shadows) == ("fraud/v5", 0.5, ("fraud/v6",))
    assert ack.runs(canary)
    assert ack.runs(shadow)
    assert not ack.runs(scene.release("v5", Stage.LIVE, 1))
    assert scene.metrics.value(m.RELEASES_BESIDE, "fraud", "v6", "SHADOW") == 1
    keys, values = good(100)
    found = decide(keys, values, processor=scene.processor)[1]
    assert {o.topic for o in found.outputs} >= {"card-decisions", "shadow-decisions"}


def test_a_shadow_whose_rules_nobody_saved_is_refused(scene):
    scene.topic.announce(scene.release("v6", Stage.SHADOW, 2, rule_set_version=3))
    scene.follower.begin()
    assert "fraud/v6" in scene.topic.ack.refused


def test_a_canary_that_breaks_its_guards_is_withdrawn_here_at_once_and_for_all_by_a_record(scene, caplog):
    canary = scene.release("v5", Stage.CANARY, 1, share=0.5, guards=Guards(alert_share_max=0.2))
    scene.topic.announce(canary)
    scene.follower.begin()
    keys, values = good(2_000)
    before = {d["model_version"] for o in decide(keys, values, processor=scene.processor)[1].outputs
              if o.topic == "card-decisions" for d in [decode_as_newest(v or b"")[1] for v in o.values]}  # fmt: skip
    scene.turn(1.5)

    assert before == {"v4", "v5"}
    assert version_of(scene) == "v4"
    [said] = scene.topic.withdrawn
    assert (said.release, said.stage, said.author) == ("fraud/v5", Stage.WITHDRAWN, GUARD)
    assert "are not APPROVE" in said.reason
    assert scene.metrics.value(m.GUARD_WITHDRAWALS) == 1
    assert scene.topic.ack.canary == ""
    scene.turn(SAID_AGAIN_EVERY_S + 1)
    assert len(scene.topic.withdrawn) == 2, "the topic does not say so yet"
    scene.topic.announce(scene.topic.withdrawn[0])
    for _ in range(3):
        scene.turn(SAID_AGAIN_EVERY_S + 1)
    assert len(scene.topic.withdrawn) == 2
    scene.topic.announce(scene.release("v5", Stage.CANARY, 3, share=0.1))  # somebody tries again
    scene.turn()
    scene.turn()
    assert scene.topic.ack.canary == "fraud/v5"


def test_the_model_of_the_settings_is_not_tried_again_while_a_release_decides(scene, monkeypatch):
    tried = []
    monkeypatch.setattr(scene.follower.settings_model, "turn", lambda: tried.append(1))
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1))
    scene.follower.begin()
    scene.turn()
    assert not tried
    scene.topic.announce(scene.release("v5", Stage.LIVE, 1).withdrawn("bo", 2, ""))
    scene.turn()
    scene.turn()
    assert tried


def test_files_of_a_model_that_cannot_be_used_are_not_released(scene):
    damage(scene.models / "fraud/v5")
    with pytest.raises(ModelError):
        scene.release("v5", Stage.LIVE, 1)
