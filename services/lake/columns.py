"""Records of a topic as Arrow columns, typed by its newest Avro schema.

A table has the fields of the schema under their own names, and :data:`KAFKA_FIELDS`. All of them may be null, since a record that was kept before
a field came has none. Enums and UUIDs are text, as people write them. What the columnar codec knows is converted a batch at a time; a schema with
deeper types (rule sets: seldom, and few) goes through fastavro, record by record, which is also what the tests hold the columns against.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from services.codec.items import doubles_of, items_of, offsets_of, pack_bytes
from services.codec.program import ARRAY, DOUBLES, ITEM_FIRST, NULL_BRANCH, OPERATION, compile_program
from services.codec.reading import ColumnarReader, Decoded, gather
from services.codec.records import UndecodableError, decode_as_newest
from services.codec.resolution import Cells
from services.codec.schemas import Topic
from services.core.card_number_kernels import rows_with_card_numbers
from services.core.columns import Text, type_bool, type_i64, type_u8, uuid_text
from services.core.immutable import immutable
from services.core.validation import Reject

DATE: Final = "event_date"
"""The column that tables are partitioned by."""
TOPIC_ID: Final = "kafka_topic_id"
KAFKA_FIELDS: Final = (
    pa.field(TOPIC_ID, pa.string()),
    pa.field("kafka_partition", pa.int32()),
    pa.field("kafka_offset", pa.int64()),
    pa.field("kafka_timestamp_ms", pa.int64()),
    pa.field(DATE, pa.date32()),
)
"""Where a record lies (a topic that was made anew has another id), when Kafka got it, and the day that it is kept under: that of its event, or of Kafka's timestamp where that is no time."""
_SCALARS: Final = {
    "long": pa.int64(), "int": pa.int32(), "string": pa.string(), "bytes": pa.binary(), "boolean": pa.bool_(), "double": pa.float64(),
    "float": pa.float32(),
}  # fmt: skip


def named_types(definition: Any, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the types that a schema names anywhere, by their names."""
    known = {} if known is None else known
    if isinstance(definition, list):
        for one in definition:
            named_types(one, known)
    elif isinstance(definition, dict):
        if "name" in definition and definition["type"] in ("record", "enum", "fixed"):
            known[definition["name"]] = definition
        for field in definition.get("fields", ()):
            named_types(field["type"], known)
        named_types(definition.get("items"), known)
    return known


class AvroTypes:
    """The types of one schema, each as Arrow has it."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self._known = named_types(definition)
        self.fields: dict[str, Any] = {field["name"]: self.plain(field["type"]) for field in definition["fields"]}
        """By name, what each field is; of a union the branch that is not null."""

    def plain(self, avro: Any) -> Any:
        """Return what a type is where it is not null, and where its name stands for it."""
        if isinstance(avro, list):
            [avro] = [branch for branch in avro if branch != "null"]
        if isinstance(avro, dict) and isinstance(avro["type"], dict | list):
            avro = avro["type"]
        return self._known.get(avro, avro) if isinstance(avro, str) else avro

    def arrow(self, avro: Any) -> pa.DataType:
        """Return the Arrow type of an Avro type. Raises ValueError: it has none."""
        avro = self.plain(avro)
        kind = avro["type"] if isinstance(avro, dict) else avro
        if kind == "record":
            return pa.struct([pa.field(field["name"], self.arrow(field["type"])) for field in avro["fields"]])
        if kind == "array":
            return pa.list_(pa.field("element", self.arrow(avro["items"])))
        if kind == "enum" or is_uuid(avro):
            return pa.string()
        if kind == "fixed":
            return pa.binary()
        if kind not in _SCALARS:
            raise ValueError(f"a table has no column for the Avro type {kind!r}")
        return _SCALARS[kind]

    @property
    def schema(self) -> pa.Schema:
        """The table's."""
        return pa.schema([pa.field(name, self.arrow(avro)) for name, avro in self.fields.items()] + list(KAFKA_FIELDS))


def is_uuid(avro: Any) -> bool:
    """Whether a type is a UUID of 16 bytes."""
    return isinstance(avro, dict) and avro["type"] == "fixed" and avro.get("logicalType") == "uuid"


@immutable
class Read:
    """The records of a batch as far as they can be kept."""

    status: type_i64
    """(n,) the Reject of every record."""
    rows: type_i64
    """(m,) which are kept."""
    columns: Sequence[pa.Array]
    """Those of the topic's fields, each of m rows."""


class TopicReader(ABC):
    """Reads records of every version of a topic as columns of the newest."""

    def __init__(self, topic: Topic) -> None:
        self.types = AvroTypes(topic.latest.definition)

    @abstractmethod
    def read(self, values: Sequence[bytes | None]) -> Read:
        """Read n records; never raises for what they hold.

        A record is refused that cannot be decoded, or of which a text looks like a card number.
        """


def reader_of(topic: Topic) -> TopicReader:
    """Return the quickest reader that can read a topic."""
    try:
        compile_program(topic.latest.definition)
    except ValueError:
        return RowReader(topic)
    return ColumnReader(topic)


class RowReader(TopicReader):
    """Record by record, with fastavro."""

    def __init__(self, topic: Topic) -> None:
        super().__init__(topic)
        self._topic = topic

    def read(self, values: Sequence[bytes | None]) -> Read:
        """See :class:`TopicReader`."""
        status, kept = np.full(len(values), int(Reject.MALFORMED)), []
        for i, value in enumerate(values):
            if not value:
                status[i] = Reject.EMPTY
                continue
            try:
                schema, record = decode_as_newest(value)
            except UndecodableError:
                continue
            if schema.topic != self._topic.name or schema.is_envelope:
                status[i] = Reject.WRONG_SCHEMA
            elif _has_card_number(list(record.values())):
                status[i] = Reject.CARD_NUMBER
            else:
                status[i] = Reject.NONE
                kept.append(record)
        return Read(
            status, np.flatnonzero(status == Reject.NONE), [self._column(name, kept) for name in self.types.fields]
        )

    def _column(self, name: str, records: Sequence[dict[str, Any]]) -> pa.Array:
        avro = self.types.fields[name]
        values = [record[name] for record in records]
        if is_uuid(avro):
            values = [str(uuid.UUID(bytes=value) if isinstance(value, bytes) else value) for value in values]
        return pa.array(values, self.types.arrow(avro))


def _has_card_number(values: list[Any]) -> bool:
    texts = [value.encode() for value in values if isinstance(value, str)]
    return bool(texts) and bool(rows_with_card_numbers(Text.of(texts)).any())


class ColumnReader(TopicReader):
    """A batch at a time, by the columnar codec."""

    def __init__(self, topic: Topic) -> None:
        super().__init__(topic)
        self._reader = ColumnarReader.of(topic)

    def read(self, values: Sequence[bytes | None]) -> Read:
        """See :class:`TopicReader`."""
        decoded = self._reader.read(values).without_card_numbers()
        columns = [self._column(decoded, name, avro) for name, avro in self.types.fields.items()]
        return Read(decoded.status, decoded.rows, columns)

    def _column(self, decoded: Decoded, name: str, avro: Any) -> pa.Array:
        row = decoded.program.index[name]
        operation = decoded.program.table[row, OPERATION]
        if operation == DOUBLES:
            numbers, counts = doubles_of(decoded, name)
            return _list_of(pa.array(numbers), counts)
        if operation == ARRAY:
            cells, counts = items_of(decoded, name)
            return _list_of(self._items(decoded, row, cells, avro["items"]), counts)
        ints, lengths, doubles = decoded.cells
        nullable = decoded.program.table[row, NULL_BRANCH] >= 0
        return self._scalar(decoded.buffer, avro, (ints[row], lengths[row], doubles[row]), nullable=nullable)

    def _items(self, decoded: Decoded, row: int, cells: Cells, item: Any) -> pa.Array:
        """Return the items of an array: records of scalars, or scalars."""
        ints, lengths, doubles = cells
        table, first = decoded.program.table, decoded.program.table[row, ITEM_FIRST]
        item = self.types.plain(item)
        is_record = isinstance(item, dict) and item["type"] == "record"
        fields = [(field["name"], field["type"]) for field in item["fields"]] if is_record else [("", item)]
        columns = [
            self._scalar(
                decoded.buffer,
                self.types.plain(avro),
                (ints[f], lengths[f], doubles[f]),
                nullable=bool(table[first + f, NULL_BRANCH] >= 0),
            )
            for f, (_, avro) in enumerate(fields)
        ]
        return pa.StructArray.from_arrays(columns, names=[name for name, _ in fields]) if is_record else columns[0]

    def _scalar(self, buffer: type_u8, avro: Any, cells: tuple[type_i64, type_i64, Any], *, nullable: bool) -> pa.Array:
        ints, lengths, doubles = cells
        nulls = lengths < 0 if nullable else None
        kind = avro["type"] if isinstance(avro, dict) else avro
        if kind == "double":
            return pa.array(doubles, mask=nulls)
        if kind == "enum":
            return pa.array(avro["symbols"], pa.string()).take(pa.array(ints, mask=nulls))
        if kind == "fixed":
            raw = gather(buffer, ints if nulls is None else np.where(nulls, 0, ints), avro["size"])
            text = (
                uuid_text(raw)
                if is_uuid(avro)
                else Text(raw.reshape(-1), offsets_of_fixed(raw), np.full(len(raw), avro["size"]))
            )
            return _packed(text, self.types.arrow(avro), nulls)
        if kind in ("string", "bytes"):
            return _packed(
                Text(buffer, ints, np.maximum(lengths, 0) if nullable else lengths), self.types.arrow(avro), nulls
            )
        return pa.array(ints, mask=nulls).cast(self.types.arrow(avro))


def offsets_of_fixed(raw: type_u8) -> type_i64:
    """Return where each row of (n, size) bytes begins."""
    return np.arange(len(raw), dtype=np.int64) * raw.shape[1]


def _packed(text: Text, kind: pa.DataType, nulls: type_bool | None) -> pa.Array:
    offsets = offsets_of(text.length)
    packed = pack_bytes(text.buffer, text.start, offsets)
    valid = None if nulls is None or not nulls.any() else pa.array(~nulls).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(packed)]
    return pa.Array.from_buffers(kind, len(text), buffers)


def _list_of(items: pa.Array, counts: type_i64) -> pa.Array:
    kind = pa.list_(pa.field("element", items.type))
    return pa.Array.from_buffers(
        kind, len(counts), [None, pa.py_buffer(offsets_of(counts).astype(np.int32))], children=[items]
    )
