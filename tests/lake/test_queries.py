"""What people do with the lake: ask it, tidy it, have a customer forgotten; and the mistakes that they make."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from services.cli.lake import lake
from services.lake import forgetting
from services.lake.forgetting import forget
from services.lake.queries import AUDIT, Lake
from services.lake.table import LakeError, LakeTable
from tests.codec.fuzzing import examples_of
from tests.lake.filling import fill

TOPICS = ["card-transactions", "fraud-labels", "rule-sets"]
DAY_MS = 86_400_000


def transactions(count: int, customers: int = 3) -> list[dict]:
    example = examples_of("card-transactions")[0]
    return [
        example
        | {
            "transaction_id": uuid.UUID(int=i).bytes,
            "customer_id": f"customer-{i % customers}",
            "event_time_ms": example["event_time_ms"] + i * DAY_MS // 4,
        }
        for i in range(count)
    ]


def labels(count: int) -> list[dict]:
    example = examples_of("fraud-labels")[0]
    return [example | {"transaction_id": uuid.UUID(int=i).bytes, "is_fraud": i % 2 == 0} for i in range(count)]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    fill(tmp_path, "card-transactions", transactions(12))
    fill(tmp_path, "fraud-labels", labels(12))
    fill(tmp_path, "rule-sets", examples_of("rule-sets")[:1])
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(lake, list(arguments))


def of_all_files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_sql_joins_tables(filled: Path):
    sql = "SELECT count(*) AS n FROM card_transactions JOIN fraud_labels USING (transaction_id) WHERE is_fraud"

    found = Lake(str(filled), TOPICS).query(sql).to_pylist()

    assert found == [{"n": 6}]


def test_status_says_rows_days_and_offsets(filled: Path):
    found = run("status", "--lake-url", str(filled), "--json")

    assert found.exit_code == 0, found.output
    tables = {one["table"]: one for one in json.loads(found.stdout)}
    assert tables.keys() == {"card_transactions", "fraud_labels", "rule_sets"}
    assert tables["card_transactions"]["rows"] == 12
    assert tables["card_transactions"]["next_offsets"] == {"0": 12}
    assert tables["card_transactions"]["first_day"] < tables["card_transactions"]["last_day"]
    assert "card_transactions" in run("status", "--lake-url", str(filled)).stdout


@pytest.mark.parametrize(("form", "wanted"), [("json", '{"n": 12}\n'), ("csv", "n\n12\n"), ("auto", '{"n": 12}\n')])
def test_answers_are_printed_for_machines(filled: Path, form: str, wanted: str):
    found = run("sql", "--lake-url", str(filled), "--format", form, "SELECT count(*) AS n FROM card_transactions")

    assert found.stdout == wanted


def test_a_customer_is_forgotten_in_every_table_and_file_and_the_audit_trail_says_so(filled: Path):
    assert b"customer-1" in of_all_files(filled)

    done = run("forget", "--lake-url", str(filled), "--customer", "customer-1", "--who", "Anna", "--yes")

    assert done.exit_code == 0, done.output
    found = Lake(str(filled), TOPICS)
    assert found.query("SELECT DISTINCT customer_id AS c FROM card_transactions ORDER BY 1").to_pylist() == [
        {"c": "customer-0"}, {"c": "customer-2"},
    ]  # fmt: skip
    assert found.query("SELECT count(*) AS n FROM fraud_labels").to_pylist() == [{"n": 8}]
    audit = found.query(f'SELECT who, what, "table", rows FROM {AUDIT} ORDER BY 3').to_pylist()
    assert audit == [
        {"who": "Anna", "what": "forget", "table": "card_transactions", "rows": 4},
        {"who": "Anna", "what": "forget", "table": "fraud_labels", "rows": 4},
    ]
    assert b"customer-1" not in of_all_files(filled)
    for name in ("card_transactions", "fraud_labels"):
        parquet = b"".join(path.read_bytes() for path in (filled / name).rglob("*.parquet"))
        assert str(uuid.UUID(int=1)).encode() not in parquet
    fill(filled, "card-transactions", transactions(15)[12:], begin=12)


def counts(folder: Path, customer: str) -> tuple[int, int]:
    """Return how many transactions a customer has, and how many labels there are of any."""
    lake = Lake(str(folder), TOPICS)
    of_customer = lake.query(f"SELECT count(*) AS n FROM card_transactions WHERE customer_id = '{customer}'")
    return of_customer.to_pylist()[0]["n"], lake.query("SELECT count(*) AS n FROM fraud_labels").to_pylist()[0]["n"]


def test_a_label_that_comes_later_goes_when_it_is_said_again(tmp_path: Path):
    fill(tmp_path, "card-transactions", transactions(12))
    fill(tmp_path, "fraud-labels", labels(3))
    assert forget(Lake(str(tmp_path), TOPICS), "customer-1", "Anna", 1, time.sleep) == {
        "fraud_labels": 1,
        "card_transactions": 4,
    }
    fill(tmp_path, "fraud-labels", labels(12)[3:], begin=3)

    assert forget(Lake(str(tmp_path), TOPICS), "customer-1", "Anna", 2, time.sleep) == {
        "fraud_labels": 3,
        "card_transactions": 0,
    }
    assert counts(tmp_path, "customer-1") == (0, 8)


def test_what_an_interrupted_run_did_not_get_to_is_done_by_the_next_and_what_was_done_is_noted(
    filled: Path, monkeypatch
):
    delete, calls = forgetting.delete_rows, []

    def failing(lake, name, predicate, sleep):
        calls.append(name)
        if len(calls) == 2:
            raise LakeError("away")
        return delete(lake, name, predicate, sleep)

    monkeypatch.setattr(forgetting, "delete_rows", failing)
    with pytest.raises(LakeError, match="away"):
        forget(Lake(str(filled), TOPICS), "customer-1", "Anna", 1, time.sleep)
    audit = f'SELECT "table", rows FROM {AUDIT} ORDER BY at_ms, 1'
    assert Lake(str(filled), TOPICS).query(audit).to_pylist() == [{"table": "fraud_labels", "rows": 4}]

    assert forget(Lake(str(filled), TOPICS), "customer-1", "Anna", 2, time.sleep) == {
        "fraud_labels": 0,
        "card_transactions": 4,
    }
    assert counts(filled, "customer-1") == (0, 8)


def test_of_a_high_partition_the_very_rows_go_and_no_neighbours(tmp_path: Path):
    for partition in (40, 41):
        fill(tmp_path, "card-transactions", transactions(12), partition=partition)
    fill(tmp_path, "fraud-labels", labels(12))

    forget(Lake(str(tmp_path), TOPICS), "customer-1", "Anna", 1, time.sleep)

    left = Lake(str(tmp_path), TOPICS).query(
        "SELECT customer_id, kafka_partition AS p, count(*) AS n FROM card_transactions GROUP BY ALL ORDER BY ALL"
    )
    assert [tuple(row.values()) for row in left.to_pylist()] == [
        (customer, p, 4) for customer in ("customer-0", "customer-2") for p in (40, 41)
    ]


def test_a_customer_is_forgotten_beside_an_archiver_that_writes_all_the_time(tmp_path: Path):
    fill(tmp_path, "card-transactions", transactions(12))
    fill(tmp_path, "fraud-labels", labels(12))
    stop, wrote = threading.Event(), []

    def write() -> None:
        offset = 12
        while not stop.is_set():
            some = [one | {"customer_id": "somebody"} for one in transactions(12)]
            try:
                fill(tmp_path, "card-transactions", some, begin=offset)
            except LakeError:  # the archiver's worker begins again, too
                continue
            offset += 12
            wrote.append(offset)
            stop.wait(0.2)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        removed = forget(Lake(str(tmp_path), TOPICS), "customer-1", "Anna", 1, time.sleep)
    finally:
        stop.set()
        writer.join()

    assert removed["card_transactions"] == 4
    assert wrote
    assert counts(tmp_path, "customer-1")[0] == 0
    rows = Lake(str(tmp_path), TOPICS).query("SELECT count(*) AS n FROM card_transactions").to_pylist()[0]["n"]
    assert rows == wrote[-1] - 4


def test_files_of_a_commit_that_was_killed_go_once_they_are_old(filled: Path):
    [day, *_] = sorted((filled / "card_transactions").glob("event_date=*"))
    young, old = day / "part-young.parquet", day / "part-old.parquet"
    for path in (young, old):
        path.write_bytes(b"stray")
    os.utime(old, (time.time() - 7_300, time.time() - 7_300))

    LakeTable(str(filled), "card-transactions", pa.schema([])).vacuum(0, strays=True)

    assert young.exists()
    assert not old.exists()
    assert counts(filled, "customer-1")[0] == 4


def test_nobody_is_forgotten_without_a_yes(filled: Path):
    done = CliRunner().invoke(lake, ["forget", "--lake-url", str(filled), "--customer", "customer-1"], input="n\n")

    assert done.exit_code != 0
    assert Lake(str(filled), TOPICS).query("SELECT count(*) AS n FROM card_transactions").to_pylist() == [{"n": 12}]


def test_a_token_with_quotes_is_a_token(filled: Path):
    done = run("forget", "--lake-url", str(filled), "--customer", "x' OR '1'='1", "--yes")

    assert done.exit_code == 0, done.output
    assert Lake(str(filled), TOPICS).query("SELECT count(*) AS n FROM card_transactions").to_pylist() == [{"n": 12}]


def test_small_files_are_put_together(filled: Path):
    for i in range(12, 22):
        fill(filled, "fraud-labels", labels(i + 1)[i:], begin=i)

    done = run("optimize", "--lake-url", str(filled), "--keep-hours", "0")

    assert done.exit_code == 0, done.output
    assert "1 day put together" in done.stdout
    assert len(list((filled / "fraud_labels").rglob("*.parquet"))) == 1
    assert Lake(str(filled), TOPICS).query("SELECT count(*) AS n FROM fraud_labels").to_pylist() == [{"n": 22}]


def test_lists_numbers_that_are_none_and_marks_are_printed_as_they_are(filled: Path):
    query = "SELECT [1.0, 'nan'::DOUBLE] AS a, '[/x]' AS b, 1 AS a"

    assert run("sql", "--lake-url", str(filled), "--format", "csv", query).stdout == 'a,b,a_2\n"[1.0, null]",[/x],1\n'
    found = run("sql", "--lake-url", str(filled), "--format", "json", query)
    assert json.loads(found.stdout) == {"a": [1.0, None], "b": "[/x]", "a_2": 1}
    assert "[/x]" in run("sql", "--lake-url", str(filled), "--format", "table", query).stdout


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["sql", "SELEC 1"], "Parser Error"),
        (["sql", "SELECT * FROM card_decisionz"], "card_decisionz"),
        (["sql", "SELECT nothing FROM card_transactions"], "nothing"),
    ],
)
def test_a_mistake_in_a_query_is_one_line(filled: Path, arguments: list[str], wanted: str):
    done = run(arguments[0], "--lake-url", str(filled), *arguments[1:])

    assert done.exit_code == 1
    assert wanted in done.stderr
    assert done.stderr.startswith("proact: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["status"], ["sql", "SELECT 1"], ["optimize"], ["forget", "--customer", "c", "--yes"]]
)
def test_a_lake_that_is_not_there_is_said_with_what_makes_one(tmp_path: Path, command: list[str]):
    done = run(command[0], "--lake-url", str(tmp_path / "none"), *command[1:])

    assert done.exit_code == 1
    assert "proact archiver" in done.stderr


def test_a_damaged_table_is_said_with_its_place(filled: Path):
    for path in (filled / "fraud_labels").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    for path in (filled / "card_transactions" / "_delta_log").glob("*.json"):
        path.write_text("no JSON")

    with pytest.raises(LakeError, match="card_transactions"):
        Lake(str(filled), TOPICS)
    with pytest.raises(LakeError):
        Lake(str(filled), ["fraud-labels"]).query("SELECT sum(known_at_ms) FROM fraud_labels")
    for path in (filled / "rule_sets").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(LakeError):
        Lake(str(filled), ["rule-sets"]).status()
