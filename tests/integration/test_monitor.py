"""The monitor on a real Kafka and a real Redis, there and away; and the probe that a container's health check runs."""

from __future__ import annotations

import threading

import pytest

from services.grid.status import RedisStatus
from services.monitor.__main__ import run_monitor
from services.monitor.stores import measure_grid, measure_kafka
from services.runtime import observing_metrics as m
from services.runtime.children import ServiceChild
from services.runtime.metrics import MetricsRegistry
from services.runtime.probe import probe
from services.streams.admin import KafkaAdmin
from tests.integration.system import produce, settings_for, traffic_of, wait_until


def test_the_monitor_tells_what_the_stores_say_and_that_they_are_away(own_stack):
    stack = own_stack()
    produce(stack, traffic_of(500))
    metrics, admin = MetricsRegistry(m.MONITOR_METRICS), KafkaAdmin(stack.kafka_connection)

    # A new Kafka takes a moment until it knows of groups; the monitor asks again every two seconds.
    wait_until(
        lambda: measure_kafka(admin, {"card-transactions": ("card-transactions", "proact-scorer")}, metrics) is None,
        20,
        "Kafka tells everything",
    )
    assert measure_grid(RedisStatus(stack.grid_connection), metrics) is None

    assert metrics.value(m.KAFKA_UP) == metrics.value(m.KAFKA_BROKERS) == metrics.value(m.GRID_UP) == 1
    assert sum(metrics.value(m.TOPIC_END, "card-transactions", str(p)) for p in range(3)) == 500
    assert sum(metrics.value(m.GROUP_LAG, "card-transactions", str(p)) for p in range(3)) == 500
    assert metrics.value(m.GRID_MEMORY) > 0
    assert metrics.value(m.GRID_EVICTED) == 0
    assert metrics.value(m.GRID_LOG_OK) == 1
    stack.redis.down()
    stack.kafka.down()
    assert measure_kafka(admin, {"card-transactions": ("card-transactions", "proact-scorer")}, metrics)
    assert measure_grid(RedisStatus(stack.grid_connection), metrics)
    assert metrics.value(m.KAFKA_UP) == metrics.value(m.GRID_UP) == 0
    assert metrics.value(m.TOPIC_END, "card-transactions", "0") == 0, "an offset of yesterday is none of today"


def test_the_monitor_runs_ready_and_stops_by_itself(stack, tmp_path, monkeypatch):
    settings = settings_for(stack)
    monkeypatch.setenv("PROACT_METRICS_PORT", str(settings.metrics_port))
    with ServiceChild(["services.monitor"], settings, tmp_path / "monitor.log") as monitor:
        monitor.wait_ready()
        assert (probe("/readyz"), probe("/livez"), probe("/nothing")) == (0, 0, 1)
        assert monitor.stop() == 0
    assert probe("/readyz") == 1


def test_the_monitor_stops_at_once_when_it_is_reported_before_it_looks(stack):
    stop = threading.Event()
    stop.set()

    run_monitor(settings_for(stack), stop)


@pytest.mark.parametrize("port", ["none", "70000"])
def test_a_wrong_port_is_said_in_one_line(stack, tmp_path, monkeypatch, port):
    monkeypatch.setenv("PROACT_METRICS_PORT", port)
    log = tmp_path / "monitor.log"
    child = ServiceChild(["services.monitor"], settings_for(stack), log, {"PROACT_METRICS_PORT": port})
    child.start()

    assert child.process.wait(20) == 1
    log = (tmp_path / "monitor.log").read_text()
    assert log.startswith("proact: ")
    assert "Traceback" not in log
