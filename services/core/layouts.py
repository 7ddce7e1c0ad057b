"""The register of layouts: the number that says of which version and whose the bytes are that the grid holds.

A layout's number begins its blobs, and stands beside the offset up to which a partition is folded; what has another number than the code's is
folded again, never mixed. So a number is given once: to one owner, for one form of its bytes. What changes the bytes takes a number that was never
used before, and leaves the old one here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CARD_LAYOUT: Final = 0x002
TERMINAL_LAYOUT: Final = 0x102
LABEL_LAYOUT: Final = 0x201
ACCOUNT_LAYOUT: Final = 0x301
CUSTOMER_LAYOUT: Final = 0x401
REASSESSMENT_LAYOUT: Final = 0x501
ARCHIVE_LAYOUT: Final = 0x601
"""Of every topic that is archived: it stands beside the offset only, since the table is what remembers."""
AUDIT_LAYOUT: Final = 0x701
"""Of what the auditor remembers of a card; of the topics that it only forwards it stands beside the offset."""

LAYOUTS: Final[Mapping[str, int]] = {
    "card-transactions": CARD_LAYOUT,
    "terminal-events": TERMINAL_LAYOUT,
    "fraud-labels": LABEL_LAYOUT,
    "accounts": ACCOUNT_LAYOUT,
    "customers": CUSTOMER_LAYOUT,
    "card-reassessment-requests": REASSESSMENT_LAYOUT,
}
"""The layout in use of each topic that is folded. Routers and reassessors keep no profiles: theirs stands beside their offset only."""
RETIRED: Final[Mapping[int, str]] = {
    0x001: "cards, until an entry took a dozen bytes",
    0x101: "terminals, until an entry took a dozen bytes",
}
"""Numbers that were in use, and whose they were. 0x401 was the reassessors', too, until it was seen that customers have it."""
