"""The handbook's transactions through the running scorer: the published features, and the offline ones bit for bit."""

from __future__ import annotations

from pathlib import Path

from services.commands.measure import run_parity
from services.datasets.mapping import load_mapping, read_dataset
from services.runtime.config import resolve_settings
from services.trainer.history import concatenate

CARDS = 1_300


def test_features_equal_the_published_ones_on_more_than_a_hundred_thousand_rows(handbook: Path, tmp_path: Path):
    columns = concatenate(list(read_dataset(handbook / "transactions.parquet", load_mapping("handbook"))))
    settings = resolve_settings({"data_folder": str(tmp_path)}, {})

    line, holds = run_parity(settings, columns, handbook / "features.parquet", CARDS)

    assert holds, line
    compared = int(line.split("8 published features equal on ")[1].split(" ")[0].replace(",", ""))
    assert compared >= 100_000
