"""Labels from files: what a mapping lists as true or false, nothing where nothing stands, and an error for all else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.core.profiles import DAY_MS
from services.offline.datasets.mapping import DatasetError, load_mapping, read_dataset
from services.offline.replay.labels import recorded_truth
from services.offline.trainer.costs import CostTable
from services.offline.trainer.history import file_history
from services.offline.trainer.splitting import split_for
from services.offline.trainer.training import Labelled, train
from tests.benchmarks.replaying import read_recorded
from tests.cli.running import run

HANDBOOK = Path(__file__).parents[2] / "services/offline/datasets/mappings/handbook.yaml"
START_MS = 1_767_225_600_000


def a_mapping(folder: Path, label: dict) -> str:
    described = yaml.safe_load(HANDBOOK.read_text())
    described["truth"] = {"is_fraud": {"column": "fraud"} | label}
    path = folder / "bank.yaml"
    path.write_text(yaml.safe_dump(described))
    return str(path)


def a_table(labels: pa.Array) -> pa.Table:
    n = len(labels)
    return pa.table(
        {
            "TRANSACTION_ID": list(range(n)),
            "CUSTOMER_ID": [i % 7 for i in range(n)],
            "TERMINAL_ID": [i % 5 for i in range(n)],
            "TX_AMOUNT": [10.0 + i for i in range(n)],
            "TX_DATETIME": pa.array([START_MS + 60_000 * i for i in range(n)], pa.timestamp("ms")),
            "fraud": labels,
        }
    )


def read(folder: Path, table: pa.Table, label: dict, kind: str = "parquet") -> list[bool | None]:
    """Return the label of each row: True, False, or None for none."""
    path = folder / f"bank.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        rows = [
            ",".join("" if v is None else str(v) for v in row.values())
            for row in table.set_column(4, "TX_DATETIME", table["TX_DATETIME"].cast(pa.string())).to_pylist()
        ]
        path.write_text("\n".join([",".join(table.column_names), *rows]) + "\n")
    chunks = list(read_dataset(path, load_mapping(a_mapping(folder, label))))
    found: list[bool | None] = []
    for chunk in chunks:
        assert chunk.is_fraud is not None
        assert chunk.labelled is not None
        assert not chunk.is_fraud[~chunk.labelled].any()
        pairs = zip(chunk.is_fraud.tolist(), chunk.labelled.tolist(), strict=True)
        found += [fraud if known else None for fraud, known in pairs]
    return found


WORDS = {"true": ["Yes", "fraud", 7], "false": ["No", "genuine", 8]}
"""What the mapping of most tests here lists."""


@pytest.mark.parametrize(
    ("values", "kind", "label", "wanted"),
    [
        (pa.array([True, False, None]), "parquet", {}, [True, False, None]),
        (pa.array([1, 0, None], pa.int8()), "parquet", {}, [True, False, None]),
        (pa.array([1.0, 0.0, math.nan, None]), "parquet", {}, [True, False, None, None]),
        (pa.array(["Yes", "No", "", None, "  "]), "parquet", WORDS, [True, False, None, None, None]),
        (pa.array(["Yes", "No", None]).dictionary_encode(), "parquet", WORDS, [True, False, None]),
        (pa.array([7, 8, None]), "parquet", WORDS, [True, False, None]),
        (pa.array([0, 1]), "parquet", {"true": [0], "false": [1]}, [True, False]),
        (pa.array([1, 0, None]), "csv", {}, [True, False, None]),
        (pa.array([True, False, None]), "csv", {}, [True, False, None]),
        (pa.array([1.0, 0.0, math.nan, None]), "csv", {}, [True, False, None, None]),
        (pa.array(["Yes", "No", None]), "csv", WORDS, [True, False, None]),
        (pa.array(["7", "8.0", "fraud", "NA"]), "csv", WORDS, [True, False, True, None]),
        (pa.array([None, None], pa.int64()), "csv", {}, [None, None]),
        (pa.array([None, None], pa.null()), "parquet", {}, [None, None]),
    ],
)
def test_a_label_is_what_the_mapping_lists_and_an_empty_one_is_none(tmp_path, values, kind, label, wanted):
    assert read(tmp_path, a_table(values), label, kind) == wanted


@pytest.mark.parametrize(
    ("values", "kind", "label", "says"),
    [
        (pa.array(["Yes", "No"]), "parquet", {}, ["row 1", "'fraud'", "'Yes'", "true or 1 for a fraud"]),
        (pa.array(["1", "0"]), "parquet", {}, ["row 1", "'1'"]),
        (pa.array([0, 1, 2]), "parquet", {}, ["row 3", "'2'"]),
        (pa.array([0.0, 0.5]), "parquet", {}, ["row 2", "'0.5'"]),
        (pa.array([0.0, math.inf]), "parquet", {}, ["row 2", "'inf'"]),
        (pa.array([0, -1]), "csv", {}, ["row 2", "'-1'"]),
        (pa.array(["No", "no"]), "csv", WORDS, ["row 2", "'no'", "Yes or fraud or 7 for a fraud, No or genuine or 8"]),
        (pa.array([True, False]), "parquet", WORDS, ["row 1", "'True'"]),
        (pa.array(["No", "4111 1111 1111 1111"]), "csv", WORDS, ["row 2", "**** **** **** ****"]),
        (pa.array(["No", "x" * 5_000]), "parquet", WORDS, ["row 2", "xxx..."]),
        (pa.array([b"Yes", b"No"]), "parquet", WORDS, ["row 1"]),
    ],
)
def test_anything_else_is_an_error_that_names_the_row(tmp_path, values, kind, label, says):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, a_table(values), label, kind)

    reported = str(caught.value)
    assert all(one in reported for one in [f"bank.{kind}", *says]), reported
    assert "\n" not in reported
    assert "4111" not in reported
    assert len(reported) < 400


def test_the_row_is_that_of_the_file_and_not_of_a_chunk_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("services.offline.datasets.files.ROWS_PER_CHUNK", 10)
    values = [0] * 37 + [3] + [0] * 5
    for kind in ("parquet", "csv"):
        with pytest.raises(DatasetError, match="row 38: "):
            read(tmp_path, a_table(pa.array(values)), {}, kind)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({"true": [1]}, "or neither"),
        ({"true": [1], "false": []}, "at least one"),
        ({"true": ["x"], "false": ["x", "y"]}, "different values"),
        ({"true": [1], "false": [1.0]}, "different values"),
        ({"true": [None], "false": [0]}, "cannot stand for a label"),
        ({"true": [""], "false": [0]}, "cannot stand for a label"),
        ({"true": [{"a": 1}], "false": [0]}, "cannot stand for a label"),
        ({"prefix": "x"}, "must be a column"),
    ],
)
def test_a_mapping_that_does_not_say_what_a_label_is_is_refused(tmp_path, label, says):
    with pytest.raises(DatasetError, match=says):
        load_mapping(a_mapping(tmp_path, label))


def test_yes_and_no_in_a_mapping_are_the_words_and_not_truth_values(tmp_path):
    text = HANDBOOK.read_text().split("truth:")[0] + "truth:\n  is_fraud: {column: fraud, true: [Yes], false: [No]}\n"
    (tmp_path / "words.yaml").write_text(text)
    pyarrow.parquet.write_table(a_table(pa.array(["No", "Yes", "No"])), tmp_path / "words.parquet")

    [chunk] = read_dataset(tmp_path / "words.parquet", load_mapping(str(tmp_path / "words.yaml")))

    assert chunk.is_fraud is not None
    assert chunk.is_fraud.tolist() == [False, True, False]


def twin(value: object, true: Sequence[object], false: Sequence[object]) -> bool | str | None:
    """What a label of a file with types means, the slow obvious way."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    for listed, meaning in ((true, True), (false, False)):
        for one in listed:
            if (type(one) is type(value) or {type(one), type(value)} <= {int, float}) and one == value:
                return meaning
    return "wrong"


KINDS = {
    "booleans": (pa.bool_(), st.none() | st.booleans()),
    "integers": (pa.int64(), st.none() | st.integers(-2, 4)),
    "floats": (pa.float64(), st.none() | st.sampled_from([0.0, 1.0, 2.0, 0.5, -0.0, math.nan])),
    "texts": (pa.string(), st.none() | st.sampled_from(["", "Yes", "No", "yes", "fraud"])),
}
LISTS = st.tuples(
    st.lists(st.sampled_from([True, 1, 2, "Yes", "fraud"]), min_size=1, max_size=3),
    st.lists(st.sampled_from([False, 0, 3, "No", "genuine"]), min_size=1, max_size=3),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)), lists=LISTS)
def test_labels_are_what_the_slow_twin_says(tmp_path, data, kind, lists):
    type_, values = KINDS[kind]
    column = data.draw(st.lists(values, min_size=1, max_size=12))
    wanted = [twin(value, *lists) for value in column]
    label = {"true": lists[0], "false": lists[1]}

    if "wrong" in wanted:
        with pytest.raises(DatasetError, match=f"row {wanted.index('wrong') + 1}: "):
            read(tmp_path, a_table(pa.array(column, type_)), label)
    else:
        assert read(tmp_path, a_table(pa.array(column, type_)), label) == wanted


def a_history(folder: Path, days: int = 40) -> tuple[str, str, np.ndarray]:
    """Write a file of transactions, of which a third have no label; return file, mapping, and which are labelled frauds."""
    rng, n = np.random.default_rng(3), 6_000
    said = rng.choice(["Yes", "No", ""], n, p=[0.1, 0.6, 0.3])
    times = np.sort(START_MS + rng.integers(0, days * DAY_MS, n))
    table = a_table(pa.array(said.tolist()))
    table = table.set_column(4, "TX_DATETIME", pa.array(times, pa.timestamp("ms")))
    amounts = np.where(said == "Yes", 500.0, 10.0) + rng.uniform(0, 5, n)
    table = table.set_column(3, "TX_AMOUNT", pa.array(amounts))
    pyarrow.parquet.write_table(table, folder / "bank.parquet")
    return str(folder / "bank.parquet"), a_mapping(folder, WORDS), said == "Yes"


def test_what_has_no_label_fills_windows_and_is_neither_learnt_from_nor_tested_on(tmp_path):
    file, mapping, fraud = a_history(tmp_path)
    history = file_history(Path(file), mapping)
    trained = train(Labelled.of(history), 3, CostTable(), lambda _: None)

    split, day = split_for(40, 3), (history.columns.event_time_ms - START_MS) // DAY_MS
    known = history.has_label
    assert (~known).sum() > 1_000
    assert trained.training["transactions"] == len(history.columns) == 6_000
    assert trained.training["without_label"] == int((~known).sum())
    assert trained.training["rows"]["train"] == int(
        (known & (day >= split.train_from) & (day < split.train_until)).sum()
    )
    assert trained.training["rows"]["test"] == int((known & (day >= split.test_from)).sum())
    assert history.fraud.sum() == fraud.sum()


def test_a_replay_sends_a_label_of_frauds_alone(tmp_path):
    file, mapping, fraud = a_history(tmp_path)
    [chunk] = read_dataset(Path(file), load_mapping(mapping))

    assert chunk.is_fraud is not None
    assert len(recorded_truth(chunk.columns, chunk.is_fraud)) == fraud.sum()


def test_a_benchmark_by_protocol_needs_all_labels(tmp_path):
    file, mapping, _ = a_history(tmp_path)

    with pytest.raises(DatasetError, match=r"row \d+ has no label"):
        read_recorded(Path(file), mapping)


def test_a_file_without_any_label_trains_nothing(tmp_path):
    pyarrow.parquet.write_table(a_table(pa.array([None] * 20, pa.bool_())), tmp_path / "bank.parquet")

    with pytest.raises(DatasetError, match="holds no label"):
        file_history(tmp_path / "bank.parquet", a_mapping(tmp_path, {}))


def test_a_scenario_that_the_mapping_does_not_name_is_reported_with_its_row(tmp_path):
    table = a_table(pa.array([0, 1, 0])).append_column("TX_FRAUD", pa.array([0, 1, 0]))
    pyarrow.parquet.write_table(
        table.append_column("TX_FRAUD_SCENARIO", pa.array([0, 9, None])), tmp_path / "bank.parquet"
    )

    with pytest.raises(DatasetError, match="row 2: column 'TX_FRAUD_SCENARIO' holds '9'"):
        list(read_dataset(tmp_path / "bank.parquet", load_mapping("handbook")))


@pytest.mark.parametrize(
    "command",
    [["train", "--data"], ["evaluate", "models/fraud/v4", "--data"],
     ["rules", "backtest", "deploy/rules.yaml", "--data"]],
    ids=lambda command: " ".join(command[:2]),
)  # fmt: skip
def test_every_command_that_reads_labels_says_which_row_is_none(proact, tmp_path, command):
    pyarrow.parquet.write_table(a_table(pa.array(["No", "Maybe"])), tmp_path / "bank.parquet")

    where = ["--output", str(tmp_path / "fraud/v1")] if command[0] == "train" else []
    done = run(proact, *command, str(tmp_path / "bank.parquet"), "--mapping", a_mapping(tmp_path, WORDS), *where)

    assert done.returncode == 1
    assert "bank.parquet: row 2: column 'fraud' holds 'Maybe'" in done.stderr
    assert "Traceback" not in done.stderr
