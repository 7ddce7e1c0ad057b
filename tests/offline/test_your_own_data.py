"""A file of one's own: drafted, checked to its last row, trained on; and whatever it holds, an answer and no traceback."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cli.main import proact
from services.offline.datasets.files import read_chunks
from services.offline.datasets.labels import DatasetError
from services.offline.datasets.mapping import LEFT_OUT, Mapping, load_mapping, read_dataset
from services.offline.datasets.report import report_on
from services.offline.datasets.suggest import suggest
from tests.offline.sample_file import ROWS, sample

ROOT = Path(__file__).parents[2]
SAMPLE, MAPPING = ROOT / "docs/samples/merchants.csv", ROOT / "docs/samples/merchants.yaml"
PAGE = (ROOT / "docs/your-own-data.md").read_text()
NOW_MS = 1_900_000_000_000
ELSEWHERE = "/tmp"  # noqa: S108 - what the page says


def run(*arguments: str) -> Any:
    return CliRunner().invoke(proact, list(arguments), standalone_mode=False)


def commands(needs_kafka: bool) -> list[str]:
    blocks = [block for block in PAGE.split("```")[1::2] if block.startswith("\n")]
    found = [line for block in blocks for line in block.splitlines() if line.startswith("proact ")]
    return [line for line in found if line.startswith("proact replay") == needs_kafka]


def fields(**changes: Any) -> dict[str, Any]:
    described = yaml.safe_load(MAPPING.read_text())["fields"]
    return {name: rule for name, rule in (described | changes).items() if rule is not None}


def mapping(**changes: Any) -> Mapping:
    return Mapping("mine", fields(**changes), {"is_fraud": {"column": "is_fraud", True: [1], False: [0]}})


def file_with(folder: Path, row: int, **values: str) -> Path:
    """Return the sample with some values of a row, counted from 1, changed."""
    lines = sample().splitlines()
    names, cells = lines[0].split(","), lines[row].split(",")
    for name, value in values.items():
        cells[names.index(name)] = value
    lines[row] = ",".join(cells)
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_sample_is_what_it_is_made_of():
    assert SAMPLE.read_text() == sample()


def test_the_pages_commands_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    found = commands(needs_kafka=False)
    assert [line.split()[1] for line in found] == ["data", "data", "train", "evaluate"]
    for line in found:
        line, _, into = line.replace(ELSEWHERE, str(tmp_path)).partition(" > ")  # noqa: PLW2901
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output, done.stderr, done.exception)
        if into:
            drafted = yaml.safe_load(done.stdout)
            assert drafted["fields"].keys() >= {"card_id", "amount_minor", "event_time_ms"}
            (tmp_path / into).write_text(done.stdout)
            assert report_on(SAMPLE, load_mapping(str(tmp_path / into)), NOW_MS).usable
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics["test"]["average_precision"] > 0.5


def test_a_check_counts_every_row_field_and_label():
    found = report_on(SAMPLE, load_mapping(str(MAPPING)), NOW_MS)

    assert found.usable
    assert found.rows == ROWS == sum(found.labels.values())
    assert not found.refused
    assert found.left_out.keys() == LEFT_OUT.keys() - fields().keys()
    assert 40 < found.days < 48


@pytest.mark.parametrize("name", ["mine.csv.gz", "mine.CSV", "mine.parquet", "folder"])
def test_files_are_read_packed_in_capitals_as_parquet_and_by_the_folder(tmp_path: Path, name: str):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(sample().encode()))
    elif name == "mine.parquet":
        pyarrow.parquet.write_table(pa.csv.read_csv(SAMPLE), path)
    elif name == "folder":
        path.mkdir()
        lines = sample().splitlines()
        (path / "a.csv").write_text("\n".join(lines[:1001]))
        (path / "b.csv").write_text("\n".join([lines[0], *lines[1001:]]))
        (path / "readme.txt").write_text("not a table")
    else:
        path.write_text(sample())
    chunks, expected = list(read_dataset(path, mapping())), list(read_dataset(SAMPLE, mapping()))

    ids, wanted = (b"".join(one.columns.transaction_id.tobytes() for one in some) for some in (chunks, expected))
    assert ids == wanted
    assert sum(map(len, chunks)) == ROWS


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"amt": "a lot"}, ["row 7", "'amt'", "'a lot'", "an amount from 0 on"]),
        ({"amt": "-3"}, ["row 7", "'-3.0'", "an amount"]),
        ({"amt": ""}, ["row 7", "holds nothing"]),
        ({"unix_time": "yesterday"}, ["row 7", "epoch_s"]),
        ({"category": "yachts"}, ["row 7", "'yachts'", "grocery_pos"]),
        ({"merch_lat": "200"}, ["row 7", "-90 to 90"]),
        ({"cc_num": ""}, ["row 7", "card_id", "1 to 64 bytes"]),
        ({"trans_num": ""}, ["row 7", "transaction_id", "an identifier"]),
        ({"is_fraud": "perhaps"}, ["row 7", "'perhaps'", "1 for a fraud"]),
    ],
)
def test_a_value_that_cannot_be_one_is_said_with_its_row_and_what_is_allowed(
    tmp_path: Path, values: dict, says: list[str]
):
    path = file_with(tmp_path, 7, **values)
    found = report_on(path, mapping(), NOW_MS)

    assert not found.usable
    assert found.rows == ROWS
    said = " ".join(found.as_json()["examples"])
    assert all(one in said for one in says), said
    with pytest.raises(DatasetError, match="row 7"):
        list(read_dataset(path, mapping()))


def test_what_a_scorer_would_refuse_is_counted_by_reason_with_its_rows(tmp_path: Path):
    path = file_with(tmp_path, 9, merchant="4000 0000 0000 0135")
    found = report_on(path, mapping(), NOW_MS)

    assert found.usable
    assert dict(found.refused) == {"CARD_NUMBER": 1}
    assert "rows 9" in " ".join(found.as_json()["examples"])
    assert "0135" not in json.dumps(found.as_json())


def test_seconds_taken_for_milliseconds_are_refused_and_the_format_is_named():
    found = report_on(SAMPLE, mapping(event_time_ms={"column": "unix_time"}), NOW_MS)

    assert found.fields["event_time_ms"].wrong == ROWS
    assert "say format: epoch_s" in found.fields["event_time_ms"].examples[0]


@pytest.mark.parametrize("wanted", ["iso", "%Y-%m-%d %H:%M:%S", None])
def test_times_are_read_as_they_are_written(wanted: str | None):
    rule = {"column": "trans_date_trans_time"} | ({"format": wanted} if wanted else {})
    [found], [expected] = (list(read_dataset(SAMPLE, m)) for m in (mapping(event_time_ms=rule), mapping()))

    assert (found.columns.event_time_ms == expected.columns.event_time_ms).all()


def test_what_is_left_out_is_filled_in_as_it_is_said():
    left = mapping(transaction_id=None, merchant_category_code=None, entry_mode=None, latitude=None, longitude=None)
    [found], [again] = (list(read_dataset(SAMPLE, left)) for _ in range(2))
    columns = found.columns

    assert left.left_out.keys() == LEFT_OUT.keys() - {"merchant_id"}
    assert columns.customer_id.tolist() == columns.card_id.tolist() == columns.account_id.tolist()
    assert columns.terminal_id.tolist() == columns.merchant_id.tolist()
    assert (columns.billing_amount_minor == columns.amount_minor).all()
    assert np.isnan(columns.latitude).all()
    assert len({one.tobytes() for one in columns.transaction_id}) == ROWS
    assert (columns.transaction_id == again.columns.transaction_id).all()


def test_tokens_of_card_numbers_are_the_same_for_the_same_number_and_hold_no_digits():
    [found] = list(read_dataset(SAMPLE, mapping()))

    tokens = found.columns.card_id.tolist()
    numbers = [line.split(",")[1] for line in sample().splitlines()[1:]]
    assert len(set(tokens)) == len(set(numbers)) == len(set(zip(tokens, numbers, strict=True)))
    assert all(re.fullmatch(rb"card-[a-p]{20}", token) for token in tokens)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"amount_minor": {"column": "amt", "names": {"1": 2}}}, "names does not apply"),
        ({"event_time_ms": {"column": "unix_time", "format": "seconds"}}, "format is epoch_s"),
        ({"amount_minor": {"column": "amt", "decimals": -1}}, "decimals is a number from 0 to 6"),
        ({"currency": {"constant": 7}}, "cannot be 7 in every row"),
        ({"entry_mode": {"column": "category", "names": {}}}, "names is a table"),
        ({"card_id": None}, "missing"),
        ({"colour": {"constant": "red"}}, "unknown"),
        ({"card_id": {"column": "cc_num", "decimals": 2}}, "decimals does not apply"),
    ],
)
def test_a_mistake_in_a_mapping_is_said_when_it_is_read(changes: dict, says: str):
    with pytest.raises(DatasetError, match=says):
        mapping(**changes)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (b'a,b\n"1,2\n', "no column|cannot be read"),
        (b"a\n1\n", "no column"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes, says: str):
    for name in ("mine.csv", "mine.csv.gz", "mine.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=r"no column|cannot be read"):
            report_on(tmp_path / name, mapping(), NOW_MS)
    with pytest.raises(DatasetError, match=says):
        report_on(tmp_path / "mine.csv", mapping(), NOW_MS)


_CELLS = st.one_of(
    st.none(), st.text(max_size=12), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.binary(max_size=8),
    st.sampled_from(["1e400", "NaN", "2026-01-01", "4111 1111 1111 1111", "\x00", "EUR", "1767227501"]),
)  # fmt: skip
COLUMNS = sorted({rule["column"] for rule in fields().values() if "column" in rule} | {"is_fraud"})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_table_holds_there_is_an_answer_and_no_traceback(tmp_path: Path, data: st.DataObject):
    n = data.draw(st.integers(0, 4))
    kinds = st.sampled_from([str, int, float, bytes, bool])
    columns = {}
    for name in COLUMNS:
        kind = data.draw(kinds)
        cells = data.draw(
            st.lists(st.none() | _CELLS.filter(lambda one, kind=kind: type(one) is kind), min_size=n, max_size=n)
        )
        columns[name] = pa.array(
            cells, {str: pa.string(), int: pa.int64(), float: pa.float64(), bytes: pa.binary(), bool: pa.bool_()}[kind]
        )
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "any.parquet")

    found = report_on(tmp_path / "any.parquet", mapping(), NOW_MS)
    assert found.rows == n
    json.dumps(found.as_json())
    try:
        read = list(read_dataset(tmp_path / "any.parquet", mapping()))
    except DatasetError:
        assert not found.usable
    else:
        assert sum(map(len, read)) == n
    assert suggest(tmp_path / "any.parquet").as_yaml()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(st.sampled_from('ab,"\n\r;1.é\x00'), max_size=200).map(str.encode))
def test_whatever_bytes_a_file_is_of_there_is_an_answer_and_no_traceback(tmp_path: Path, content: bytes):
    for name in ("any.csv", "any.csv.gz", "any.parquet"):
        path = tmp_path / name
        path.write_bytes(content)
        for work in (
            lambda path=path: report_on(path, mapping(), NOW_MS).as_json(),
            lambda path=path: suggest(path).as_yaml(),
        ):
            with suppress(DatasetError):
                work()


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_a_column_whose_name_stands_twice_is_refused_where_it_is_read_and_left_alone_elsewhere(
    tmp_path: Path, end: str
):
    table = pa.table({"card": ["c1"], "amount": [1.0], "a": [1], "b": [2]}).rename_columns(["card", "amount", "", ""])
    path = tmp_path / f"twice.{end}"
    pyarrow.parquet.write_table(table, path) if end == "parquet" else pyarrow.csv.write_csv(table, path)

    assert next(read_chunks(path, ["card", "amount"])).table.column_names == ["card", "amount"]
    assert suggest(path).mapping["fields"]["card_id"] == {"column": "card"}
    with pytest.raises(DatasetError, match="2 columns named ''"):
        next(read_chunks(path, ["card", ""]))


def test_a_short_history_names_the_option_that_helps(tmp_path: Path):
    lines = sample().splitlines()
    (tmp_path / "short.csv").write_text("\n".join(lines[:400]))
    common = ["--data", str(tmp_path / "short.csv"), "--mapping", str(MAPPING)]

    done = CliRunner().invoke(proact, ["train", *common, "--output", str(tmp_path / "m/v1")])
    assert "--label-delay-days" in str(done.exception or done.stderr) + done.stderr
    done = CliRunner().invoke(proact, ["evaluate", "models/fraud/v4", *common, "--warm-up-days", "20"])
    assert "--warm-up-days" in done.stderr
