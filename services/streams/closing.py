"""How a consumer ends: without keeping the process, or the worker's thread, waiting for Kafka."""

from __future__ import annotations

import logging
import threading

from confluent_kafka import Consumer, KafkaException

log = logging.getLogger("proact.kafka")


def park(client: Consumer) -> None:
    """Keep a client from being destroyed, which would wait for its broker: the process is about to end.

    What the frame of a daemon thread holds is not destroyed when the interpreter ends.
    """
    threading.Thread(target=lambda _kept: threading.Event().wait(), args=(client,), name="parked", daemon=True).start()


def close_client(client: Consumer) -> None:
    """Close a client, whatever it says to that: nothing is asked of it any more."""
    try:
        client.close()
    except (KafkaException, RuntimeError) as error:
        log.debug("a client was closed with an error: %s", error)
