"""Training sets from the lake: what serving saw, joined with the truth as far as it was known by a day.

Nothing that became known later is in it. A vector is the one that the decision was made from, so that it holds the labels of terminals that were
known then, and no others; what was decided on the day or later is left out. A label counts if it was known by the day; of several of a transaction
the newest one. What has not had time to mature is left out: a transaction that is younger than the delay may be a fraud that nobody has noticed yet, and would teach that it is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from services.core.columns import type_bool, type_f64
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.core.money import EXPONENTS
from services.core.profiles import DAY_MS
from services.lake.queries import Lake
from services.lake.table import midnight_ms, table_name
from services.offline.simulator.world import EUR_PER_UNIT
from services.offline.trainer.labelled import Labelled, days_of

TABLES: Final = ("card-transactions", "card-decisions", "fraud-labels")
_NAMES: Final = tuple(map(table_name, TABLES))
_NEWEST: Final = """
    SELECT transaction_id, is_fraud, scenario FROM fraud_labels {semi} WHERE known_at_ms <= $until_ms
    QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY known_at_ms DESC, kafka_offset DESC, kafka_partition DESC) = 1
"""
_LABELS: Final = _NEWEST.format(semi="")
_LABELS_OF_WANTED: Final = _NEWEST.format(semi="SEMI JOIN wanted USING (transaction_id)")
_SAME: Final = "t.kafka_partition = d.source_partition AND t.kafka_offset = d.source_offset AND t.transaction_id = d.transaction_id"
"""The last condition, too: a topic that was made anew begins at the same offsets."""
_SERVED: Final = f"""
    SELECT d.transaction_id, d.card_id, d.event_time_ms, d.features, d.feature_set_hash, d.action, d.source_partition, d.source_offset,
        t.kafka_topic_id, t.billing_amount_minor, t.billing_currency, l.is_fraud, l.scenario, {{weight}} AS weight
    FROM card_decisions d JOIN card_transactions t ON {_SAME}
    LEFT JOIN ({{labels}}) l ON l.transaction_id = d.transaction_id
    WHERE d.event_time_ms >= $from_ms AND d.event_time_ms < $mature_ms AND d.decided_at_ms < $decided_ms AND NOT d.repeat
        AND d.fallback_tier = 'CHAMPION' AND (d.feature_set_hash = $hash OR $all_sets) {{within}}
    ORDER BY d.event_time_ms, d.source_partition, d.source_offset
"""  # noqa: S608 - two constants
_CONTROL_WEIGHT: Final = "CASE WHEN d.control_propensity IS NULL THEN 1.0 WHEN d.control_action IS NULL THEN 0.0 ELSE 1.0 / d.control_propensity END"
"""Those of the control group stand for all that could have been let through, which then must not be counted, too."""
_DECIDED: Final = f"""
    SELECT d.features, d.feature_set_hash, d.action, d.decided_by, l.is_fraud, l.scenario, t.*
    FROM card_decisions d JOIN card_transactions t ON {_SAME}
    LEFT JOIN ({_LABELS}) l ON l.transaction_id = d.transaction_id
    WHERE d.event_date = $day::DATE AND d.event_time_ms >= $from_ms AND d.event_time_ms < $mature_ms AND d.decided_at_ms < $decided_ms
        AND NOT d.repeat AND d.fallback_tier = 'CHAMPION' AND d.feature_set_hash = $hash
    ORDER BY d.source_partition, d.source_offset
"""  # noqa: S608 - constants
_LEFT_OUT: Final = f"""
    SELECT coalesce(why, 'taken') AS why, count(*) AS n FROM (
        SELECT CASE WHEN d.event_time_ms >= $mature_ms THEN 'immature' WHEN d.decided_at_ms >= $decided_ms THEN 'decided_later'
            WHEN d.repeat THEN 'repeats' WHEN d.fallback_tier != 'CHAMPION' THEN 'below_champion'
            WHEN d.feature_set_hash != $hash AND NOT $all_sets THEN 'of_other_feature_sets'
            WHEN t.transaction_id IS NULL THEN 'without_transaction' END AS why
        FROM card_decisions d LEFT JOIN (SELECT * FROM card_transactions t WHERE TRUE {{log_within}}) t ON {_SAME}
        WHERE d.event_time_ms >= $from_ms AND d.event_time_ms < $until_ms {{within}}
    ) GROUP BY ALL
"""  # noqa: S608 - a constant
COUNTED: Final = ("transactions", "without_label", "labels", "frauds_known", "blocked", "control_group")
_WHY: Final = ("immature", "decided_later", "repeats", "below_champion", "of_other_feature_sets", "without_transaction")
_LATE: Final = """
    SELECT count(*) AS frauds, count(*) FILTER (late) AS later FROM (
        SELECT min(known_at_ms - event_time_ms) > $delay_ms AS late FROM fraud_labels
        WHERE is_fraud AND known_at_ms <= $until_ms AND event_time_ms >= $from_ms AND hash(transaction_id) % $buckets = $bucket
        GROUP BY transaction_id
    )
"""


class TrainingSetError(ValueError):
    """There is nothing to learn from, or the lake lacks what is needed."""


@dataclass(frozen=True, slots=True)
class TrainingPeriod:
    """Which decisions a training set is of."""

    until: date
    """The day before which everything must have been known: 00:00 UTC."""
    label_delay_days: int = 7
    """Transactions of so many days before ``until`` are left out."""
    since: date | None = None
    """The first day of transactions; None: all that the lake has."""
    replayed: bool = False
    """Whether the lake holds history that was replayed: then when it was decided says nothing of what was known."""
    all_feature_sets: bool = False
    """Whether decisions of other feature sets are taken, too, whose vectors are made anew."""

    def __post_init__(self) -> None:
        if self.since is not None and self.since >= self.until:
            raise TrainingSetError(f"the days are in the wrong order: from {self.since} until {self.until}")
        if self.label_delay_days < 0:
            raise TrainingSetError(f"labels do not come before their transactions: {self.label_delay_days} days")

    @property
    def parameters(self) -> dict[str, Any]:
        """What the queries are asked with."""
        until_ms, delay_ms = midnight_ms(self.until), self.label_delay_days * DAY_MS
        return {
            "from_ms": -(2**62) if self.since is None else midnight_ms(self.since), "until_ms": until_ms, "mature_ms": until_ms - delay_ms,
            "delay_ms": delay_ms, "hash": FEATURE_SET_HASH, "decided_ms": 2**62 if self.replayed else until_ms,
            "all_sets": self.all_feature_sets,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """Decisions with their vectors and the truth, one row each, in the order of their events."""

    table: pa.Table
    """Of each: transaction_id, card_id, event_time_ms, action, billing_amount_minor, billing_currency, is_fraud, scenario, weight,
    source_partition, source_offset."""
    vectors: type_f64
    """(n, features)"""
    description: dict[str, Any]
    """What it is of, and what was left out: for the manifest."""

    @property
    def fraud(self) -> type_bool:
        """Which are known to be fraud."""
        return self.table["is_fraud"].fill_null(False).to_numpy()

    @property
    def blocked(self) -> type_bool:
        """Which were blocked: what they were is rarely known, since nobody complains about what did not happen."""
        return pc.equal(self.table["action"], "BLOCK").to_numpy()

    @property
    def amount_eur(self) -> type_f64:
        """(n,) the billing amounts in EUR, by the simulator's round rates; another currency counts as EUR. For costs only."""
        return _amounts_in_eur(self.table)

    @property
    def weight(self) -> type_f64:
        """(n,) for how many transactions each stands in training: one of the control group for some that could have been let through, and these for none."""
        found: type_f64 = self.table["weight"].to_numpy()
        return found

    @property
    def known(self) -> type_bool:
        """Of which the truth is known: those that have a label, and those that went through and nobody complained about."""
        return self.table["is_fraud"].is_valid().to_numpy() | ~self.blocked

    def labelled(self) -> Labelled:
        """Return it as a model is trained on it. Raises TrainingSetError where there is nothing."""
        require_rows(self.description)
        cards = self.table["card_id"].combine_chunks().dictionary_encode()
        return Labelled(
            vectors=self.vectors,
            fraud=self.fraud,
            known=self.known,
            weight=self.weight,
            scenario=self.scenario,
            amount_eur=self.amount_eur,
            card=cards.indices.to_numpy().astype(np.int64),
            day=days_of(self.table["event_time_ms"].to_numpy()),
            source=self.description,
        )

    @property
    def scenario(self) -> np.ndarray:
        """(n,) what their labels call them; fraud or genuine where these have no name for it."""
        scenario = self.table["scenario"].to_numpy(zero_copy_only=False)
        named = np.where(self.fraud, "fraud", "genuine").astype(object)
        has_name = np.array([one is not None for one in scenario], bool)
        return np.where(has_name, scenario, named)


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """A range of offsets, the same of every partition of the log: what is handled at once where not everything is."""

    begin: int
    end: int
    """The first one that is not in it."""

    def of(self, column: str) -> str:
        """Return the condition that a column is in it, as SQL behind others; numbers, so that whole files are passed over by it."""
        return f"AND {column} >= {self.begin} AND {column} < {self.end}"


def read_rows(lake: Lake, wanted: TrainingPeriod, within: OffsetRange | None = None) -> Served:
    """Join decisions with what was known of them; of the whole log, or of a range of its offsets. Raises LakeError.

    Its description counts what is in it and what was left out (:func:`added`).
    """
    decided = "" if within is None else within.of("d.source_offset")
    logged = "" if within is None else within.of("t.kafka_offset")
    beside, labels = {}, _LABELS
    if within is not None:
        # Else the labels of all of history would be put in order for each range.
        ids = f"SELECT DISTINCT d.transaction_id FROM card_decisions d WHERE TRUE {decided}"  # noqa: S608 - two numbers
        beside, labels = {"wanted": lake.query(ids)}, _LABELS_OF_WANTED
    parameters = wanted.parameters
    # A table that is older than the control group has no such columns.
    weight = _CONTROL_WEIGHT if "control_action" in lake.columns("card_decisions") else "1.0"
    table = lake.query(_SERVED.format(labels=labels, weight=weight, within=f"{decided} {logged}"), parameters, beside)
    left_out = lake.query(_LEFT_OUT.format(within=decided, log_within=logged), parameters).to_pylist()
    vectors = _matrix(table)
    served = Served(table.drop_columns(["features"]), vectors, {})
    counted = {
        "transactions": len(table),
        "without_label": int(np.count_nonzero(~served.known)),
        "labels": int(table["is_fraud"].is_valid().to_numpy().sum()),
        "frauds_known": int(served.fraud.sum()),
        "blocked": int(served.blocked.sum()),
        "control_group": int((served.weight > 1).sum()),
    }
    return replace(served, description=counted | {"left_out": {row["why"]: row["n"] for row in left_out}})


def added(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of what :func:`read_rows` counted of ranges that have no offset in common."""
    left_out: Counter[str] = Counter()
    for one in some:
        left_out.update(one["left_out"])
    sums = {name: sum(one[name] for one in some) for name in COUNTED}
    return sums | {"left_out": {name: left_out[name] for name in _WHY}}


def count_late(lake: Lake, wanted: TrainingPeriod, bucket: int = 0, buckets: int = 1) -> tuple[int, int]:
    """Return how many transactions are known to be fraud, and of how many that was noticed later than the delay. Raises LakeError.

    Args:
        lake: of which the labels are read.
        wanted: the period.
        bucket: which share of the transactions is looked at.
        buckets: how many shares there are.
    """
    row = lake.query(_LATE, wanted.parameters | {"bucket": bucket, "buckets": buckets}).to_pylist()[0]
    return row["frauds"], row["later"]


def describe(
    lake: Lake, wanted: TrainingPeriod, counted: dict[str, Any], late: tuple[int, int], code_revision: str
) -> dict[str, Any]:
    """Return what a training set is of, and what was left out: for the manifest."""
    frauds, later = late
    return {
        "source": "lake",
        "transactions": counted["transactions"],
        "without_label": counted["without_label"],
        "until": wanted.until.isoformat(),
        "since": None if wanted.since is None else wanted.since.isoformat(),
        "label_delay": wanted.label_delay_days,
        "labels": counted["labels"],
        "frauds_known": counted["frauds_known"],
        "blocked": counted["blocked"],
        "control_group": counted["control_group"],
        "left_out": counted["left_out"],
        "frauds_noticed_later_than_the_delay": round(later / frauds, 4) if frauds else None,
        "delta_versions": {name: lake.tables[name].version() for name in _NAMES},
        "code_revision": code_revision,
    }


def read_served(lake: Lake, wanted: TrainingPeriod, code_revision: str) -> Served:
    """Join decisions with what was known of them.

    Args:
        lake: of which tables are read.
        wanted: which decisions.
        code_revision: of the program that does it, for the manifest.

    Raises:
        TrainingSetError: a table is missing.
        LakeError: the lake cannot be read.
    """
    require_tables(lake)
    served = read_rows(lake, wanted)
    described = describe(lake, wanted, added([served.description]), count_late(lake, wanted), code_revision)
    return replace(served, description=described)


def read_decided(lake: Lake, period: TrainingPeriod, day: str) -> Served:
    """Return the decisions of a day of a period, with all that their transactions say. Raises TrainingSetError, LakeError."""
    require_tables(lake)
    table = lake.query(_DECIDED, period.parameters | {"day": day})
    vectors = _matrix(table)
    return Served(table.drop_columns(["features", "feature_set_hash"]), vectors, {})


def require_rows(description: dict[str, Any]) -> None:
    """Raise TrainingSetError if there is nothing to learn from in what :func:`describe` describes."""
    if not description["transactions"]:
        later = description["left_out"]["decided_later"]
        hint = f"; {later} were decided later: of a history that was replayed say --replayed" if later else ""
        raise TrainingSetError(f"the lake holds no decision of these days to learn from{hint}")


def require_tables(lake: Lake) -> None:
    """Raise TrainingSetError if the lake lacks a table."""
    if missing := [name for name in _NAMES if name not in lake.tables]:
        raise TrainingSetError(f"the lake has no table {missing[0]}: the archiver makes it (`proact archiver`)")


def _matrix(table: pa.Table) -> type_f64:
    """Return the vectors of this feature set, and NaN for those of others."""
    same = pc.equal(table["feature_set_hash"], FEATURE_SET_HASH).to_numpy()
    vectors = np.full((len(table), len(FEATURE_NAMES)), np.nan)
    flat: type_f64 = pc.list_flatten(table["features"].filter(pa.array(same))).to_numpy()
    vectors[same] = flat.reshape(-1, len(FEATURE_NAMES))
    return vectors


def _amounts_in_eur(table: pa.Table) -> type_f64:
    """Return billing amounts in EUR, by the simulator's round rates; another currency counts as EUR. For the cost table only."""
    codes = table["billing_currency"].combine_chunks().dictionary_encode()
    rates = np.array([EUR_PER_UNIT.get(code, 1.0) / 10 ** EXPONENTS[code] for code in codes.dictionary.to_pylist()])
    amounts: type_f64 = table["billing_amount_minor"].to_numpy() * rates[codes.indices.to_numpy()]
    return amounts


def as_table(served: Served) -> pa.Table:
    """Return a training set as one table: a column for each feature, beside those of ``served.table``, ``known`` and ``blocked``."""
    table = served.table.append_column("known", pa.array(served.known)).append_column(
        "blocked", pa.array(served.blocked)
    )
    for j, name in enumerate(FEATURE_NAMES):
        table = table.append_column(name, pa.array(served.vectors[:, j]))
    return table


def write_served(served: Served, path: Path) -> None:
    """Write a training set as one Parquet file, as :func:`as_table` has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(as_table(served), path, compression="zstd")
