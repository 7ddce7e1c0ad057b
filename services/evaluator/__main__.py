"""``python -m services.evaluator``: looks at the lake every few minutes until it is asked to stop."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Final

from services.signals import end_at_once

if __name__ == "__main__":
    end_at_once()  # before what takes its time to import, and may swallow an interrupt

from services.decision.model_loader import models_root
from services.evaluator.figures import Evaluator
from services.inference import ModelError
from services.inference.artifact import load_manifest
from services.inference.released import folder_of
from services.offline.watching.distribution import Binned, read_distribution
from services.registry import BY_NAME
from services.runtime.clock import SystemClock
from services.runtime.health import Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.looking import run_until_stopped
from services.runtime.metrics import MetricsRegistry
from services.runtime.observing_metrics import EVALUATOR_METRICS
from services.runtime.settings import Settings

log = logging.getLogger("proact.evaluator")

BEAT_S: Final = 2.0


def trained(settings: Settings, model: str) -> dict[str, Binned]:
    """Return the distribution of the training of a model NAME/vN; nothing where its manifest is not here, or holds none."""
    try:
        return read_distribution(load_manifest(folder_of(model, models_root(settings))).training.get("distribution"))
    except (ModelError, ValueError) as error:
        log.warning("the training of a model is not known", extra=fields(model=model, error=str(error)))
        return {}


def run_evaluator(settings: Settings, stop: threading.Event) -> None:
    """Look until ``stop`` is set. Raises ConfigError before it begins."""
    set_up_logging(settings.log_format)
    clock = SystemClock()
    health, metrics = Health(clock, {"looked": False}), MetricsRegistry(EVALUATOR_METRICS)
    server = serve_health(settings.metrics_host, settings.metrics_port, health, metrics)
    topics = [one.topic for one in BY_NAME["archiver"].logs]
    evaluator = Evaluator(topics, settings.lake_url, metrics, partial(trained, settings))
    evaluator.begin(clock.now_ms())
    log.info("evaluator runs", extra=fields(metrics=f"{settings.metrics_host}:{settings.metrics_port}"))
    due_s, before = 0.0, None
    while not stop.is_set():
        health.beat()
        if clock.monotonic_s() >= due_s:
            problem = evaluator.look(clock.now_ms())
            if (problem is None) != (before is None) or not due_s:
                log.info("the lake is %s", "there" if problem is None else "away", extra=fields(error=problem))
            before, due_s = problem, clock.monotonic_s() + settings.evaluator_interval_s
            health.set("looked", holds=True)  # of a fresh system there is no lake yet: an alert says if there never is
        stop.wait(BEAT_S)
    server.shutdown()
    log.info("evaluator stopped")


if __name__ == "__main__":
    run_until_stopped(run_evaluator)
