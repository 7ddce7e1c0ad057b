"""The shared kernels against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.columns import Text, pack_code
from services.core.kernels import group_text, hash_text, pack_bytes, partitions_of
from services.core.validation import equal_text

MASK = 2**64 - 1


def naive_hash(raw: bytes) -> int:
    h = 14695981039346656037
    for byte in raw:
        h = ((h ^ byte) * 1099511628211) & MASK
    h ^= h >> 33
    h = (h * 0xFF51AFD7ED558CCD) & MASK
    h ^= h >> 33
    h = (h * 0xC4CEB9FE1A85EC53) & MASK
    return h ^ (h >> 33)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=30))
def test_hashes_are_those_of_their_definition(rows: list[bytes]):
    assert hash_text(Text.of(rows)).tolist() == [naive_hash(row) for row in rows]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"", b"a", b"b", b"ab", b"ba"])), min_size=1, max_size=60)
)
def test_groups_are_numbered_in_order_of_first_appearance(pairs: list[tuple[int, bytes]]):
    seen: dict[tuple[int, bytes], int] = {}
    expected = [seen.setdefault(pair, len(seen)) for pair in pairs]

    slot, first = group_text(Text.of([text for _, text in pairs]), np.array([p for p, _ in pairs]))

    assert slot.tolist() == expected
    assert [pairs[i] for i in first] == list(seen)


def test_codes_of_another_width_are_none():
    text = Text.of([b"EUR", b"EU", b"EURO", b""])

    packed = [pack_bytes(text.buffer, *row, 3) for row in zip(text.start, text.length, strict=True)]

    assert packed == [pack_code("EUR"), -1, -1, -1]


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), min_size=1, max_size=20))
def test_rows_are_equal_when_their_bytes_are(pairs: list[tuple[bytes, bytes]]):
    a, b = (Text.of([pair[side] for pair in pairs]) for side in (0, 1))

    assert equal_text(a, b).tolist() == [x == y for x, y in pairs]
    assert equal_text(a, a).all()


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_is_in_the_partition_that_kafkas_clients_choose(key: bytes, murmur2: int):
    # The hashes are those that Apache Kafka's own tests expect.
    for partitions in (1, 6, 12, 1_000_003):
        assert partitions_of(Text.of([b"other", key]), partitions)[1] == (murmur2 & 0x7FFFFFFF) % partitions
