"""The keys of the grid. All keys of a partition share one hash tag, so one script can write them, in a cluster too."""

from __future__ import annotations


def meta_key(topic: str, partition: int) -> bytes:
    """Return the key of the hash with what is known of a partition's profiles.

    Fields: topic_id, partitions, layout (whose fold it is); owner, epoch, process (who writes); applied, profiles, folded_until_ms (how far it
    is, how many there are, and their newest event time); changes (how many were announced under this claim; missing if not all were); attempt, poison records, errors (what kills a process, and what raises an exception); halted, resumed, accepted (what people said).
    """
    return f"{{{topic}:{partition}}}:meta".encode()


def profiles_key(topic: str, partition: int) -> bytes:
    """Return the key of the hash of a partition's profiles, by card or terminal.

    One hash, not a key a card: its length is known at once, so that a lost profile is noticed.
    """
    return f"{{{topic}:{partition}}}:profiles".encode()


def changes_key(topic: str, partition: int) -> bytes:
    """Return the key of the stream of a partition's announced changes: fields k and v; the n-th change of a claim has the id 0-n."""
    return f"{{{topic}:{partition}}}:changes".encode()
