"""Real faults under load, on a stack of their own, judged by the checker: a selection that takes some minutes."""

from __future__ import annotations

import pytest

from services.runtime.settings import resolve_settings
from tests.chaos.faults import FAULTS
from tests.chaos.halting import HALTING
from tests.chaos.run import ALL, QUICK, Attack

PLAN = [*range(1, 17), 18, *range(20, 35), 37, 38, *range(42, 47), 48, 51]
"""The numbers of the fault plan that are made."""


def test_every_fault_of_the_plan_can_be_made():
    assert {name for name in ALL if name.count("-") == 1} == {f"F-{number:02}" for number in PLAN}
    assert set(QUICK) <= set(ALL)
    assert all(fault.make.__doc__ for fault in FAULTS.values())
    assert len(HALTING) == 6


CAPACITY_PER_S = 4_000
"""Well below what a machine of two cores keeps up with: measuring it, as `make chaos` does, would take a minute."""


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_and_nothing_twice_whatever_happens(tmp_path):
    reported: list[str] = []
    settings = resolve_settings({"data_folder": str(tmp_path)}, {})

    report = Attack(settings, tmp_path / "chaos", reported.append, 1, CAPACITY_PER_S).run(QUICK).as_json()

    # Not the verdict: it also says whether times were kept, which a busy machine may not.
    found = f"{report['failures']}\n{report['witnesses']}\n{reported}"
    assert (report["failures"], report["anomalies"], report["vacuous"]) == ([], {}, []), found
    assert report["transactions"] > 0
    assert set(report["fired"]) == set(QUICK)
    assert (report["lost"], report["duplicate"], report["divergent_profiles"]) == (0, 0, 0)
