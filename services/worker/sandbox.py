"""A process of its own in which records are tried that may have killed a worker."""

from __future__ import annotations

import base64
import json
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, Final

import numpy as np

from services.core.columns import type_i64
from services.streams import Records
from services.subprocesses import start_tied
from services.worker.isolating import NotOfRecordsError, isolate
from services.worker.processor import NotYetError, Outcome, Prepared, Processor, guarded

STEP_S: Final = 0.1
STEPS_MAX: Final = 300
"""A child that does not answer within 30 s is as good as dead."""


def _encode(blob: bytes | None) -> str | None:
    return None if blob is None else base64.b64encode(blob).decode()


def _decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def dump_records(records: Records) -> bytes:
    """Return records as one line of JSON."""
    table = {
        "topic": records.topic,
        "partition": records.partition.tolist(),
        "offset": records.offset.tolist(),
        "timestamp_ms": records.timestamp_ms.tolist(),
        "keys": [_encode(key) for key in records.keys],
        "values": [_encode(value) for value in records.values],
        "partitions": records.partitions,
    }
    return json.dumps(table).encode() + b"\n"


def load_records(line: bytes) -> Records:
    """Return the records of a line of :func:`dump_records`."""
    table = json.loads(line)
    partition, offset, timestamp_ms = (
        np.array(table[name], np.int64) for name in ("partition", "offset", "timestamp_ms")
    )
    keys, values = ([_decode(text) for text in table[name]] for name in ("keys", "values"))
    return Records(table["topic"], partition, offset, timestamp_ms, keys, values, table["partitions"])


class ProcessSandbox:
    """See :class:`services.worker.poison.Sandbox`; ``stay`` is called again and again while a child works."""

    def __init__(self, command: Sequence[str], keep_membership: Callable[[float], None]) -> None:
        self._command, self._stay = list(command), keep_membership
        self._child: Popen[bytes] | None = None

    def survives(self, records: Records) -> bool:
        """See :class:`services.worker.poison.Sandbox`."""
        if self._child is None:
            # In a session of its own: a child that dies of the terminal's Ctrl-C would seem to die of a record.
            self._child = start_tied(
                self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=dict(os.environ), start_new_session=True
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(dump_records(records))
            self._child.stdin.flush()
            for _ in range(STEPS_MAX):
                if select.select([self._child.stdout], [], [], STEP_S)[0]:
                    if self._child.stdout.readline() == b"ok\n":
                        return True
                    break
                self._stay(0.0)
        except BrokenPipeError:
            pass
        self.close()
        return False

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def sandbox_command(arguments: Sequence[str]) -> list[str]:
    """Return the command of a sandbox: of ``python -m ARGUMENTS``, which calls :func:`try_records`."""
    return [sys.executable, "-m", *arguments]


def _try(processor: Processor[Any, Any], records: Records, excluded: type_i64) -> None:
    def work() -> None:
        prepared: Prepared = processor.prepare(records, excluded)
        emit, nothing = np.ones(len(records), bool), [None] * len(prepared.cards)
        outcome: Outcome = processor.decide(prepared, nothing, {}, emit, 0)
        list(outcome.outputs)  # encoded, too: that may be what killed
        assert outcome.decided + len(outcome.refused) == len(records)

    guarded(work)


def try_records(processor_of: Callable[[str], Processor[Any, Any]]) -> None:
    """Decide on each batch that comes on the standard input as if all cards were new; say so when it went well.

    Args:
        processor_of: makes what decides on records of a topic.
    """
    made = cache(processor_of)
    for line in sys.stdin.buffer:
        records = load_records(line)
        processor = made(records.topic)
        # What raises is the worker's to find. Here it is left out, lest it hide what kills behind it; and nobody died of what waits for others.
        with suppress(NotOfRecordsError, NotYetError):
            isolate(records, np.zeros(len(records), np.int64), partial(_try, processor), lambda *_: None)
        sys.stdout.buffer.write(b"ok\n")
        sys.stdout.buffer.flush()
