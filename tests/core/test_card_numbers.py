"""One definition of a card number: what it refuses is masked, in whatever it lies, and a plain twin agrees with it."""

from __future__ import annotations

import json
import random
import string
import unicodedata
import uuid

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.checker.card_numbers import holds_card_number as plain
from services.core.card_number_kernels import mask_record, rows_with_card_numbers
from services.core.card_numbers import ISSUERS, holds_card_number
from services.core.columns import Text
from services.core.masking import mask_bytes, mask_text, text_holds_card_number
from services.core.validation import Reject, identifier_status

CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "30569309025904", "6011111111111117", "3530111333300000",
         "2223003122003222", "4222222222222", "6304000000000000", "6205500000000000004"]  # fmt: skip
"""Test numbers of the networks."""
SEPARATORS = [
    "",
    " ",
    "-",
    "  ",
    "--",
    ".",
    "_",
    "/",
    ",",
    "\t",
    "\u00a0",
    "\u2009",
    "\u2013",
    "·",
    "é",
    " - ",
    "\u200b",
    "()",
    "~!",
]
FULL_WIDTH = {ord(str(i)): chr(0xFF10 + i) for i in range(10)}
MATHEMATICAL = {ord(str(i)): chr(0x1D7CE + i) for i in range(10)}
DEVANAGARI = {ord(str(i)): chr(0x966 + i) for i in range(10)}


@st.composite
def padded(draw, number):
    """A card number with hexadecimal letters behind it, as long as a digest or as a UUID, or nearly so."""
    length = draw(st.sampled_from([31, 32, 32, 33, 40, 64]))
    letters = draw(st.text("abcdefABCDEF", min_size=64, max_size=64))
    hexadecimal = (number + letters)[:length]
    parts = [hexadecimal[:8], hexadecimal[8:12], hexadecimal[12:16], hexadecimal[16:20], hexadecimal[20:]]
    return draw(st.sampled_from(["", "-"])).join(parts)


@given(st.sampled_from(CARDS).flatmap(padded))
def test_hexadecimal_letters_do_not_hide_a_card_number(text):
    assert status(text[:64]) == Reject.CARD_NUMBER


@st.composite
def spellings(draw):
    """A text with a card number in it, written somehow."""
    number = draw(st.sampled_from(CARDS))
    if draw(st.sampled_from([False, False, True])):
        return draw(padded(number))
    groups, rest = [], number
    while rest:
        size = draw(st.sampled_from([1, 2, 3, 4, 4, 4, 5, 6, 19]))
        groups.append(rest[:size])
        rest = rest[size:]
    separator = draw(st.sampled_from(SEPARATORS))
    written = separator.join(groups).translate(
        draw(st.sampled_from([{}, {}, {}, FULL_WIDTH, MATHEMATICAL, DEVANAGARI]))
    )
    before = draw(st.sampled_from(["", "", "pan", "card:", "x1 ", "id 77-", "é", "#", "0/", "u", "\\u"]))
    after = draw(st.sampled_from(["", "", "z", " 12/27", "=", "D2512", " and more", "-9"]))
    return before + written + after


def status(text: str) -> int:
    return int(identifier_status(Text.of([text.encode()]))[0])


def digits_of(raw: bytes) -> str:
    """All digits that a reader of the bytes could see, escapes of JSON read."""
    text = raw.decode("utf-8", "replace")
    for code in sorted({*range(48, 58), *(ord(c) for c in "".join(t for t in map(chr, range(0xFF10, 0xFF1A))))}):
        text = text.replace(f"\\u{code:04x}", chr(code))
    return "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal())


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111", "4111--1111--1111--1111", "4111  1111  1111  1111", "4111.1111.1111.1111", "4111_1111_1111_1111",
        "pan4111111111111111", "4111111111111111x", "4111/1111/1111/1111", "4111\u00a01111\u00a01111\u00a01111",
        "4111 1111 1111 1111 12/27", "card 1 4111 1111 1111 1111", "4111111111111111D25122011234567890", "4111111111111111".translate(FULL_WIDTH),
        "2221000000000009", "378282246310005", "41111111 11111111", "4111111111111111d2512201123456789000000f",
        "4111111111111111FFFFFFFFFFFFFFFF", "4111111111111111" + 24 * "f", "4111111111111111" + 48 * "e", "41111111-1111-1111-abcd-abcdefabcdef",
    ],
)  # fmt: skip
def test_a_card_number_is_refused_however_it_is_written(text):
    assert status(text) == Reject.CARD_NUMBER
    assert plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "card-000123", "1767225600000", "1767225600000123", "41111111111111111111", "12345678901234567890", "terminal-00004711",
        "4111111111111112", "4111a1111b1111c1111", "9111111111111111", "DE89370400440532013000", "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "550e8400-e29b-41d4-a716-446655440000", "2026-11-27T23:05:20.123", "4111 1111 1111", "411111111111",
        "f4111111111111111aaaaaaaaaaaaaaa", "00000000-0000-4111-1111-11111111111a",
    ],
)  # fmt: skip
def test_what_a_token_looks_like_is_not_refused(text):
    assert status(text) == Reject.NONE
    assert not plain(text)


@given(spellings())
@example("u4111111111111111")
def test_the_kernel_the_plain_functions_and_the_twin_agree_on_spellings(text):
    raw = text.encode()

    assert (
        plain(text)
        == holds_card_number(raw, 0, len(raw))
        == text_holds_card_number(text)
        == bool(rows_with_card_numbers(Text.of([raw]))[0])
    )


@given(st.text(st.sampled_from("0123456789" * 4 + " -.é\uff14aDf\u0664"), max_size=40))
def test_the_kernel_and_the_twin_agree_on_random_text(text):
    raw = text.encode()

    assert plain(text) == bool(rows_with_card_numbers(Text.of([raw]))[0]) == holds_card_number(raw, 0, len(raw))


def test_the_kernel_and_the_twin_agree_on_seeded_tokens():
    rng = random.Random(7)
    texts = []
    for _ in range(20_000):
        first = rng.choice(ISSUERS.tolist())
        number = f"{rng.randint(first[0], first[1])}{rng.randrange(10**15):015d}"[: rng.randint(12, 19)]
        texts.append(rng.choice(["", "a", "7 ", "-"]) + number + rng.choice(["", "b", " 7", "7"]))
        texts.append(f"{rng.getrandbits(128):032x}")
        texts.append(str(uuid.UUID(int=rng.getrandbits(128))))

    found = rows_with_card_numbers(Text.of([text.encode() for text in texts]))

    assert [plain(text) for text in texts] == found.tolist()
    assert 1_000 < found.sum() < 10_000


def test_identifiers_of_the_usual_kinds_are_hardly_ever_refused():
    rng = random.Random(11)
    alphabet = string.ascii_letters + string.digits
    kinds = {
        "uuid": [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(20_000)],
        "hex": [f"{rng.getrandbits(256):064x}" for _ in range(20_000)],
        "letters": ["".join(rng.choices(alphabet, k=22)) for _ in range(20_000)],
        "ms": [str(1_500_000_000_000 + rng.randrange(10**12 // 2)) for _ in range(20_000)],
        "references": [f"{rng.randrange(10**20):020d}" for _ in range(20_000)],
    }

    refused = {k: int(rows_with_card_numbers(Text.of([t.encode() for t in texts])).sum()) for k, texts in kinds.items()}

    assert len(refused) == 5
    assert max(refused.values()) <= 4, refused


@settings(max_examples=200)
@given(st.lists(spellings(), min_size=1, max_size=3), st.binary(max_size=3), st.binary(max_size=3), st.booleans())
@example(["4111111111111111"], b"u", b"0", False)
@example(["u4111111111111111"], b"\\", b"", False)
@example(["\\u411111\u00a01111111111"], b"", b"", True)
@example(["4111 1111 1111 1111 abcdefg"], b"12", b"34", False)
def test_what_is_refused_leaves_no_trace_in_the_masked_bytes(texts, before, after, as_json):
    """Whatever lies beside it, lengths that look like digits or letters included, and whatever JSON makes of it."""
    refused = [text for text in texts if status(text) == Reject.CARD_NUMBER]
    field = (
        json.dumps(texts).encode() if as_json else before.join(bytes([2 * len(t) % 256]) + t.encode() for t in texts)
    )
    raw = before + field + after

    masked = mask_record(raw)

    assert masked == mask_bytes(raw)
    assert len(masked) == len(raw)
    for text in refused:
        runs = [
            digits_of(word.encode()) for word in text.translate({ord(c): "|" for c in string.ascii_letters}).split("|")
        ]
        number = max(runs, key=len)
        assert number not in digits_of(masked)
        assert number[:6] not in digits_of(masked) or number[:6] in digits_of(before + after)


@given(st.sampled_from(CARDS), st.lists(st.booleans(), min_size=19, max_size=19), st.booleans())
def test_escapes_of_json_do_not_hide_a_card_number(number, escaped, upper):
    written = "".join(f"\\u{ord(c):04x}" if e else c for c, e in zip(number, escaped, strict=False))
    wide = "".join(f"\\u{0xFF10 + int(c):04{'X' if upper else 'x'}}" for c in number)

    for raw in (written, wide):
        document = f'{{"account_id": "{raw}", "n": 12}}'.encode()
        assert status(unicodedata.normalize("NFKC", json.loads(document)["account_id"])) == Reject.CARD_NUMBER
        masked = mask_record(document)
        assert masked.startswith(b'{"account_id": "*')
        assert masked.endswith(b'*", "n": 12}')


@given(st.text(max_size=200))
def test_text_of_any_characters_can_be_masked(text):
    assert len(mask_text(text + "4111111111111111")) >= len(text)
    assert mask_text("\ud800 4111-1111-1111-1111") == "\ud800 ****-****-****-****"


def test_hostile_bytes_are_masked_in_linear_time():
    rng = np.random.default_rng(3)
    for raw in (b"4" * 1_000_000, b"4 " * 500_000, b"1" + b" " * 999_999, rng.bytes(1_000_000), b"\\u0034" * 160_000):
        assert len(mask_record(raw)) == len(raw)
