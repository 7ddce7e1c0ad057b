"""What the reference service does: the newest record of an account or customer is what the grid holds of it. No IO.

Records are decoded one by one: they come as often as things change at a bank, and in three forms.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.codec.reference import ACCOUNTS, CUSTOMERS, DELETED, decode_change
from services.core.columns import type_bool
from services.core.layouts import LAYOUTS
from services.core.validation import Reject
from services.worker.topic_processor import Folded, ItemProcessor, PreparedItems


class ReferenceProcessor(ItemProcessor[bytes]):
    """Of one of the topics, which are compacted: their beginning will do, whenever that was."""

    read_by_others = announces = True

    def __init__(self, topic: str) -> None:
        self.topic, self.layout = topic, LAYOUTS[topic]

    def decode(self, key: bytes, value: bytes | None) -> tuple[bytes, Reject]:
        """Return what the grid is to hold of an account or customer."""
        return decode_change(self.topic, key, value)

    def fold(
        self,
        prepared: PreparedItems[bytes],
        profiles: Sequence[bytes | None],
        emit: type_bool,  # noqa: ARG002
    ) -> Folded:
        """Keep of each the newest record, which is the last one of a batch."""
        newest = dict(zip(prepared.slot.tolist(), prepared.items, strict=True))
        changed = (newest[k] != (old or DELETED) for k, old in enumerate(profiles))
        return Folded.to([newest[k] if yes else None for k, yes in enumerate(changed)])


def of_accounts() -> ReferenceProcessor:
    """Return that of accounts."""
    return ReferenceProcessor(ACCOUNTS)


def of_customers() -> ReferenceProcessor:
    """Return that of customers."""
    return ReferenceProcessor(CUSTOMERS)
