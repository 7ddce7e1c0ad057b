"""Which places of a log are read in one call, and which of them in one go."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.core.columns import type_i64

GAP_RECORDS: Final = 1_000
"""Places further apart than this are looked for one by one; to read what lies between nearer ones is quicker."""
STRETCH_RECORDS: Final = 5_000
"""So many records are read in one go at most, however near to each other the places are."""
CALL_RECORDS: Final = 50_000
"""So many records are read in one call at most, those between the places included: whoever calls has a place in a group to keep. To look for
one place takes as long as to read ``GAP_RECORDS``, and counts as much."""


def stretches_of(partition: type_i64, offset: type_i64, rows: type_i64) -> tuple[list[list[int]], list[int]]:
    """Return the places to be read in one call, by stretches of one partition each, in its order, and those that are too much for it.

    Args:
        partition: of each place.
        offset: of each place.
        rows: which places are asked for.
    """
    ordered = rows[np.lexsort((offset[rows], partition[rows]))]
    stretches: list[list[int]] = []
    left, of, first, last = CALL_RECORDS, -1, 0, 0
    for done, (row, p, at) in enumerate(
        zip(ordered.tolist(), partition[ordered].tolist(), offset[ordered].tolist(), strict=True)
    ):
        goes_on = p == of and at - last <= GAP_RECORDS and at - first < STRETCH_RECORDS
        if not goes_on:
            left -= max(GAP_RECORDS, last - first + 1) if stretches else 0
            of, first = p, at
            if left < STRETCH_RECORDS:
                return stretches, ordered[done:].tolist()
            stretches.append([])
        stretches[-1].append(row)
        last = at
    return stretches, []
