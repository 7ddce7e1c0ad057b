"""Settings, metrics, health, logs."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from services.core.masking import mask_text
from services.core.policy import Action
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock, SystemClock
from services.runtime.health import CONDITIONS, LIVE_WITHIN_S, Health, serve_health
from services.runtime.logs import _Formatter, fields, set_up_logging, transaction_token
from services.runtime.metrics import MetricsRegistry
from services.runtime.rate_limited_log import LINES_MAX, RateLimitedLog
from services.runtime.settings import SETTINGS, ConfigError, resolve_settings
from services.stack.processes import free_port
from services.worker.halting import Cause


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path):
    (tmp_path / "proact.toml").write_text('workers = 2\ngroup_id = "file"\nredis_url = "redis://file"\n')
    settings = resolve_settings({"workers": 4}, {"PROACT_WORKERS": "3", "PROACT_GROUP_ID": "variable"})

    assert (settings.workers, settings.group_id, settings.redis_url.reveal()) == (4, "variable", "redis://file")
    assert settings.partitions == SETTINGS["partitions"].default


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"PROACT_WORKERS": "many"}, "PROACT_WORKERS: workers must be a whole number"),
        ({"PROACT_WORKERS": "0"}, "must lie between"),
        ({"PROACT_WORKERS": ""}, "whole number"),
        ({"PROACT_LOG_FORMAT": "xml"}, "must be one of auto, text, json"),
        ({"PROACT_CONFIG": "nowhere.toml"}, "does not exist"),
    ],
)
def test_a_bad_value_is_one_line_that_says_where_it_came_from(environment, says):
    with pytest.raises(ConfigError, match=says) as caught:
        resolve_settings({}, environment)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["wrkers = 2", "workers = ", "workers = true"])
def test_a_bad_file_is_refused(tmp_path, text):
    (tmp_path / "proact.toml").write_text(text)

    with pytest.raises(ConfigError):
        resolve_settings({}, {})


def test_every_numeric_setting_has_bounds():
    assert all(s.least is not None and s.most is not None for s in SETTINGS.values() if s.kind in (int, float))


def test_settings_travel_to_a_child_through_its_environment():
    settings = resolve_settings({"workers": 3, "group_id": "g"}, {})

    again = resolve_settings({}, settings.environment())

    assert again.environment() == settings.environment()


def exposition(registry: MetricsRegistry) -> str:
    collectors = CollectorRegistry()
    collectors.register(registry)
    return generate_latest(collectors).decode()


def test_a_histogram_counts_like_prometheus_does():
    registry = MetricsRegistry()
    registry.observe(m.BATCH_RECORDS, np.array([1.0, 2.0, 3.0, 1e9]))
    registry.observe(m.BATCH_RECORDS, 2)

    text = exposition(registry)

    assert 'proact_batch_records_bucket{le="1.0"} 1.0' in text
    assert 'proact_batch_records_bucket{le="2.0"} 3.0' in text
    assert 'proact_batch_records_bucket{le="+Inf"} 5.0' in text
    assert "proact_batch_records_count 5.0" in text


def test_counters_and_gauges_are_shown_with_their_labels():
    registry = MetricsRegistry()
    registry.add(m.DECISIONS, 3, "BLOCK")
    registry.add(m.DECISIONS, 2, "BLOCK")
    registry.set(m.LAG, 7, "1")

    text = exposition(registry)

    assert 'proact_decisions_total{action="BLOCK"} 5.0' in text
    assert 'proact_lag_records{partition="1"} 7.0' in text


def test_a_counter_with_closed_labels_shows_all_its_series_from_the_start():
    text = exposition(MetricsRegistry())

    for action in Action:
        assert f'proact_decisions_total{{action="{action.name}"}} 0.0' in text
    assert 'proact_alerts_total{kind="DECLINE",severity="LOW"} 0.0' in text
    assert 'proact_stage_seconds_bucket{le="+Inf",stage="publish"} 0.0' in text
    assert "proact_billing_amount_total{" not in text, "not every currency there is"


@pytest.mark.parametrize("labels", [(), ("MAYBE",), ("BLOCK", "more")])
def test_a_label_value_that_is_not_in_its_list_is_a_mistake_of_ours(labels):
    with pytest.raises(AssertionError):
        MetricsRegistry().add(m.DECISIONS, 1, *labels)


def test_replacing_a_gauge_drops_the_series_that_are_gone():
    registry = MetricsRegistry()
    registry.replace(m.LAG, {("0",): 5, ("1",): 6})
    registry.replace(m.LAG, {("1",): 7})

    assert 'partition="0"' not in exposition(registry)
    assert registry.value(m.LAG, "1") == 7


def test_every_metric_is_named_after_prometheus_customs():
    for metric in {*m.SCORER_METRICS, *m.PROFILER_METRICS, *m.MONITOR_METRICS}:
        assert metric.name.startswith("proact_")
        assert metric.name.endswith("_total") == (metric.kind == m.COUNTER)
        assert metric.meaning
        assert bool(metric.buckets) == (metric.kind == m.HISTOGRAM)


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_ready_is_when_every_condition_holds_and_live_is_when_the_loop_turns():
    clock = ManualClock()
    health, registry = Health(clock), MetricsRegistry()
    server = serve_health("127.0.0.1", 0, health, registry)
    base = f"http://127.0.0.1:{server.server_port}"

    assert get(f"{base}/readyz")[0] == 503
    for condition in CONDITIONS:
        assert get(f"{base}/readyz")[0] == 503
        health.set(condition, True)
    assert get(f"{base}/readyz")[0] == 200
    assert get(f"{base}/livez")[0] == 200
    assert b"proact_ready 1.0" in get(f"{base}/metrics")[1]
    clock.sleep(LIVE_WITHIN_S + 1)
    assert get(f"{base}/livez")[0] == 503
    assert get(f"{base}/anything")[0] == 404

    with pytest.raises(ConfigError, match="cannot serve metrics"):
        serve_health("127.0.0.1", server.server_port, health, registry)
    server.shutdown()


def test_logs_go_to_standard_output_as_json_where_it_is_no_terminal(capsys):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    set_up_logging("auto")
    logging.getLogger("proact.test").info("something happened", extra=fields(partition=3))
    root.handlers[:], root.level = before

    captured = capsys.readouterr()
    line = json.loads(captured.out)
    assert (line["message"], line["partition"], line["level"]) == ("something happened", 3, "INFO")
    assert captured.err == ""


def test_a_transactions_token_is_short_does_not_tell_the_id_and_is_never_taken_for_a_card_number():
    ids = [i.to_bytes(16, "big") for i in range(5_000)]
    tokens = [transaction_token(i) for i in ids]

    assert len(set(tokens)) == len(ids)
    assert all(len(t) == 13 and t.isalnum() and mask_text(t) == t for t in tokens)
    assert transaction_token(ids[1]) == transaction_token(ids[1])


def test_a_flood_of_refused_records_is_a_few_lines_and_a_count(caplog):
    clock = ManualClock()
    notices = RateLimitedLog(clock)
    flood = [{"reason": "EMPTY", "offset": i} for i in range(1_000)]
    with caplog.at_level(logging.WARNING, "proact.records"):
        notices.tell(flood)
        notices.tell(flood)
        clock.sleep(1.0)
        notices.tell(flood[:1])

    assert len(caplog.records) == LINES_MAX + 2
    assert caplog.records[-2].fields == {"records": 2_000 - LINES_MAX}
    assert caplog.records[-1].fields["offset"] == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_a_log_line_never_shows_a_card_number(as_json):
    record = logging.LogRecord("proact", logging.INFO, "", 1, "card %s", ("4111111111111111",), None)
    record.__dict__ |= fields(also="5555 5555 5555 4444")

    line = _Formatter(as_json=as_json).format(record)

    assert "4111" not in line
    assert "4444" not in line
    if as_json:
        assert json.loads(line)["level"] == "INFO"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(
        [
            4111111111111111,
            "4111--1111--1111--1111",
            4111111111111111.0,
            "\ud800",
            Path("/x"),
            ValueError("4111111111111111"),
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("4111111111111111"), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), ANYTHING, max_size=4), st.text(), st.booleans())
@example({"offset": 4111111111111111}, "", False)
def test_every_log_line_is_json_or_text_without_a_card_number(reported, message, fails):
    record = logging.LogRecord("proact", logging.INFO, "", 1, "%s", (message,), None)
    if fails:
        record.exc_info = (ValueError, ValueError("pan4111.1111.1111.1111"), None)
    record.__dict__ |= {"fields": reported}

    as_json, as_text = (_Formatter(as_json=either).format(record) for either in (True, False))

    assert "\n" not in as_json
    read = json.loads(as_json, parse_constant=pytest.fail)
    assert "logger" in read
    as_text.encode()
    for line in (as_json, as_text):
        assert "4111111111111111" not in line
        assert "1111--1111" not in line
        assert "1111.1111" not in line


def test_the_system_clock_is_in_milliseconds_and_never_goes_back():
    clock = SystemClock()

    assert 1_700_000_000_000 < clock.now_ms() < 4_000_000_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_a_free_port_is_given_to_one_only():
    ports = [free_port() for _ in range(400)]

    assert len(set(ports)) == len(ports)


def test_the_metrics_name_every_cause_of_a_halt():
    assert m.HALT_CAUSE.values == tuple(cause.name for cause in Cause)
