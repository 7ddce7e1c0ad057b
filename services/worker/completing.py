"""What happens to a batch once it is decided: it is published, it counts, and what was folded is saved; beside the next one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Generic

from services.runtime.logs import fields
from services.streams import StreamsError
from services.worker.grid_writer import GridWriter
from services.worker.outages import AbandonedError
from services.worker.own_profiles import OwnProfiles
from services.worker.processor import P, ProcessingError, R
from services.worker.publishing import Batch, PublishPipeline

log = logging.getLogger("proact.worker")


class BatchCompletion(Generic[P, R]):
    """Completes batches for one worker, on its thread: keeps publishing and writing in their order.

    The grid gets only what is published and committed: a write is begun between the end of one batch's publishing and the begin of the next one's.
    After any error the caller drops what is under way, and takes the partitions over again.
    """

    def __init__(self, publishing: PublishPipeline[P, R], writer: GridWriter, profiles: OwnProfiles) -> None:
        self._publishing, self._writer, self._profiles = publishing, writer, profiles

    @property
    def in_flight(self) -> bool:
        """Whether a batch is being published."""
        return self._publishing.in_flight

    def pace(self) -> None:
        """Wait until it is time to poll for the next batch; see :meth:`PublishPipeline.pace`."""
        self._publishing.pace()

    def submit(self, batch: Batch[P, R]) -> None:
        """Send a decided batch on its way, when the one before is published; what it folded is what the next one is decided from.

        Raises:
            StreamsError: one of the two is in doubt.
            ProcessingError: one of the two cannot be encoded.
            AbandonedError: the grid does not take what it was to write.
        """
        self._advance()
        offsets = batch.prepared.records.next_offsets()
        self._profiles.keep(batch, offsets)
        self._publishing.submit(batch, offsets)

    def rest(self) -> None:
        """Do what is left to do where there are no records: publish, and save what is due. Raises as :meth:`submit` does."""
        self._advance()
        self._writer.written()

    def written(self) -> None:
        """Wait until nothing is being written to the grid; a batch may be in flight, since nothing of it is. Raises AbandonedError."""
        self._writer.written()

    def _advance(self) -> None:
        self._publishing.join()
        self._writer.go_on(self._publishing.confirm)

    def pass_by(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets behind which nothing was read, such as the marks of atomic commits. Raises StreamsError."""
        self._publishing.pass_by(offsets)
        self._profiles.pass_by(offsets)

    def drop(self) -> None:
        """Bring to an end what is under way, whatever comes of it, and forget what was folded: it is read anew from Kafka and the grid."""
        try:
            self._publishing.join()
        except (StreamsError, AbandonedError, ProcessingError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self._writer.forget()

    def save_all(self, *, confirmed: bool) -> None:
        """Publish, and write all that waits: partitions are about to be given back. What cannot be written is folded by whoever gets them.

        Waits for no outage, and calls no source: the group may ask for the partitions within any call of it, even one that waits for the grid.

        Args:
            confirmed: False where offsets cannot be committed; then only those count that are already.
        """
        try:
            self._publishing.join()
            if confirmed:
                self._publishing.confirm()
            if confirmed or self._publishing.confirmed():
                self._writer.save_all()
        except (StreamsError, AbandonedError, ProcessingError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self.drop()
