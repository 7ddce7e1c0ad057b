"""What an archiver's worker is made of, beside what is the same for every service."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from services.archiver.maintenance import Maintenance
from services.archiver.processor import ArchiveProcessor, of_topic
from services.archiver.publisher import LakeGrid, LakePublisher, LakeSource
from services.codec.schemas import topics
from services.lake.table import LakeTable
from services.registry import LogSpec
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.streams import Records
from services.worker.assembling import Parts
from services.worker.ports import Ports


def build(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:
    """See :attr:`services.registry.ServiceSpec.build`."""
    processor = of_topic(log.topic)
    table = LakeTable(settings.lake_url, log.topic, processor.schema)
    publisher = LakePublisher(table, metrics, clock, health)
    maintenance = Maintenance(table, topics()[log.topic].lake_retention_days, clock, lambda: publisher.maintains)
    saved_within_s = settings.lake_interval_ms / 1000
    return Parts(processor, maintenance, saved_within_s=saved_within_s, adapt=partial(into_the_lake, publisher))


def into_the_lake(publisher: LakePublisher, ports: Ports) -> Ports:
    """Return ports whose outputs go into a table, and whose offsets come from it."""
    publisher.publish_for(ports.source)
    return replace(
        ports, source=LakeSource(ports.source, publisher), publisher=publisher, grid=LakeGrid(ports.grid, publisher)
    )


def warm_up(processor: ArchiveProcessor) -> None:
    """Compile what reads a topic, by reading nothing."""
    nothing = np.zeros(1, np.int64)
    records = Records(processor.topic, nothing, nothing, nothing + 1_000_000_000_000, [b""], [b""])
    processor.prepare(records, nothing)
