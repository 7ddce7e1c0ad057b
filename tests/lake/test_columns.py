"""Columns of a table: what the columnar codec makes of records is what fastavro makes of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.codec.records import encode_record
from services.codec.schemas import topics
from services.core.validation import Reject
from services.lake.columns import AvroTypes, ColumnReader, RowReader, reader_of
from tests.codec.fuzzing import avro_values, examples_of, good_values
from tests.codec.test_schemas import fitted

KEPT = [name for name, topic in topics().items() if topic.lake_date]
COLUMNAR = [name for name in KEPT if isinstance(reader_of(topics()[name]), ColumnReader)]


def table_of(topic: str, columns: list[pa.Array]) -> list[str]:
    """Return rows as text: NaN is equal to itself there."""
    names = list(AvroTypes(topics()[topic].latest.definition).fields)
    return [repr(row) for row in pa.table(list(columns), names=names).to_pylist()]


def test_the_tables_are_the_topics_of_the_design():
    assert set(KEPT) == {
        "card-transactions", "card-decisions", "fraud-labels", "card-reassessments", "rule-sets", "model-releases",
        "shadow-decisions",
    }  # fmt: skip
    assert set(KEPT) - set(COLUMNAR) == {"rule-sets", "model-releases"}, "what comes often is read in columns"


@pytest.mark.parametrize("name", COLUMNAR)
def test_columns_are_what_fastavro_makes_of_each_record_whatever_its_fields_hold(name: str):
    @given(st.lists(good_values(name), max_size=6))
    def compare(values: list[bytes]) -> None:
        read, naive = ColumnReader(topics()[name]).read(values), RowReader(topics()[name]).read(values)

        # What is a card number in one is one in the other; in nothing else may they differ.
        assert (read.status == naive.status).all()
        assert table_of(name, list(read.columns)) == table_of(name, list(naive.columns))

    compare()


@pytest.mark.parametrize("name", KEPT)
def test_of_damaged_records_none_is_kept_that_fastavro_refuses_and_nothing_raises(name: str):
    @given(st.lists(avro_values(name), max_size=6))
    def read(values: list[bytes | None]) -> None:
        found, naive = reader_of(topics()[name]).read(values), RowReader(topics()[name]).read(values)

        assert (naive.status[found.rows] == Reject.NONE).all()
        assert {len(column) for column in found.columns} == {len(found.rows)}
        kept = [i for i, row in enumerate(naive.rows.tolist()) if row in set(found.rows.tolist())]
        expected = [table_of(name, list(naive.columns))[i] for i in kept]
        assert table_of(name, list(found.columns)) == expected

    read()


@pytest.mark.parametrize("name", KEPT)
def test_records_of_every_version_in_one_batch_have_the_newest_ones_columns(name: str):
    topic = topics()[name]
    values = [
        encode_record(schema, fitted(example, schema.definition))
        for example in examples_of(name)
        for schema in topic.versions
    ]
    read, naive = reader_of(topic).read(values), RowReader(topic).read(values)

    assert not read.status.any()
    assert table_of(name, list(read.columns)) == table_of(name, list(naive.columns))


@pytest.mark.parametrize("name", KEPT)
def test_a_record_with_a_card_number_is_left_out(name: str):
    example = dict(examples_of(name)[0])
    text = next(f["name"] for f in topics()[name].latest.definition["fields"] if f["type"] == "string")
    values = [
        encode_record(topics()[name].latest, example | {text: found}) for found in ("4111 1111 1111 1111", "token")
    ]

    read = reader_of(topics()[name]).read(values)

    assert read.status.tolist() == [Reject.CARD_NUMBER, Reject.NONE]
    assert read.rows.tolist() == [1]


def test_what_is_none_of_the_topics_records_is_left_out_with_its_reason():
    other = encode_record(topics()["fraud-labels"].latest, examples_of("fraud-labels")[0])
    for name in ("card-decisions", "rule-sets"):
        status = reader_of(topics()[name]).read([None, b"", b"rubbish", other]).status
        assert status[:2].tolist() == [Reject.EMPTY] * 2
        assert status[3] == Reject.WRONG_SCHEMA
        assert status[2] != Reject.NONE


def test_a_type_without_a_column_is_refused_when_the_table_is_made():
    field = {"name": "a", "type": {"type": "map", "values": "long"}}
    with pytest.raises(ValueError, match="'map'"):
        AvroTypes({"name": "r", "type": "record", "fields": [field]}).schema  # noqa: B018


def test_a_fixed_that_is_no_uuid_is_bytes():
    types = AvroTypes(
        {"name": "r", "type": "record", "fields": [{"name": "a", "type": {"type": "fixed", "name": "f", "size": 3}}]}
    )

    assert types.schema.field("a").type == pa.binary()
    assert np.asarray([len(types.fields)]).tolist() == [1]
