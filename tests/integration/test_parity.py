"""The handbook's transactions through the running services: the published features, and the offline ones bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.runtime.settings import resolve_settings
from tests.benchmarks.replaying import read_recorded, run_parity

NOT_IN_THE_FILE = {
    "account_amount_to_spendable", "account_days_since_opened", "customer_km_from_home", "customer_abroad_unannounced",
    "card_km_from_last", "card_km_per_hour",
}  # fmt: skip
"""The features of which the handbook says nothing: there are no accounts, customers and positions."""


def ms(day: str) -> int:
    return int(np.datetime64(day, "ms").astype(np.int64))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_published_features_are_equal_on_a_hundred_thousand_rows(handbook: Path, tmp_path: Path):
    recorded = read_recorded(handbook / "transactions.parquet", "handbook").between(ms("2018-06-17"), ms("2018-08-05"))
    settings = resolve_settings({"data_folder": str(tmp_path)}, {})

    found = run_parity(settings, recorded, handbook / "features.parquet", lambda _: None)

    assert found.holds, found.line()
    assert (found.marks, found.one_sided, found.undecided) == ({}, 0, 0)
    assert len(found.published_different) == 14
    assert found.published >= 100_000
    assert set(found.valueless) <= NOT_IN_THE_FILE
