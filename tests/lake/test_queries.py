"""What people do with the lake: ask it, tidy it, have a customer forgotten; and the mistakes that they make."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.lake import lake
from services.lake.queries import AUDIT, Lake
from services.lake.table import LakeError
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


def test_sql_joins_tables_and_nothing_is_written(filled: Path):
    sql = "SELECT count(*) AS n FROM card_transactions JOIN fraud_labels USING (transaction_id) WHERE is_fraud"

    found = Lake(str(filled), TOPICS).query(sql).to_pylist()

    assert found == [{"n": 6}]


def test_status_says_rows_days_and_offsets(filled: Path):
    found = run("status", "--lake-url", str(filled), "--json")

    assert found.exit_code == 0, found.output
    tables = {one["table"]: one for one in json.loads(found.stdout)}
    assert tables.keys() == {"card_transactions", "fraud_labels", "rule_sets"}
    assert tables["card_transactions"]["rows"] == 12
    assert tables["card_transactions"]["behind"] == {"0": 12}
    assert tables["card_transactions"]["first_day"] < tables["card_transactions"]["last_day"]
    assert "card_transactions" in run("status", "--lake-url", str(filled)).stdout


@pytest.mark.parametrize(("form", "wanted"), [("json", '{"n": 12}\n'), ("csv", '"n"\n12\n'), ("auto", '{"n": 12}\n')])
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
