"""A customer is forgotten: their rows leave every table and every file, and so do labels of their transactions that come later.

Delta's log keeps what was asked for, so a day is written anew without them, and the log says the day alone. Which transactions they were is kept as
SHA-256, so that saying it again finds what came in between, or what a first try did not get to.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from services.lake.columns import DATE, TOPIC_ID
from services.lake.queries import AUDIT, FORGOTTEN, Lake
from services.lake.table import LakeError, LakeTable, lake_errors, opened, rewrite_day, storage_of, table_url

TRIES: Final = 60
PAUSE_S: Final = 0.25
"""Between tries: whoever writes to the same day meanwhile comes first, and is done by then."""
_AUDIT_SCHEMA: Final = pa.schema(
    [
        ("at_ms", pa.int64()), ("who", pa.string()), ("what", pa.string()), ("customer_sha256", pa.string()), ("table", pa.string()),
        ("rows", pa.int64()), (DATE, pa.date32()),
    ]
)  # fmt: skip
_FORGOTTEN_SCHEMA: Final = pa.schema(
    [("customer_sha256", pa.string()), ("transaction_sha256", pa.string()), (DATE, pa.date32())]
)


def forget(lake: Lake, customer_id: str, who: str, now_ms: int, sleep: Callable[[float], None]) -> dict[str, int]:
    """Remove a customer's rows from every table and every file; return how many of each table.

    Each table is noted in the audit trail as it is done. What Kafka still holds is archived no second time; what comes later is, until it is
    said again.

    Raises:
        LakeError: not everything is done; say it again.
    """
    customer = hashlib.sha256(customer_id.encode()).hexdigest()
    day = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    theirs = "customer_id = '" + customer_id.replace("'", "''") + "'"
    holding = [name for name in lake.records if "customer_id" in lake.columns(name)]
    others = [name for name in lake.records if name not in holding and "transaction_id" in lake.columns(name)]
    found = {one for name in holding for one in lake.of_rows(name, theirs, "sha256(transaction_id)")}
    same_customer = f"customer_sha256 = '{customer}'"
    known = set(lake.of_rows(FORGOTTEN, same_customer, "transaction_sha256")) if FORGOTTEN in lake.tables else set()
    rows = [{"customer_sha256": customer, "transaction_sha256": one, DATE: day} for one in sorted(found - known)]
    _append(lake, FORGOTTEN, _FORGOTTEN_SCHEMA, rows, who)
    listed = ", ".join(f"'{one}'" for one in sorted(found | known))
    removed = {}
    # What has no customer first: it is found by the transactions.
    for name, wanted in [
        *((n, f"sha256(transaction_id) IN ({listed})") for n in others if listed),
        *((n, theirs) for n in holding),
    ]:
        removed[name] = delete_rows(lake, name, wanted, sleep)
        said = {
            "at_ms": now_ms,
            "who": who,
            "what": "forget",
            "customer_sha256": customer,
            "table": name,
            "rows": removed[name],
            DATE: day,
        }
        _append(lake, AUDIT, _AUDIT_SCHEMA, [said], who)
    return removed


def _append(lake: Lake, name: str, schema: pa.Schema, rows: Sequence[dict[str, Any]], who: str) -> None:
    if not rows:
        return
    url, note = table_url(lake.url, name), CommitProperties(custom_metadata={"userName": who, "userMetadata": "forget"})
    with lake_errors(url):
        batch = pa.RecordBatch.from_pylist(list(rows), schema=schema)
        write_deltalake(
            url, [batch], mode="append", partition_by=[DATE], commit_properties=note, storage_options=storage_of(url)
        )
    lake.look_again(name)


def delete_rows(lake: Lake, name: str, predicate: str, sleep: Callable[[float], None]) -> int:
    """Delete rows, day by day, and then the files that held them."""
    by_day: dict[str, set[tuple[str | None, int, int]]] = defaultdict(set)
    places = f"{{'day': {DATE}, 'topic': {TOPIC_ID}, 'p': kafka_partition, 'o': kafka_offset}}"
    for row in lake.of_rows(name, predicate, places):
        by_day[str(row["day"])].add((row["topic"], row["p"], row["o"]))
    for day, gone in sorted(by_day.items()):
        _rewrite(lake, name, day, gone, sleep)
    if by_day:
        LakeTable(lake.url, name, pa.schema([])).vacuum(0, strays=True)
        lake.look_again(name)
    return sum(map(len, by_day.values()))


def _rewrite(
    lake: Lake, name: str, day: str, gone: set[tuple[str | None, int, int]], sleep: Callable[[float], None]
) -> None:
    """Write a day without some rows, again and again where somebody else wrote to it in between. Raises LakeError."""
    url, kept = table_url(lake.url, name), ~_any_of(gone)
    for left in reversed(range(TRIES)):
        with lake_errors(url):
            try:
                rewrite_day(opened(url), day, kept)
            except CommitFailedError as error:
                if not left:
                    raise LakeError(
                        f"{url}: others write to it all the time: {str(error).splitlines()[0][:200]}"
                    ) from error
                sleep(PAUSE_S)
            else:
                return


def _any_of(places: set[tuple[str | None, int, int]]) -> Any:
    """Return what holds of the rows at some places."""
    by_partition: dict[tuple[str | None, int], list[int]] = defaultdict(list)
    for topic, partition, offset in places:
        by_partition[topic, partition].append(offset)
    found = pc.scalar(False)
    for (topic, partition), offsets in by_partition.items():
        of_topic = pc.field(TOPIC_ID).is_null() if topic is None else pc.field(TOPIC_ID) == topic
        mine = (pc.field("kafka_partition") == partition) & pc.field("kafka_offset").isin(offsets)
        found = found | (pc.coalesce(of_topic, pc.scalar(False)) & mine)
    return found
