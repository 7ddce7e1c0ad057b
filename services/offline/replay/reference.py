"""What a bank knows of simulated people, sent before their traffic."""

from __future__ import annotations

from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account, encode_customer
from services.offline.simulator.reference import SimulatedReference
from services.streams.sink import KafkaSink


def send_reference(sink: KafkaSink, reference: SimulatedReference, at_ms: int) -> int:
    """Send every account and customer; return how many records that were.

    Args:
        sink: takes them; not flushed.
        reference: what is known.
        at_ms: since when.
    """
    people = zip(reference.account_ids, reference.accounts, reference.customer_ids, reference.customers, strict=True)
    accounts, customers = [], []
    for account_id, account, customer_id, customer in people:
        accounts.append(encode_account(account_id.decode(), account, at_ms))
        customers.append(encode_customer(customer_id.decode(), customer, at_ms))
    sink.send(ACCOUNTS, reference.account_ids, accounts)
    sink.send(CUSTOMERS, reference.customer_ids, customers)
    return len(accounts) + len(customers)
