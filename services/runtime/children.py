"""A service as a child process of a command: started, waited for until it is ready, stopped for sure."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from services.runtime.catalogue import Metric
from services.runtime.settings import Settings
from services.subprocesses import start_tied


class ChildError(Exception):
    """The child died or did not become ready."""


def samples(said: str, metric: Metric) -> dict[tuple[str, ...], float]:
    """Return what the text of /metrics says of a counter or gauge, by the values of its labels."""
    return {tuple(one.labels.values()): one.value for one in _all_samples(said, metric) if one.name == metric.name}


def histogram_counts(said: str, metric: Metric) -> dict[tuple[str, ...], dict[str, float]]:
    """Return what it says of a histogram, by the values of its labels: how many were up to each edge."""
    counts: dict[tuple[str, ...], dict[str, float]] = {}
    for one in _all_samples(said, metric):
        if one.name == f"{metric.name}_bucket":
            *labels, edge = (one.labels[name] for name in (*metric.label_names, "le"))
            counts.setdefault(tuple(labels), {})[edge] = one.value
    return counts


def _all_samples(said: str, metric: Metric) -> list[Sample]:
    # The lines of one metric alone, since whoever looks every few milliseconds would be held up by all the others.
    own = "".join(f"{line}\n" for line in said.splitlines() if line.startswith(metric.name))
    return [one for family in text_string_to_metric_families(own) for one in family.samples]


class ServiceChild:
    """``python -m ARGUMENTS``, a service, with its settings, for the length of a with block, and never longer than this process."""

    def __init__(
        self, arguments: Sequence[str], settings: Settings, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments, self.settings, self._log = tuple(arguments), settings, log
        self.environment = dict(environment or {})
        self._process: Popen[bytes] | None = None

    @property
    def process(self) -> Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def _name(self) -> str:
        return " ".join(self._arguments)

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C is the parent's to handle."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = start_tied(
                [sys.executable, "-m", *self._arguments], stdin=DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.settings.environment(), **self.environment}, start_new_session=True,
            )  # fmt: skip

    def metrics(self) -> str:
        """Return what /metrics says, nothing while nothing listens."""
        url = f"http://{self.settings.metrics_host}:{self.settings.metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def health(self) -> dict[str, Any] | None:
        """Return what /readyz says with ``status`` added, None while nothing listens."""
        url = f"http://{self.settings.metrics_host}:{self.settings.metrics_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return {"status": answer.status, **json.load(answer)}
        except urllib.error.HTTPError as error:
            return {"status": error.code, **json.load(error)}
        except OSError:
            return None

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until it is ready. Raises ChildError."""
        deadline_s = time.monotonic() + timeout_s
        while (health := self.health()) is None or health["status"] != 200:
            if self.process.poll() is not None:
                raise ChildError(
                    f"{self._name} ended with {self.process.returncode}; the end of {self._log}:\n{self._tail()}"
                )
            if time.monotonic() > deadline_s:
                raise ChildError(
                    f"{self._name} is not ready after {timeout_s:.0f} s; the end of {self._log}:\n{self._tail()}"
                )
            time.sleep(0.05)

    def _tail(self) -> str:
        return "\n".join(f"    {line}" for line in self._log.read_text(errors="replace").splitlines()[-10:])

    def stop(self, timeout_s: float = 10.0) -> int:
        """Stop it, gently and then not; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
