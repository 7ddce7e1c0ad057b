"""From scores to actions, decision ids, masking, money and reasons."""

from __future__ import annotations

import re
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.columns import pack_code, unpack_code
from services.core.explain.reasons import REASONS_MAX, describe, heaviest_reasons
from services.core.features import FEATURE_NAMES, FEATURES
from services.core.masking import mask_bytes, mask_text, text_holds_card_number
from services.core.money import EXPONENTS, format_amount, is_country, is_currency, scales_of
from services.core.policy import Action, Thresholds, decision_ids

TEST_CARD = b"4111111111111111"


def test_a_score_at_a_threshold_belongs_to_the_stronger_action():
    actions = Thresholds(0.1, 0.5, 0.9).actions(np.array([0.0, 0.0999, 0.1, 0.5, 0.8999, 0.9, 1.0]))

    assert [Action(a).name for a in actions] == [
        "APPROVE",
        "APPROVE",
        "CHALLENGE",
        "REVIEW",
        "REVIEW",
        "BLOCK",
        "BLOCK",
    ]


@pytest.mark.parametrize("levels", [(0.5, 0.1, 0.9), (0.0, 0.5, 0.9), (0.1, 0.5, 1.1), (float("nan"), 0.5, 0.9)])
def test_thresholds_that_do_not_ascend_are_refused(levels):
    with pytest.raises(ValueError, match="ascend"):
        Thresholds(*levels)


def test_a_decision_id_is_a_uuid_of_version_8_and_the_same_for_the_same_transaction():
    ids = np.frombuffer(uuid.UUID(int=7).bytes + uuid.UUID(int=8).bytes, np.uint8).reshape(2, 16)

    first, again = decision_ids(ids.copy()), decision_ids(ids.copy())

    made = [uuid.UUID(bytes=row.tobytes()) for row in first]
    assert made[0] != made[1]
    assert {u.version for u in made} == {8}
    assert {u.variant for u in made} == {uuid.RFC_4122}
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "raw",
    [TEST_CARD, b"4111 1111 1111 1111", b"4111-1111-1111-1111", b"x" + TEST_CARD + b"y", b"12" + TEST_CARD, b"7" * 80],
)
def test_card_numbers_are_masked_however_they_are_written(raw):
    masked = mask_bytes(raw)

    assert len(masked) == len(raw)
    assert not re.search(rb"[0-9]{4}", masked)


@pytest.mark.parametrize("raw", [b"card-000042", b"1000000000000", b"2026-11-23T05:20:01", b"123456789012"])
def test_what_is_no_card_number_stays(raw):
    assert mask_bytes(raw) == raw


@given(st.binary(max_size=300))
def test_masking_keeps_the_length_and_is_idempotent(raw):
    masked = mask_bytes(raw)

    assert len(masked) == len(raw)
    assert mask_bytes(masked) == masked


def test_masked_text_keeps_its_other_words():
    assert mask_text("paid by 5555555555554444 at noon é") == "paid by **************** at noon é"
    assert text_holds_card_number("paid by 5555555555554444 at noon é")


def test_currencies_and_countries_are_closed_lists():
    codes = np.array([pack_code("EUR"), pack_code("JPY"), pack_code("EUX"), -1, 0, 2**40])

    assert [is_currency(code) for code in codes] == [True, True, False, False, False, False]
    assert scales_of(codes[:2]).tolist() == [100.0, 1.0]
    assert [is_country(code) for code in (pack_code("BE"), pack_code("QQ"), -1)] == [True, False, False]
    assert unpack_code(pack_code("KWD")) == "KWD"
    assert EXPONENTS["KWD"] == 3


def test_amounts_read_as_people_write_them():
    assert format_amount(41_200, "EUR") == "412.00 EUR"
    assert format_amount(1_234_567, "JPY") == "1,234,567 JPY"
    assert format_amount(5, "KWD") == "0.005 KWD"


@pytest.mark.parametrize("feature", FEATURES, ids=FEATURE_NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0, 3.0, float("nan")])
def test_every_feature_has_words(feature, value):
    words = describe(feature, value, "412.00 EUR")

    assert words
    assert "nan" not in words


def test_reasons_are_the_features_that_raised_the_score_most():
    contributions = np.zeros(len(FEATURES))
    contributions[[0, 9, 12, 20]] = [0.5, 2.0, -3.0, 1.0]

    reasons = heaviest_reasons(contributions, np.full(len(FEATURES), 2.0), "1.00 EUR")

    assert [r.code for r in reasons] == [FEATURE_NAMES[9], FEATURE_NAMES[20], FEATURE_NAMES[0]]
    assert len(reasons) <= REASONS_MAX
    assert all(r.weight > 0 for r in reasons)
