"""What the topic of releases says, in whatever order a compacted topic gives it, and whatever else it holds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.codec.model_releases import Guards, ModelRelease, Proposal, ReleaseError, Stage, release_of
from services.codec.records import decode_as_newest, encode_written
from services.decision.release_log import SHADOWS_MAX, ModelReleaseLog

FILES = {"manifest.json": "a" * 64}


def release(version: int, stage: Stage, since_ms: int, share: float = 0.0) -> ModelRelease:
    return ModelRelease(f"fraud/v{version}", stage, since_ms, f"fraud/v{version}", FILES, "ana", since_ms, share)


def log_of(*releases: ModelRelease) -> ModelReleaseLog:
    log = ModelReleaseLog()
    log.add([one.record()[1] for one in releases])
    return log


@given(
    st.sampled_from(list(Stage)), st.floats(0.01, 0.99), st.text(max_size=20),
    st.one_of(st.none(), st.floats(0, 5)), st.booleans(),
)  # fmt: skip
def test_a_release_survives_being_written_and_read(stage, share, reason, guard, waits):
    guards = Guards(score_shift_max=guard)
    one = replace(
        release(3, stage, 7, share if stage is Stage.CANARY else 0.0), reason=reason, guards=guards, approved_by="bo",
        proposed=Proposal(Stage.LIVE, 0.0, guards, "cy", 9, reason) if waits else None,
    )  # fmt: skip
    assert release_of(decode_as_newest(one.record()[1])[1]) == one


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(list(Stage))), min_size=1, max_size=20), st.integers(0, 99)
)
def test_what_is_left_of_a_compacted_topic_says_the_same_in_any_order(steps, seed):
    written = [release(v, stage, at, 0.5 if stage is Stage.CANARY else 0.0) for at, (v, stage) in enumerate(steps)]
    last = list({one.release: one for one in written}.values())
    random.Random(seed).shuffle(last)

    assert log_of(*written).wanted == log_of(*last).wanted


def test_the_newest_live_one_decides_and_going_back_is_one_record():
    steps = [release(4, Stage.LIVE, 1), release(5, Stage.LIVE, 2), release(6, Stage.CANARY, 3, 0.05)]
    log = log_of(*steps)
    assert log.wanted.live == steps[1]
    assert log.wanted.canary == steps[2]
    assert log.before_live == (steps[0],)

    log.add([steps[1].withdrawn("bo", 9, "too many alerts").record()[1]])
    assert log.wanted.live == steps[0]
    log.add([steps[0].withdrawn("bo", 10, "").record()[1]])
    assert log.wanted.live is None


def test_what_only_waits_or_is_of_a_stage_unknown_here_is_used_for_nothing():
    log = log_of(release(4, Stage.PROPOSED, 1), release(5, Stage.OTHER, 2), release(6, Stage.WITHDRAWN, 3))
    assert log.wanted.all == ()


def test_of_very_many_shadows_the_newest_score():
    log = log_of(*(release(v, Stage.SHADOW, v) for v in range(1, 9)))
    assert [one.release for one in log.wanted.shadows] == [f"fraud/v{v}" for v in range(9 - SHADOWS_MAX, 9)]


def test_records_of_others_and_rubbish_are_passed_over(caplog):
    good = release(4, Stage.LIVE, 1)
    record = decode_as_newest(good.record()[1])[1]
    bad = encode_written("model-releases", record | {"release": "../v4"})
    log = ModelReleaseLog()
    log.add([None, b"", b"rubbish", bad, good.record()[1][:-2], good.record()[1]])
    assert list(log.releases) == ["fraud/v4"]


@pytest.mark.parametrize(
    "change",
    [
        {"release": "fraud"}, {"release": "fraud/v0"}, {"location": ""}, {"location": "../x"}, {"location": "a/../../x"},
        {"share": 1.5}, {"share": float("nan")}, {"stage": Stage.CANARY}, {"files": {}}, {"files": {"../x": "a" * 64}},
        {"files": {"manifest.json": "short"}},
    ],
)  # fmt: skip
def test_what_is_no_release_is_refused(change):
    with pytest.raises(ReleaseError):
        replace(release(4, Stage.LIVE, 1), **change)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_guard_is_a_number_from_0(value):
    with pytest.raises(ReleaseError, match="alert_share_max"):
        Guards(alert_share_max=value)
