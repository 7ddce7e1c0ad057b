"""What the scorer sees of accounts and customers: what the reference service announced, as it stands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.core.card.features import FoldedCards
from services.core.card.windows import REFERENCE_UNKNOWN
from services.core.columns import Text, TransactionColumns, type_i64
from services.core.kernels import group_text
from services.core.reference.eligibility import Eligibility
from services.core.reference.features import ReferenceRows, see_reference
from services.core.reference.layout import open_accounts, open_customers
from services.worker.processor import LookedUp


def group_keys(keys: Text) -> tuple[Text, type_i64]:
    """Return the distinct keys of a batch, and (n,) which of them each row has."""
    slot, first = group_text(keys, np.zeros(len(keys), np.int64))
    return keys.take(first), slot


def see_eligibility(
    columns: TransactionColumns, slots: Mapping[str, type_i64], found: Mapping[str, LookedUp], folded: FoldedCards
) -> Eligibility | None:
    """Fill the accounts' and customers' columns of the vectors, and return what they forbid; None where that did not come in time.

    Who is not known although others of the same partition were announced is marked: who was never announced looks no different from who was
    announced in another partition, where nobody looks, or was deleted, and nothing that is forbidden would be seen.

    Args:
        columns: n transactions.
        slots: of each topic that is looked up (n,) the key that each transaction has.
        found: what was found, by topic.
        folded: its vectors and flags are changed in place.
    """
    if ACCOUNTS not in found or CUSTOMERS not in found:
        return None
    accounts, customers = open_accounts(found[ACCOUNTS].profiles), open_customers(found[CUSTOMERS].profiles)
    for topic, known in ((ACCOUNTS, accounts.known), (CUSTOMERS, customers.known)):
        unknown = ~known & (found[topic].applied > 0)
        if np.count_nonzero(unknown):
            folded.flags[unknown[slots[topic]]] |= REFERENCE_UNKNOWN
    rows = ReferenceRows(accounts, slots[ACCOUNTS], customers, slots[CUSTOMERS])
    return see_reference(columns, rows, folded.vectors)
