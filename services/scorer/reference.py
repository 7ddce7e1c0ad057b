"""What the scorer sees of accounts and customers: what the reference service announced, as it stands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.core.columns import Text, TransactionColumns, type_f64, type_i64
from services.core.kernels import group_text
from services.core.reference import open_accounts, open_customers
from services.core.reference_features import ReferenceRows, see_reference
from services.core.standing import Standing
from services.runtime.processor import LookedUp


def group_keys(keys: Text) -> tuple[Text, type_i64]:
    """Return the distinct keys of a batch, and (n,) which of them each row has."""
    slot, first = group_text(keys, np.zeros(len(keys), np.int64))
    return keys.take(first), slot


def see_standing(
    columns: TransactionColumns, slots: Mapping[str, type_i64], found: Mapping[str, LookedUp], vectors: type_f64
) -> Standing | None:
    """Fill the accounts' and customers' columns of the vectors, and return what they forbid; None where that did not come in time.

    Args:
        columns: n transactions.
        slots: of each topic that is looked up (n,) the key that each transaction has.
        found: what was found, by topic.
        vectors: (n, features), changed in place.
    """
    if ACCOUNTS not in found or CUSTOMERS not in found:
        return None
    rows = ReferenceRows(
        open_accounts(found[ACCOUNTS].profiles), slots[ACCOUNTS],
        open_customers(found[CUSTOMERS].profiles), slots[CUSTOMERS],
    )  # fmt: skip
    return see_reference(columns, rows, vectors)
