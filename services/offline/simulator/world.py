"""The world that the simulator draws from: cities, merchant categories, currencies. Round figures, not statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True)
class City:
    """A place where people live and terminals stand."""

    name: str
    country: str
    currency: str
    latitude: float
    longitude: float


CITIES: Final = tuple(
    City(*row)
    for row in (
        ("Brussels", "BE", "EUR", 50.85, 4.35), ("Paris", "FR", "EUR", 48.86, 2.35), ("Lyon", "FR", "EUR", 45.76, 4.84),
        ("Berlin", "DE", "EUR", 52.52, 13.40), ("Munich", "DE", "EUR", 48.14, 11.58), ("Madrid", "ES", "EUR", 40.42, -3.70),
        ("Lisbon", "PT", "EUR", 38.72, -9.14), ("Rome", "IT", "EUR", 41.90, 12.50), ("Vienna", "AT", "EUR", 48.21, 16.37),
        ("Dublin", "IE", "EUR", 53.35, -6.26), ("Amsterdam", "NL", "EUR", 52.37, 4.90), ("London", "GB", "GBP", 51.51, -0.13),
        ("Manchester", "GB", "GBP", 53.48, -2.24), ("Stockholm", "SE", "SEK", 59.33, 18.07), ("Zurich", "CH", "CHF", 47.37, 8.54),
        ("Warsaw", "PL", "PLN", 52.23, 21.01), ("New York", "US", "USD", 40.71, -74.01), ("Miami", "US", "USD", 25.76, -80.19),
        ("Tokyo", "JP", "JPY", 35.68, 139.69), ("Sao Paulo", "BR", "BRL", -23.55, -46.63),
    )
)  # fmt: skip

HOME_WEIGHTS: Final = np.array([9, 8, 4, 7, 5, 6, 3, 6, 4, 3, 5, 9, 4, 4, 3, 4, 8, 3, 3, 2], float)
"""How many people live in each city, relative to the others."""

EUR_PER_UNIT: Final = {
    "EUR": 1.0, "GBP": 1.17, "SEK": 0.088, "CHF": 1.04, "PLN": 0.23, "USD": 0.92, "JPY": 0.0061, "BRL": 0.17,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of merchant (ISO 18245), how common it is, and what a usual purchase costs in EUR."""

    code: int
    weight: float
    mean_eur: float
    online: bool


CATEGORIES: Final = (
    Category(5411, 30, 32, False),  # grocery stores
    Category(5812, 16, 28, False),  # restaurants
    Category(5814, 12, 9, False),  # fast food
    Category(5541, 9, 48, False),  # service stations
    Category(4111, 8, 6, False),  # local transport
    Category(5651, 6, 62, False),  # clothing
    Category(5912, 6, 18, False),  # pharmacies
    Category(6011, 5, 95, False),  # cash from machines
    Category(5732, 3, 140, False),  # electronics
    Category(5311, 5, 55, False),  # department stores
    Category(5968, 9, 13, True),  # subscriptions
    Category(5942, 6, 24, True),  # books and media
    Category(5969, 8, 46, True),  # online retail
    Category(4722, 2, 210, True),  # travel agencies
    Category(5816, 5, 11, True),  # digital games
    Category(5944, 1, 180, True),  # jewellery
)
CASH: Final = 6011
"""The category of cash machines."""
