"""What comes from producers whose client chooses other partitions than ours."""

from __future__ import annotations

import time
from binascii import crc32
from collections.abc import Sequence

from confluent_kafka import Producer

from services.codec.records import decode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account, encode_customer
from services.codec.transactions import encode_transactions
from services.core.columns import Text
from services.core.kernels import partitions_of
from services.offline.simulator.reference import simulate_reference
from services.streams.reader import KafkaReader
from tests.chaos.errors import PATIENCE_S, ChaosError
from tests.chaos.input import TOPIC, load_of
from tests.chaos.plan import Measured, fault, hit
from tests.chaos.system import ChaosSystem

CARDS = 150
"""So few that no breaker opens: that a partition stops which brings nothing good is another fault."""
REASON = "WRONG_PARTITION"


@fault("F-38", "a producer with librdkafka's default partitioner")
def wrong_partitioner(system: ChaosSystem) -> Measured:
    """What is announced in a wrong partition becomes a dead letter, what is to be decided there is, and says so: the checker knows both."""
    seed = int(system.rng.integers(0, 2**31))
    load = load_of(2_000, CARDS, seed)
    people, now_ms = simulate_reference(load.columns, load.scenario == 0, seed), time.time_ns() // 1_000_000
    letters = KafkaReader(system.stack.kafka_connection, ["dead-letters"], from_beginning=False)
    accounts = [encode_account(i.decode(), a, now_ms) for i, a in zip(people.account_ids, people.accounts, strict=True)]
    customers = [
        encode_customer(i.decode(), c, now_ms) for i, c in zip(people.customer_ids, people.customers, strict=True)
    ]
    _send(system, ACCOUNTS, people.account_ids, accounts)
    _send(system, CUSTOMERS, people.customer_ids, customers)
    _send(system, TOPIC, load.columns.card_id.tolist(), encode_transactions(load.columns))
    everybody = [*people.account_ids, *people.customer_ids]
    home = partitions_of(Text.of(everybody), system.settings.partitions).tolist()
    astray = sum(crc32(key) % system.settings.partitions != p for key, p in zip(everybody, home, strict=True))
    refused = _refused(letters, hit(astray, "every record is where it belongs"))
    return {"announced": len(everybody), "refused": refused, "transactions": len(load)}


def _refused(letters: KafkaReader, wanted: int) -> int:
    """Wait until so many records are refused for their partition. Raises ChaosError when they are not."""
    found, until_s = 0, time.monotonic() + PATIENCE_S
    try:
        while found < wanted:
            if time.monotonic() > until_s:
                raise ChaosError(
                    f"{found} of {wanted} records were refused for their partition within {PATIENCE_S:.0f} s"
                )
            for records in letters.read(0.2):
                found += sum(decode_record(value or b"")[1]["reason"] == REASON for value in records.values)
    finally:
        letters.close()
    return found


def _send(system: ChaosSystem, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Send with a client as it comes: its partitioner is CRC32."""
    producer = Producer({"bootstrap.servers": system.stack.kafka_address, "log_level": 0})
    for key, value in zip(keys, values, strict=True):
        producer.produce(topic, value, key)
    if producer.flush(30):
        raise ChaosError(f"{topic} does not take what is sent")
