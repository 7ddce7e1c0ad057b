"""The load of an attack: transactions at an even pace, and their labels when they become known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.offline.replay.labels import LabelFeed, Truth, simulated_truth
from services.offline.replay.producer import Pace, TransactionProducer
from services.offline.simulator.traffic import Traffic
from services.streams.sink import KafkaSink
from tests.chaos.errors import ChaosError


@dataclass(slots=True)
class Load:
    """Transactions on their way, sent by a thread."""

    sink: KafkaSink
    producer: TransactionProducer
    stopped: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    error: BaseException | None = None

    def start(self, blocks: Iterator[Traffic], rate: float) -> None:
        """Send block after block at an even pace, with the labels that become known meanwhile, until :meth:`stop`."""
        self.stopped.clear()
        labels = LabelFeed(self.sink, Truth.nothing())

        def work() -> None:
            try:
                for number, block in enumerate(blocks):
                    labels.add(simulated_truth(block, number))
                    pace = Pace.at_rate(len(block), rate)
                    self.producer.send(block, pace, labels=labels, stop=self.stopped.is_set, flush_s=120)
                    if self.stopped.is_set():
                        return
            except Exception as error:  # noqa: BLE001 - raised by stop()
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop sending, and wait until all that was sent is acknowledged. Raises ChaosError."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join(150)
        if self.error is not None:
            raise ChaosError(f"the load could not be sent: {self.error}")
