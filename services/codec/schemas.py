"""The contract: every topic's description and schema versions, read from ``schemas/``, and their fingerprints.

Records are framed as Avro single objects: the bytes ``C3 01``, the little-endian CRC-64-AVRO fingerprint of the writer's
schema, the body. Only schemas of this folder are ever decoded; an unknown fingerprint is refused before the body is
looked at, so that nothing on the wire chooses how it is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from services.paths import data_folder

MAGIC: Final = b"\xc3\x01"
HEADER_BYTES: Final = 10
_TOPIC_KEYS: Final = {"key", "partitions", "max_message_bytes", "producers", "consumers"}
_ENVELOPE: Final = "envelope"
_OPTIONAL_KEYS: Final = {
    "record_bytes_max", "retention_days", "compacted", "scaled_by", "written_version", "lake_date", "lake_retention_days",
}  # fmt: skip
SCALES: Final = ("partitions", "terminal_partitions", "decision_partitions")
"""The settings that a topic's number of partitions may follow."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of a topic's schema."""

    topic: str
    version: int
    """Counted from 1."""
    definition: dict[str, Any]
    """The Avro schema as JSON."""
    parsed: Any
    """The same, as fastavro wants it."""
    header: bytes
    """The ten bytes that frame a record of this schema."""
    is_envelope: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as ``schemas/NAME/topic.yaml`` describes it."""

    name: str
    key: str
    partitions: int
    retention_days: int | None
    """None: it is compacted, the last record of each key stays for ever."""
    max_message_bytes: int
    record_bytes_max: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    versions: tuple[Schema, ...]
    """Oldest first."""
    envelopes: tuple[Schema, ...] = ()
    """Another form of the same records, in which change data capture tells them (``envelope.avsc``, ``envelope.v2.avsc``); oldest first."""
    scaled_by: str | None = None
    """The setting that says how many partitions there are; None: always as many."""
    written_version: int | None = None
    """The version that producers write; None: the newest."""
    lake_date: str | None = None
    """The field, in epoch milliseconds, by whose day a record is kept in the lake; None: it is not kept there."""
    lake_retention_days: int | None = None
    """For how many days; None: for ever."""

    def __post_init__(self) -> None:
        if self.partitions < 1 or (self.retention_days is not None and self.retention_days < 1):
            raise ValueError(f"topic {self.name}: partitions and retention_days must be at least 1")
        if self.scaled_by not in (None, *SCALES):
            raise ValueError(f"topic {self.name}: scaled_by is one of {', '.join(SCALES)}, or is left out")
        if not 0 < self.record_bytes_max <= self.max_message_bytes:
            raise ValueError(f"topic {self.name}: record_bytes_max must lie within max_message_bytes")
        if not self.versions:
            raise ValueError(f"topic {self.name} has no schema v1.avsc")
        if self.written_version not in (None, *(schema.version for schema in self.versions)):
            raise ValueError(f"topic {self.name}: there is no schema of the written_version {self.written_version}")
        times = {field["name"] for field in self.latest.definition["fields"] if field["type"] == "long"}
        if self.lake_date not in (None, *times):
            raise ValueError(f"topic {self.name}: lake_date {self.lake_date} is no field of the type long")
        if self.lake_retention_days is not None and (self.lake_date is None or self.lake_retention_days < 1):
            raise ValueError(f"topic {self.name}: lake_retention_days is at least 1, and wants a lake_date")

    @property
    def latest(self) -> Schema:
        """The newest version: what readers make of a record of any version."""
        return self.versions[-1]

    @property
    def written(self) -> Schema:
        """The version that producers write: the newest, unless some readers do not know that yet."""
        wanted = self.written_version
        return self.latest if wanted is None else next(schema for schema in self.versions if schema.version == wanted)

    @property
    def envelope(self) -> Schema | None:
        """The newest envelope."""
        return self.envelopes[-1] if self.envelopes else None


def frame_header(definition: dict[str, Any]) -> bytes:
    """Return the ten bytes before the body of a record of this schema."""
    digits = fingerprint(to_parsing_canonical_form(definition), "CRC-64-AVRO")
    return MAGIC + bytes.fromhex(digits.rjust(16, "0"))


def _load_schema(topic: str, path: Path) -> Schema:
    definition, is_envelope = json.loads(path.read_text()), path.name.startswith(_ENVELOPE)
    numbered = re.fullmatch(r"(?:envelope\.)?v(\d+)\.avsc", path.name)
    version = 1 if path.name == f"{_ENVELOPE}.avsc" else int(numbered[1])  # type: ignore[index]
    return Schema(topic, version, definition, parse_schema(definition), frame_header(definition), is_envelope)


def _load_versions(folder: Path, pattern: str) -> tuple[Schema, ...]:
    return tuple(sorted((_load_schema(folder.name, p) for p in folder.glob(pattern)), key=lambda s: s.version))


def _load_topic(folder: Path) -> Topic:
    described = yaml.safe_load((folder / "topic.yaml").read_text())
    missing, unknown = _TOPIC_KEYS - described.keys(), described.keys() - _TOPIC_KEYS - _OPTIONAL_KEYS
    if missing or unknown:
        raise ValueError(f"{folder.name}/topic.yaml: missing {sorted(missing)}, unknown {sorted(unknown)}")
    if (described.get("retention_days") is None) != bool(described.get("compacted", False)):
        raise ValueError(f"{folder.name}/topic.yaml: a topic has retention_days, or it is compacted")
    return Topic(
        name=folder.name,
        key=described["key"],
        partitions=described["partitions"],
        retention_days=described.get("retention_days"),
        max_message_bytes=described["max_message_bytes"],
        record_bytes_max=described.get("record_bytes_max", described["max_message_bytes"]),
        producers=tuple(described["producers"]),
        consumers=tuple(described["consumers"]),
        versions=_load_versions(folder, "v*.avsc"),
        envelopes=_load_versions(folder, f"{_ENVELOPE}*.avsc"),
        scaled_by=described.get("scaled_by"),
        written_version=described.get("written_version"),
        lake_date=described.get("lake_date"),
        lake_retention_days=described.get("lake_retention_days"),
    )


@cache
def topics() -> dict[str, Topic]:
    """Return every topic of ``schemas/``, by name."""
    folders = sorted(p.parent for p in data_folder("schemas").glob("*/topic.yaml"))
    return {folder.name: _load_topic(folder) for folder in folders}


@cache
def schemas_by_header() -> dict[bytes, Schema]:
    """Return every known schema by its framing: the allow-list of what is ever decoded."""
    return {schema.header: schema for topic in topics().values() for schema in (*topic.versions, *topic.envelopes)}
