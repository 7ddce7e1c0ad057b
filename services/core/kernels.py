"""Small numba kernels that several parts of the core share: hashing, packing and grouping of text columns.

Kernels are free functions on arrays and primitives. They are cached on disk; ``fastmath`` is off everywhere, because a
feature must come out bit-equal online and offline.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from services.core.columns import Text, type_bool, type_i64, type_u8, type_u64

FNV_OFFSET = np.uint64(14695981039346656037)
FNV_PRIME = np.uint64(1099511628211)


@njit(cache=True, nogil=True)
def hash_bytes(buffer: type_u8, start: int, length: int) -> np.uint64:
    """Return FNV-1a (64 bit) of a byte range, finished with murmur3's 64-bit mixer.

    The value is stored in profiles, so it is part of their layout: never change it without a new layout version.
    Source: Fowler, Noll, Vo, draft-eastlake-fnv; Appleby, MurmurHash3 ``fmix64``.
    """
    h = FNV_OFFSET
    for i in range(start, start + length):
        h = (h ^ np.uint64(buffer[i])) * FNV_PRIME
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    return h


@njit(cache=True, nogil=True)
def _hash_rows(buffer: type_u8, start: type_i64, length: type_i64) -> type_u64:
    out = np.empty(len(start), np.uint64)
    for i in range(len(start)):
        out[i] = hash_bytes(buffer, start[i], length[i])
    return out


def hash_text(text: Text) -> type_u64:
    """Return the 64-bit hash of every row."""
    return _hash_rows(text.buffer, text.start, text.length)


@njit(cache=True, nogil=True)
def hash_uuids(ids: type_u8) -> type_u64:
    """Return a 64-bit hash of each 16-byte row of ``ids`` (shape (n, 16))."""
    out = np.empty(len(ids), np.uint64)
    for i in range(len(ids)):
        out[i] = hash_bytes(ids[i], 0, 16)
    return out


@njit(cache=True, nogil=True)
def _murmur2(buffer: type_u8, start: int, length: int) -> np.uint32:
    m = np.uint32(0x5BD1E995)
    h = np.uint32(np.uint32(0x9747B28C) ^ np.uint32(length))
    whole = length // 4
    for i in range(whole):
        k = np.uint32(0)
        for j in range(4):
            k |= np.uint32(np.uint32(buffer[start + 4 * i + j]) << np.uint32(8 * j))
        k = np.uint32(k * m)
        k = np.uint32((k ^ (k >> np.uint32(24))) * m)
        h = np.uint32(np.uint32(h * m) ^ k)
    rest = length - 4 * whole
    for j in range(rest - 1, -1, -1):
        h ^= np.uint32(np.uint32(buffer[start + 4 * whole + j]) << np.uint32(8 * j))
    if rest:
        h = np.uint32(h * m)
    h = np.uint32((h ^ (h >> np.uint32(13))) * m)
    return np.uint32(h ^ (h >> np.uint32(15)))


@njit(cache=True, nogil=True)
def _partition_rows(buffer: type_u8, start: type_i64, length: type_i64, partitions: int) -> type_i64:
    out = np.empty(len(start), np.int64)
    for i in range(len(start)):
        out[i] = np.int64(_murmur2(buffer, start[i], length[i]) & np.uint32(0x7FFFFFFF)) % partitions
    return out


def partitions_of(keys: Text, partitions: int) -> type_i64:
    """Return the partition that Kafka's clients put each key in, of a topic with so many.

    Source: Apache Kafka, ``Utils.murmur2`` and ``toPositive``; librdkafka's partitioner ``murmur2_random`` for keys that are there.
    """
    return _partition_rows(keys.buffer, keys.start, keys.length, partitions)


@njit(cache=True, nogil=True)
def _misplaced_rows(
    buffer: type_u8, start: type_i64, length: type_i64, partition: type_i64, partitions: int
) -> type_bool:
    out = np.empty(len(start), np.bool_)
    for i in range(len(start)):
        home = np.int64(_murmur2(buffer, start[i], length[i]) & np.uint32(0x7FFFFFFF)) % partitions
        out[i] = home != partition[i]
    return out


def misplaced(keys: Text, partition: type_i64, partitions: int) -> type_bool:
    """Whether each key's record lies in another partition than the one that :func:`partitions_of` says.

    Args:
        keys: n keys.
        partition: (n,) where their records lie.
        partitions: how many the topic has; 0 where nobody knows, and then nothing is misplaced.
    """
    if not partitions:
        return np.zeros(len(keys), bool)
    return _misplaced_rows(keys.buffer, keys.start, keys.length, partition, partitions)


@njit(cache=True, nogil=True)
def pack_bytes(buffer: type_u8, start: int, length: int, width: int) -> np.int64:
    """Pack a range of exactly ``width`` bytes big-endian into an integer; any other gives -1."""
    if length != width:
        return np.int64(-1)
    value = np.int64(0)
    for j in range(start, start + width):
        value = (value << 8) | np.int64(buffer[j])
    return value


@njit(cache=True, nogil=True, forceinline=True)
def same_bytes(a: type_u8, a_start: int, b: type_u8, b_start: int, length: int) -> bool:
    """Whether two ranges of so many bytes are the same."""
    for j in range(length):  # noqa: SIM110 - numba compiles this loop, not all(...)
        if a[a_start + j] != b[b_start + j]:
            return False
    return True


@njit(cache=True, nogil=True)
def _group_rows(partition: type_i64, buffer: type_u8, start: type_i64, length: type_i64) -> tuple[type_i64, type_i64]:
    n, hashes = len(start), _hash_rows(buffer, start, length)
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    slot = np.empty(n, np.int64)
    first = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        at = np.int64(hashes[i] & np.uint64(size - 1))
        while True:
            group = table[at]
            if group < 0:
                table[at] = count
                first[count] = i
                slot[i] = count
                count += 1
                break
            j = first[group]
            if (
                hashes[j] == hashes[i]
                and partition[j] == partition[i]
                and length[j] == length[i]
                and same_bytes(buffer, start[j], buffer, start[i], length[i])
            ):
                slot[i] = group
                break
            at = (at + 1) & (size - 1)
    return slot, first[:count].copy()


def group_text(text: Text, partition: type_i64) -> tuple[type_i64, type_i64]:
    """Number the distinct (partition, text) pairs in order of first appearance.

    Returns:
        ``slot`` (n,): the number of each row's pair, and ``first`` (k,): the first row of each pair. Bytes are compared,
        not only hashes, so two cards never share a slot.
    """
    return _group_rows(partition, text.buffer, text.start, text.length)
