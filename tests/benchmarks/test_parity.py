"""What the comparison of features says of streams that are right, wrong, empty, all alike and incomplete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from services.core.columns import TransactionColumns, type_f64
from services.core.features import FEATURE_NAMES
from services.core.kernels import partitions_of
from services.core.profiles import DAY_MS
from services.core.terminal.features import TERMINAL_COLUMNS
from services.core.terminal.windows import REACH_MS
from services.core.vacuous import VacuousError
from services.grid import GridUnavailableError
from services.offline.datasets.published import PUBLISHED
from services.offline.simulator.handbook import simulate_handbook
from services.streams import Records
from tests.benchmarks.collecting import UNMARKED, Collected, VectorCollector, ids_of
from tests.benchmarks.parity import Parity, Published, Recorded, compare
from tests.benchmarks.replaying import opening_transactions
from tests.generators import random_events, to_columns
from tests.worker.memory_system import EVENTS, MemorySystem

MISSED = ("SMALL_MODEL", "TERMINAL_UNKNOWN", "REFERENCE_MISSED")
START_MS = 1_522_540_800_000
RISK = FEATURE_NAMES.index("terminal_known_risk_7d")


@dataclass(frozen=True)
class Run:
    """A replay, and what it is compared with; every part can be damaged."""

    columns: TransactionColumns
    offline: type_f64
    collected: Collected
    published: Published

    def damaged(self, rows: Any, columns: Any, value: float, kind: int = 0) -> Run:
        """Return the same with some values of some decisions replaced."""
        vectors, marks = self.collected.vectors.copy(), self.collected.marks.copy()
        vectors[np.ix_(np.atleast_1d(rows), np.atleast_1d(columns))] = value
        marks[rows] = kind
        return replace(self, collected=replace(self.collected, vectors=vectors, marks=marks))

    def chosen(self, rows: Any) -> Run:
        """Return the same with these decisions alone, in this order."""
        c = self.collected
        return replace(self, collected=Collected(c.ids[rows], c.vectors[rows], c.marks[rows], c.kinds))

    def parity(self) -> Parity:
        return compare(self.columns, self.offline, self.collected, self.published)


@cache
def right() -> Run:
    traffic = simulate_handbook(60, 60, 3, START_MS)
    offline = Recorded(traffic.columns, traffic.scenario > 0).offline()
    ids = ids_of(traffic.columns)
    published = Published(ids, {name: offline[:, FEATURE_NAMES.index(name)] for name in PUBLISHED.values()})
    collected = Collected(ids, offline.copy(), np.zeros(len(ids), np.int64), (UNMARKED, MISSED))
    return Run(traffic.columns, offline, collected, published)


def test_what_is_right_holds_on_every_row_and_says_of_how_many():
    found = right().parity()

    n = len(right().columns)
    assert found.holds, found.line()
    assert (found.transactions, found.offline_different, found.one_sided, found.marks) == (n, 0, 0, {})
    assert found.published > 1_000
    assert found.line().startswith(
        f"PARITY HOLDS: {n:,} of {n:,} transactions decided, 0 again, 0 strangers; marked: none;"
    )


def test_neither_the_order_of_decisions_nor_that_of_published_rows_matters():
    run, rng = right(), np.random.default_rng(1)
    shuffled, other = rng.permutation(len(run.columns)), rng.permutation(len(run.columns))
    published = Published(run.published.ids[other], {name: v[other] for name, v in run.published.values.items()})

    found = replace(run.chosen(shuffled), published=published).parity()

    assert found == run.parity()


def test_vectors_in_the_order_of_other_transactions_are_different():
    run = right()
    collected = replace(run.collected, vectors=np.roll(run.collected.vectors, 1, axis=0))

    found = replace(run, collected=collected).parity()

    assert not found.holds
    assert found.offline_different > 0.99 * len(run.columns)


@pytest.mark.parametrize("kind", [0, 1])
def test_terminal_features_that_are_missing_on_every_row_are_differences_marked_or_not(kind: int):
    run = right()
    n = len(run.columns)

    found = run.damaged(np.arange(n), TERMINAL_COLUMNS, np.nan, kind).parity()

    assert not found.holds
    assert (found.one_sided, found.unmarked) == (n, 0 if kind else n)
    assert found.marks == (dict.fromkeys(sorted(MISSED), n) if kind else {})
    of_terminals = {name: count for name, count in found.published_different.items() if name.startswith("terminal")}
    assert set(of_terminals.values()) == {found.published}
    assert f"a value missing on one side on {n:,}" in found.line()


def test_a_value_that_training_does_not_have_is_a_difference_too():
    run = right()
    offline = run.offline.copy()
    offline[7, RISK] = np.nan

    found = replace(run, offline=offline).parity()

    assert not found.holds
    assert (found.offline_different, found.one_sided, found.unmarked) == (1, 1, 1)


def last_published(run: Run) -> int:
    return int(np.flatnonzero(run.columns.event_time_ms - run.columns.event_time_ms.min() >= REACH_MS)[-1])


def test_one_row_that_is_off_is_found_and_reported():
    run = right()
    row = last_published(run)
    mean = FEATURE_NAMES.index("card_mean_with_current_7d")
    off = run.offline[row, mean]

    a_bit = run.damaged(row, mean, np.nextafter(off, np.inf)).parity()
    much = run.damaged(row, mean, off + 0.01).parity()

    # Published means are only so exact; offline ones are bits.
    assert (a_bit.holds, a_bit.offline_different, sum(a_bit.published_different.values())) == (False, 1, 0)
    assert (much.holds, much.offline_different) == (False, 1)
    assert {name: n for name, n in much.published_different.items() if n} == {"card_mean_with_current_7d": 1}


def test_published_values_that_are_missing_are_differences():
    run = right()
    row = last_published(run)
    values = {name: v.copy() for name, v in run.published.values.items()}
    values["terminal_known_risk_7d"][row] = np.nan

    found = replace(run, published=Published(run.published.ids, values)).parity()

    assert not found.holds
    assert found.published_different["terminal_known_risk_7d"] == 1


def test_columns_that_are_all_alike_prove_nothing_even_if_all_sides_agree():
    run = right()
    offline = run.offline.copy()
    offline[:, RISK] = 0.0
    values = run.published.values | {"terminal_known_risk_7d": np.zeros(len(run.columns))}
    dead = replace(run, offline=offline, published=Published(run.published.ids, values))

    found = dead.damaged(np.arange(len(run.columns)), RISK, 0.0).parity()

    assert (found.offline_different, sum(found.published_different.values())) == (0, 0)
    assert not found.holds
    assert "nothing follows: published terminal_known_risk_7d: all" in found.line()


def test_features_without_any_value_are_named():
    found = right().parity()

    # The recipe says nothing of accounts, customers and positions.
    assert {"account_days_since_opened", "customer_km_from_home", "card_km_from_last"} <= set(found.valueless)
    assert not set(found.valueless) & set(PUBLISHED.values())
    assert f"{len(FEATURE_NAMES) - len(found.valueless)} of {len(FEATURE_NAMES)} features have values" in found.line()


def test_transactions_without_a_decision_decisions_that_come_twice_and_those_of_others_are_counted():
    run = right()
    n = len(run.columns)
    rows = np.arange(n)

    missing = run.chosen(rows[3:]).parity()
    twice = run.chosen(np.concatenate([rows, [5, 5]])).parity()
    half = replace(run, columns=run.columns.take(rows[: n - 4]), offline=run.offline[: n - 4]).parity()

    assert [(one.undecided, one.again, one.strangers) for one in (missing, twice, half)] == [
        (3, 0, 0),
        (0, 2, 0),
        (0, 0, 4),
    ]
    assert not any(one.holds for one in (missing, twice, half))


def test_nothing_at_all_does_not_hold():
    run = right()
    nobody = run.chosen(np.arange(0))
    unpublished = replace(
        run, published=Published(run.published.ids[:0], {n: v[:0] for n, v in run.published.values.items()})
    )
    early = np.flatnonzero(run.columns.event_time_ms - run.columns.event_time_ms.min() < REACH_MS)
    empty = replace(nobody, columns=run.columns.take(early[:0]), offline=run.offline[:0])
    short = replace(run.chosen(early), columns=run.columns.take(early), offline=run.offline[early])

    for one in (nobody, unpublished, empty, short):
        found = one.parity()
        assert not found.holds
        assert "nothing follows" in found.line()
        assert found.published == 0


def test_a_transaction_that_was_recorded_twice_is_a_mistake():
    run = right()
    doubled = run.columns.take(np.array([0, 1, 1, 2]))

    with pytest.raises(ValueError, match="same id"):
        compare(doubled, run.offline[:4], run.collected, run.published)


def test_vectors_are_trained_on_only_if_all_was_at_hand():
    run = right()

    np.testing.assert_array_equal(run.collected.complete_vectors(run.columns), run.offline)
    for incomplete in (
        run.chosen(np.arange(1, len(run.columns))),
        run.damaged(4, RISK, 0.0, kind=1),
        run.chosen(np.arange(0)),
    ):
        with pytest.raises(VacuousError, match="no decision"):
            incomplete.collected.complete_vectors(run.columns)


def late(name: str, request: Any) -> Any:
    if name == "look_up":
        raise GridUnavailableError("no answer in time")
    return request()


def test_what_is_collected_of_decisions_is_their_vectors_and_their_marks():
    system, columns, collector = MemorySystem(), to_columns(random_events(1, EVENTS, cards=6)), VectorCollector()
    worker, _ = system.worker(late)
    system.produce(columns)
    system.drain(worker)
    values = [r.value for p in range(2) for r in system.log.visible("card-decisions", p)]
    n = len(values) + 1

    collector.add(
        Records(
            "card-decisions", np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64), [b"k"] * n, [*values, b"x"]
        )
    )
    found, said = collector.collected(), system.records("card-decisions")

    assert (collector.count, collector.undecodable) == (len(said), 1) == (EVENTS, 1)
    np.testing.assert_array_equal(found.vectors, [one["features"] for one in said])
    assert found.ids.tobytes() == b"".join(one["transaction_id"] for one in said)
    lower = [(one["fallback_tier"],) * (one["fallback_tier"] != "CHAMPION") for one in said]
    assert [found.kinds[at] for at in found.marks] == [
        (*a, *one["degraded"]) for a, one in zip(lower, said, strict=True)
    ]
    assert any("REFERENCE_MISSED" in kind and "SMALL_MODEL" in kind for kind in found.kinds)


@pytest.mark.parametrize("partitions", [1, 2, 12])
def test_every_partition_of_the_terminals_log_is_opened_before_the_first_day(partitions: int):
    columns = right().columns

    opening = opening_transactions(columns, partitions)

    assert sorted(partitions_of(opening.terminal_id, partitions).tolist()) == list(range(partitions))
    assert not set(opening.terminal_id.tolist()) & set(columns.terminal_id.tolist())
    assert not set(opening.card_id.tolist()) & set(columns.card_id.tolist())
    assert not np.isin(ids_of(opening), ids_of(columns)).any()
    assert (opening.event_time_ms == columns.event_time_ms.min() - DAY_MS).all()
