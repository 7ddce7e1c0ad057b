"""The registry says of every service what its processor, its topics, its folder and its settings say of themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from services.cli.main import proact
from services.codec.schemas import topics
from services.monitor import __main__ as monitor
from services.registry import (
    BY_LOG,
    BY_NAME,
    BY_TOPIC,
    LOG_OF,
    LOGS,
    METRICS_PORT,
    SERVICES,
    group_of,
    load,
    readers_of,
    sandbox_of,
)
from services.runtime.catalogue import TABLE
from services.runtime.clock import SystemClock
from services.runtime.health import CONDITIONS, Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import SETTINGS, resolve_settings
from services.worker.assembling import build_service, sandbox_processor

ROOT = Path(__file__).parents[1]
HEAVY = {"numba", "numpy", "xgboost", "confluent_kafka", "redis", "fastavro"}


def test_the_registry_imports_nothing_that_takes_its_time():
    code = f"import sys, services.registry; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


@pytest.mark.parametrize("name", LOGS)
def test_a_processor_is_what_its_entry_says(name):
    log, spec = LOGS[name], BY_LOG[name]
    processor = load(log.processor)()

    assert (processor.topic, processor.log, processor.layout) == (log.topic, name, log.layout)
    assert tuple(processor.looks_up) == spec.looks_up
    # The reassessor waits for what it reads: for it alone nothing has to be saved soon.
    assert processor.read_by_others == bool(set(readers_of(name)) - {"reassessor"})
    assert sandbox_processor(spec, resolve_settings({}, {}), log.topic).topic == log.topic


@pytest.mark.parametrize("spec", SERVICES, ids=lambda spec: spec.name)
def test_what_an_entry_names_is_there(spec):
    named = [spec.metrics, spec.build, spec.check, spec.warm_up, spec.sandbox, *(log.processor for log in spec.logs)]

    assert all(load(path) is not None for path in named if path)
    assert spec.group_setting is None or spec.group_setting in SETTINGS
    assert set(spec.settings) <= SETTINGS.keys()
    assert set(spec.looks_up) <= LOGS.keys()
    assert all(spec.name in topics()[log.topic].consumers for log in spec.logs)
    assert sandbox_processor(spec, resolve_settings({}, {})).topic == spec.logs[0].topic


def test_every_group_setting_is_a_services():
    groups = {name for name in SETTINGS if name.endswith("group_id")}

    assert groups == {spec.group_setting for spec in SERVICES if spec.group_setting}


def test_every_folder_with_a_processor_is_a_services_and_has_no_start_of_its_own():
    folders = {path.parent for path in ROOT.glob("services/*/processor.py")} - {ROOT / "services/worker"}

    assert {folder.name for folder in folders} == BY_NAME.keys()
    for folder in folders:
        assert not {"__main__.py", "sandbox.py", "wiring.py"} & {path.name for path in folder.iterdir()}


def test_groups_are_those_that_the_settings_name():
    settings = resolve_settings({"group_id": "a", "profiler_group_id": "b", "reference_group_id": "c"}, {})
    groups = {log: group_of(settings, log) for log in BY_TOPIC}

    assert groups == {
        "card-transactions": "a", "terminal-events": "b", "fraud-labels": "proact-router", "accounts": "c-accounts",
        "customers": "c-customers", "card-reassessment-requests": "proact-reassessor",
    }  # fmt: skip


def test_the_grids_names_are_services_or_the_topics_of_a_service_with_several():
    copied = [name for name in LOGS if name not in BY_TOPIC]
    archived = [name for name in copied if BY_LOG[name].name == "archiver"]
    audited = [name for name in copied if name not in archived]

    assert list(LOG_OF) == ["scorer", "profiler", "router", "accounts", "customers", "reassessor", *copied]
    assert archived == [f"lake-{log.topic}" for log in BY_NAME["archiver"].logs]
    assert audited == [f"auditor-{log.topic}" for log in BY_NAME["auditor"].logs]
    assert {log.topic for log in BY_NAME["archiver"].logs} == {n for n, one in topics().items() if one.lake_date}
    assert set(TABLE.values or ()) == {log.topic for log in BY_NAME["archiver"].logs}


@pytest.mark.parametrize("spec", SERVICES, ids=lambda spec: spec.name)
def test_a_service_has_a_command_with_its_settings(spec):
    context = click.Context(proact)
    command = proact.get_command(context, spec.name)
    assert command is not None
    wanted = {*spec.settings, "metrics_port", *([spec.group_setting] if spec.group_setting else [])}

    assert spec.name in proact.list_commands(context)
    assert wanted <= {one.name for one in command.params}
    assert command.help == spec.purpose


@pytest.mark.parametrize("arguments", [[], ["nobody"], ["scorer", "profiler"]])
def test_a_process_of_nobody_says_what_there_is(arguments):
    done = subprocess.run([sys.executable, "-m", "services", *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.strip() == f"proact: say python -m services NAME, one of {', '.join(BY_NAME)}"


@pytest.mark.parametrize("name", ["profiler", "router", "reference", "archiver", "auditor"])
def test_a_service_is_built_with_the_conditions_of_its_entry(name):
    """Kafka and Redis are away, which is waited out once it runs."""
    away = {"kafka_bootstrap_servers": "127.0.0.1:1", "redis_url": "redis://127.0.0.1:1/0", "transactional_id": "me"}
    spec, settings = BY_NAME[name], resolve_settings(away, {})
    health = Health(SystemClock(), dict.fromkeys((*CONDITIONS, *spec.conditions), False))

    service = build_service(spec, settings, health, MetricsRegistry(load(spec.metrics)))

    assert health.holding["kernels_compiled"]
    assert list(health.parts) == ([] if len(spec.logs) == 1 else [log.topic for log in spec.logs])
    service.stop()


@pytest.mark.parametrize("build", ["tests.benchmarks.core_scorer:build", "tests.chaos.victim:build_killable"])
def test_scorers_of_measurements_and_chaos_are_built_as_the_registrys_are(build):
    away = {"kafka_bootstrap_servers": "127.0.0.1:1", "redis_url": "redis://127.0.0.1:1/0", "transactional_id": "me"}
    spec, settings = replace(BY_NAME["scorer"], build=build), resolve_settings(away, {})
    health = Health(SystemClock(), dict.fromkeys((*CONDITIONS, *spec.conditions), False))

    service = build_service(spec, settings, health, MetricsRegistry(load(spec.metrics)))

    assert health.conditions["model_verified"]
    service.stop()


def test_ports_and_sandboxes_are_those_of_the_settings_and_the_process():
    assert SETTINGS["metrics_port"].default == METRICS_PORT
    assert {sandbox_of(name) for name in BY_NAME} == {("services.sandbox", name) for name in BY_NAME}


def test_the_monitor_asks_after_every_service(monkeypatch):
    class EndError(Exception):
        pass

    asked = {}

    def look(_admin, groups, _metrics):
        asked.update(groups)
        raise EndError

    monkeypatch.setattr(monitor, "measure_kafka", look)
    monkeypatch.setattr(monitor, "serve_health", lambda *_: None)
    with pytest.raises(EndError):
        monitor.run_monitor(resolve_settings({}, {}), monitor.threading.Event())

    settings = resolve_settings({}, {})
    assert asked == {name: (log.topic, group_of(settings, name)) for name, log in LOGS.items()}
