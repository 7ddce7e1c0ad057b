"""The records of a batch that another version of the schema wrote, read into their places among the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.codec.program import ARRAY, BYTES, DOUBLES, FIXED, OPERATION, STRING, AvroProgram, compile_program
from services.codec.resolution import ByColumn, ByRecord, Cells, Resolution, resolution_of
from services.codec.schemas import HEADER_BYTES, MAGIC, Schema, schemas_by_header
from services.core.columns import type_i64, type_u8
from services.core.validation import Reject

UNFRAMED: Final = -1
"""The status of a record that does not begin as those of the version do that is being read."""
_PLACES: Final = (STRING, BYTES, FIXED, DOUBLES, ARRAY)
"""Operations whose integer is a place in the buffer."""
_ANY_SIZE: Final = 2**62


Raw = tuple[type_u8, type_i64, int]
"""Records as they came: one behind the other in a buffer, which may go on behind the last; the length of each; and the most that one may have."""
Decode = Callable[[Raw, type_u8, AvroProgram], tuple[Cells, type_i64, int]]
"""Decodes what one version wrote, given its header and its program: cells, the status of every record, and how many are good."""


@dataclass(slots=True)
class VersionedBatch:
    """A batch while it is read."""

    values: Sequence[bytes]
    raw: Raw
    cells: Cells
    """Of the reading schema; changed in place."""
    status: type_i64
    """(n,) the Reject of every record, or UNFRAMED; changed in place."""

    def append(self, behind: bytes) -> None:
        """Put bytes behind the records."""
        if behind:
            self.raw = _read_only(np.concatenate((self.raw[0], np.frombuffer(behind, np.uint8)))), *self.raw[1:]


class OtherVersions:
    """Reads what versions of a schema wrote that is not the reading one's."""

    def __init__(self, reader: Schema, versions: Iterable[Schema], decode: Decode) -> None:
        self._reader, self._decode = reader, decode
        newest_first = sorted(versions, key=lambda one: -one.version)
        self._resolutions = [(one, resolution_of(one, reader)) for one in newest_first if one.header != reader.header]
        self._program = compile_program(reader.definition)
        # What is compiled is compiled before the first record comes.
        nothing = VersionedBatch(
            (),
            (_read_only(np.empty(0, np.uint8)), np.empty(0, np.int64), 0),
            _no_cells(self._program),
            np.empty(0, np.int64),
        )
        for version, how in self._resolutions:
            self._read_version(nothing, version, how)

    def read(self, batch: VersionedBatch) -> None:
        """Read the records that are UNFRAMED so far, one pass for each version; those of none stay UNFRAMED."""
        for version, how in self._resolutions:
            if not np.count_nonzero(batch.status == UNFRAMED):
                return
            self._read_version(batch, version, how)

    def _read_version(self, batch: VersionedBatch, version: Schema, how: Resolution) -> None:
        if isinstance(how, ByColumn):
            source, rows = self._decode_version(batch, version, how.program)
            batch.append(how.appended)
            unresolved = how.apply(batch.raw[0], source, batch.cells, rows)
            batch.status[rows[unresolved]] = Reject.WRONG_SCHEMA
        elif how.program is not None:
            self._convert(how, batch, self._decode_version(batch, version, how.program)[1])
        else:
            framed = np.array([value.startswith(version.header) for value in batch.values], np.bool_)
            self._convert(how, batch, np.flatnonzero(framed & (batch.status == UNFRAMED)))

    def _decode_version(self, batch: VersionedBatch, version: Schema, program: AvroProgram) -> tuple[Cells, type_i64]:
        """Return the cells of what a version wrote, and which records are good; the others of its records have their status then."""
        cells, status, _ = self._decode(batch.raw, np.frombuffer(version.header, np.uint8), program)
        np.copyto(batch.status, status, where=batch.status == UNFRAMED)
        return cells, np.flatnonzero(status == Reject.NONE)

    def _convert(self, how: ByRecord, batch: VersionedBatch, rows: type_i64) -> None:
        """Read rows one by one: each is made a record of the reading schema, and decoded as one."""
        converted = [how.convert(batch.values[i]) for i in rows.tolist()]
        batch.status[rows] = Reject.WRONG_SCHEMA
        rows = rows[[value is not None for value in converted]]
        if not len(rows):
            return
        made = [value for value in converted if value is not None]
        raw = np.frombuffer(b"".join(made), np.uint8), np.array([len(value) for value in made]), _ANY_SIZE
        header = np.frombuffer(self._reader.header, np.uint8)
        (ints, lengths, doubles), batch.status[rows], _ = self._decode(raw, header, self._program)
        lies = np.isin(self._program.table[: len(ints), OPERATION], _PLACES)
        ints[lies] += len(batch.raw[0])
        batch.append(raw[0].tobytes())
        for into, column in zip(batch.cells, (ints, lengths, doubles), strict=True):
            into[:, rows] = column


def _read_only(buffer: type_u8) -> type_u8:
    """Return a buffer as those of records are: kernels are compiled anew for one that can be written, and a container could not keep them."""
    buffer.flags.writeable = False
    return buffer


def _no_cells(program: AvroProgram) -> Cells:
    """Return the cells of no record."""
    shape = len(program.names), 0
    return np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)


def why_unframed(value: bytes) -> Reject:
    """Return why a record that no version wrote is refused."""
    if not value:
        return Reject.EMPTY
    if len(value) < HEADER_BYTES:
        return Reject.MALFORMED if value.startswith(MAGIC[: len(value)]) else Reject.BAD_FRAMING
    if not value.startswith(MAGIC):
        return Reject.BAD_FRAMING
    return Reject.UNKNOWN_FINGERPRINT if schemas_by_header().get(value[:HEADER_BYTES]) is None else Reject.WRONG_SCHEMA
