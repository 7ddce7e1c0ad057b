"""Who may take which step with a model: what changes decisions takes two people, going back takes one."""

from __future__ import annotations

from typing import Any

import pytest

from services.codec.model_releases import Guards, ModelRelease, ReleaseError, Stage
from services.decision.release_log import ModelReleaseLog
from services.rulebook.releases import Step, approved, asked, taken_back

FILES = {"manifest.json": "a" * 64}


class Steps:
    """The topic, and what people do."""

    def __init__(self, *, four_eyes: bool = True) -> None:
        self.log, self.now_ms, self.four_eyes = ModelReleaseLog(), 0, four_eyes
        self.files = dict(FILES)

    def _write(self, release: ModelRelease) -> ModelRelease:
        self.log.add([release.record()[1]])
        return self.log.releases[release.release]

    def ask(self, stage: Stage, author: str = "ana", release: str = "fraud/v5", **more: Any) -> ModelRelease:
        self.now_ms += 1
        step = Step(release, stage, author, "why", **more)
        return self._write(asked(self.log, step, lambda: (release, self.files), self.now_ms, four_eyes=self.four_eyes))

    def approve(self, person: str, release: str = "fraud/v5") -> ModelRelease:
        self.now_ms += 1
        return self._write(approved(self.log, release, person, self.now_ms))

    def back(self, release: str | None = None) -> ModelRelease:
        self.now_ms += 1
        return self._write(taken_back(self.log, release, "ana", "why", self.now_ms))


def test_a_shadow_begins_at_once_and_what_decides_waits_for_another_person():
    steps = Steps()
    assert steps.ask(Stage.SHADOW).stage is Stage.SHADOW
    guards = Guards(alert_share_max=0.1)
    waiting = steps.ask(Stage.CANARY, share=0.05, guards=guards)
    assert (waiting.stage, waiting.share) == (Stage.SHADOW, 0.0), "it goes on as it was"
    with pytest.raises(ReleaseError, match="another person"):
        steps.approve("ana")
    assert steps.log.wanted.canary is None

    canary = steps.approve("bo")
    assert (canary.stage, canary.share, canary.author, canary.approved_by) == (Stage.CANARY, 0.05, "ana", "bo")
    assert (canary.guards, canary.proposed) == (guards, None)
    steps.ask(Stage.LIVE, "cy")
    live = steps.approve("ana")
    assert steps.log.wanted.live == live
    assert (live.author, live.approved_by) == ("cy", "ana")
    with pytest.raises(ReleaseError, match="nothing waits"):
        steps.approve("bo")


def test_one_person_takes_a_release_back_and_what_was_live_before_decides():
    steps = Steps(four_eyes=False)
    steps.ask(Stage.LIVE, release="fraud/v5")
    steps.ask(Stage.LIVE, release="fraud/v6")
    assert steps.back().release == "fraud/v6"
    assert steps.log.wanted.live is not None
    assert steps.log.wanted.live.release == "fraud/v5"
    steps.back()
    with pytest.raises(ReleaseError, match="no release is live"):
        steps.back()
    with pytest.raises(ReleaseError, match="already"):
        steps.back("fraud/v5")


def test_a_proposal_can_be_taken_back_before_it_is_approved():
    steps = Steps()
    steps.ask(Stage.LIVE)
    steps.back("fraud/v5")
    with pytest.raises(ReleaseError, match="nothing waits"):
        steps.approve("bo")
    assert steps.ask(Stage.SHADOW).stage is Stage.SHADOW


def test_a_model_whose_files_changed_is_another_version():
    steps = Steps(four_eyes=False)
    steps.ask(Stage.SHADOW)
    steps.files = {"manifest.json": "b" * 64}
    with pytest.raises(ReleaseError, match="another version"):
        steps.ask(Stage.LIVE)
    steps.back("fraud/v5")
    assert steps.ask(Stage.LIVE).files == steps.files


def test_what_was_approved_is_what_was_asked_for_last():
    steps = Steps()
    steps.ask(Stage.CANARY, share=0.5)
    steps.ask(Stage.CANARY, "bo", share=0.01)
    with pytest.raises(ReleaseError):
        steps.approve("bo")
    assert steps.approve("ana").share == 0.01


@pytest.mark.parametrize(
    ("stage", "more", "says"),
    [
        (Stage.CANARY, {}, "--share"), (Stage.CANARY, {"share": 1.0}, "--share"), (Stage.LIVE, {"share": 0.5}, "only a canary"),
        (Stage.CANARY, {"share": 0.5, "rule_set_version": 3}, "only a release in the shadow"),
    ],
)  # fmt: skip
def test_a_step_that_makes_no_sense_is_refused(stage, more, says):
    with pytest.raises(ReleaseError, match=says):
        Steps().ask(stage, **more)


def test_steps_with_unknown_releases_say_which_there_are():
    steps = Steps()
    steps.ask(Stage.SHADOW)
    for step in (steps.approve, steps.back):
        with pytest.raises(ReleaseError, match="announced are: fraud/v5"):
            step("fraud/v9") if step == steps.back else steps.approve("bo", "fraud/v9")
    with pytest.raises(ReleaseError, match="already"):
        Steps(four_eyes=False).ask(Stage.LIVE) and _twice()


def _twice() -> None:
    steps = Steps(four_eyes=False)
    steps.ask(Stage.LIVE)
    steps.ask(Stage.LIVE)
