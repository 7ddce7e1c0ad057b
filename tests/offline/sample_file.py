"""The sample of docs/samples: a public-shaped file, made up. Cards by number, merchants by name, no terminal, no account."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import numpy as np

ROWS, DAYS, CARDS = 2_400, 48, 60
_BEGIN_S = 1_767_225_600  # 2026-01-01
_CATEGORIES = ("grocery_pos", "gas_transport", "shopping_net", "shopping_pos", "food_dining", "misc_net", "travel")
_TOWNS = ((50.85, 4.35, 1_222_637), (51.22, 4.40, 530_630), (50.63, 5.57, 195_965), (51.05, 3.72, 265_086))
HEADER = (
    "trans_date_trans_time", "cc_num", "merchant", "category", "amt", "first", "last", "city_pop", "trans_num", "unix_time", "merch_lat",
    "merch_long", "is_fraud",
)  # fmt: skip


def test_number(i: int) -> str:
    """Return a card number of the range that is kept for tests: 4 followed by zeros, and Luhn's digit."""
    digits = f"400000{i:09d}"
    total = sum(int(c) if place % 2 else sum(divmod(2 * int(c), 10)) for place, c in enumerate(digits))
    return digits + str(-total % 10)


def sample() -> str:
    """Return the file: frauds are bursts of large amounts on the net, at night."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(ROWS):
        card = int(rng.integers(CARDS))
        day, second = int(rng.integers(DAYS)), int(np.clip(rng.normal(50_000, 15_000), 0, 86_399))
        fraud = rng.random() < 0.05
        category = "shopping_net" if fraud else _CATEGORIES[int(rng.integers(len(_CATEGORIES)))]
        amount = rng.uniform(300, 1_200) if fraud else rng.gamma(2.0, 15.0 + card % 9)
        at_s = _BEGIN_S + day * 86_400 + (int(rng.integers(0, 14_400)) if fraud else second)
        latitude, longitude, people = _TOWNS[card % len(_TOWNS)]
        rows.append(
            (
                datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S"), test_number(card), f"Shop {int(rng.integers(90)):03d}",
                category, f"{amount:.2f}", "A", f"Person {card:03d}", people, f"{i:032x}", at_s,
                f"{latitude + rng.normal(0, 0.1):.6f}", f"{longitude + rng.normal(0, 0.1):.6f}", int(fraud),
            )
        )  # fmt: skip
    rows.sort(key=lambda row: (row[9], row[8]))
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    written.writerow(HEADER)
    written.writerows(rows)
    return text.getvalue()
