"""What Redis answers, as values: pure, for the adapter beside."""

from __future__ import annotations

from collections.abc import Sequence

from services.grid.base import Attempt, CacheStamp, LogIdentity, PartitionStatus


def number_of(text: bytes | None) -> int | None:
    """Return a number that Redis may not have."""
    return None if text is None else int(text)


def changed_since(
    copied: CacheStamp, mark: CacheStamp | None, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]
) -> dict[bytes, bytes] | None:
    """Return what changed since, None if not all of it is remembered."""
    if mark is None or not mark.continues(copied):
        return None
    first = int(entries[0][0].split(b"-")[1]) if entries else mark.changes + 1
    return {fields[b"k"]: fields[b"v"] for _, fields in entries} if first == copied.changes + 1 else None


def attempt_of(text: bytes) -> Attempt | None:
    """Return a noted attempt, None where there is none."""
    if not text:
        return None
    (begin, end), *pending = (tuple(map(int, one.split(b":"))) for one in text.split(b","))
    return Attempt(begin, end, tuple((b, e) for b, e in pending))


def offsets_of(text: bytes) -> frozenset[int]:
    """Return noted offsets."""
    return frozenset(map(int, text.split(b","))) if text else frozenset()


def status_of(partition: int, meta: dict[bytes, bytes], profiles: int) -> PartitionStatus:
    """Return what a partition's meta says of it."""
    identity = None
    if b"topic_id" in meta:
        identity = LogIdentity(meta[b"topic_id"].decode(), int(meta.get(b"partitions", 0)), int(meta[b"layout"]))
    return PartitionStatus(
        partition=partition,
        identity=identity,
        epoch=int(meta.get(b"epoch", 0)),
        applied=int(meta[b"applied"]) if b"applied" in meta else None,
        profiles=profiles,
        halted=meta[b"halted"].decode(errors="replace") if b"halted" in meta else None,
        poison=offsets_of(meta.get(b"poison", b"")),
        errors=offsets_of(meta.get(b"errors", b"")),
        begins_ms=number_of(meta.get(b"begins_ms")),
    )
