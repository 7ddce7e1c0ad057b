"""The keys of the grid. All keys of a partition share one hash tag, so one script can write them, in a cluster too."""

from __future__ import annotations

from collections.abc import Sequence


def meta_key(topic: str, partition: int) -> bytes:
    """Return the key of the hash that holds owner, epoch, applied, topic_id and layout of a partition."""
    return f"{{{topic}:{partition}}}:meta".encode()


def card_keys(topic: str, partitions: Sequence[int], cards: Sequence[bytes]) -> list[bytes]:
    """Return the key of each card's profile."""
    prefixes = {p: f"{{{topic}:{p}}}:card:".encode() for p in set(partitions)}
    return [prefixes[p] + card for p, card in zip(partitions, cards, strict=True)]
