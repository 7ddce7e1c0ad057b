"""What is deployed, as far as its files tell: settings of the containers, lock files, dashboards, rules."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from services.observer.questions import QUESTIONS
from services.registry import SERVICES as REGISTERED
from services.registry import process_of
from services.runtime import catalogue as m
from services.runtime.settings import SETTINGS
from services.topology import edges

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("proact:")}
RECORDING = yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yml").read_text())["groups"]
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text())["groups"]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
STANDARD = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def script(path: str):
    """Return a script of deploy/ as a module."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboard_maker():
    return script("deploy/grafana/make_dashboards.py")


def panels(file: Path) -> list[dict]:
    return json.loads(file.read_text())["panels"]


def queries() -> dict[str, str]:
    """Return every query that is deployed, by where it stands."""
    found = {
        f"{f.stem}: {p['title']} {t['refId']}": t["expr"] for f in DASHBOARDS for p in panels(f) for t in p["targets"]
    }
    found |= {f"rule {r['record']}": r["expr"] for g in RECORDING for r in g["rules"]}
    found |= {f"alert {r['alert']}": r["expr"] for g in ALERTS for r in g["rules"]}
    return found | {q.text: q.query for q in QUESTIONS}


def known_series() -> set[str]:
    metrics = m.ALL_METRICS
    names = {metric.name for metric in metrics if metric.kind != m.HISTOGRAM}
    parts = {
        f"{metric.name}{part}"
        for metric in metrics
        if metric.kind == m.HISTOGRAM
        for part in ("_bucket", "_sum", "_count")
    }
    return names | parts | {rule["record"] for group in RECORDING for rule in group["rules"]} | STANDARD


@pytest.mark.parametrize("where", queries())
def test_a_query_asks_for_series_that_exist(where):
    named = set(re.findall(r"\b(?:proact[_:][a-z0-9_:]+|process_\w+|up|ALERTS)\b", queries()[where]))

    assert named
    assert named <= known_series()


def test_every_metric_is_shown_asked_or_watched_somewhere():
    everything = " ".join(queries().values())
    unused = {metric.name for metric in m.ALL_METRICS if metric.name not in everything}

    # What only helps to find out why: on /metrics, on no panel.
    assert unused == {"proact_lag_records", "proact_event_age_seconds"}


OF_EVERY_SERVICE = {
    # Asked of all services on purpose; the panels say so.
    "proact_halted_partitions", "proact_outage_seconds_total", "proact_recovered_records_total", "proact_model_complete",
    "proact_profiles_cached", "proact_foreign_cache_profiles",
}  # fmt: skip


def people_ask() -> dict[str, str]:
    """Return what people look at: the questions and the panels."""
    return {where: query for where, query in queries().items() if not where.startswith(("rule ", "alert "))}


@pytest.mark.parametrize("where", people_ask())
def test_what_several_services_measure_is_asked_of_one_of_them(where):
    """A reassessor scores, too: without a job it would be counted among the scorers."""
    others = {metric.name for metric in {*m.PROFILER_METRICS, *m.REASSESSOR_METRICS}}
    shared = {metric.name for metric in m.SCORER_METRICS} & others - OF_EVERY_SERVICE
    named = re.findall(
        r"\b(proact_[a-z0-9_]+?)(?:_bucket|_sum|_count)?\b(\{[^}]*\})?(?=[^a-z0-9_]|$)", people_ask()[where]
    )

    without = {name for name, labels in named if name in shared and "job=" not in labels}
    assert not without or re.search(r"by \([^)]*\bjob\b", people_ask()[where]), without


@pytest.mark.parametrize("where", [where for where, query in people_ask().items() if "increase(" in query])
def test_what_is_counted_is_reported_in_whole_numbers(where):
    assert people_ask()[where].startswith("round(") or where == "business: Score distribution A"  # a colour, no number


def test_an_alert_tells_counts_in_whole_numbers():
    reported = [
        r for g in ALERTS for r in g["rules"] if "$value" in r["annotations"]["summary"] and "increase(" in r["expr"]
    ]

    assert reported
    assert all("round(" in r["expr"] or "and on ()" in r["expr"] for r in reported)


def test_the_dashboards_are_the_generated_ones():
    maker = dashboard_maker()

    assert {file.stem for file in DASHBOARDS} == set(maker.DASHBOARDS)
    for file in DASHBOARDS:
        assert file.read_text() == maker.render(file.stem), "run `make dashboards` to write them anew"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda f: f.stem)
def test_the_panels_of_a_dashboard_fill_its_rows_without_overlapping(file):
    cells = [
        (x, y)
        for p in panels(file)
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({p["id"] for p in panels(file)}) == len(panels(file))
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {p["datasource"]["uid"] for p in panels(file)} == {s["uid"] for s in sources["datasources"]}


def test_operate_has_a_section_on_every_alert_and_on_nothing_else():
    section = (ROOT / "docs/operate.md").read_text().split("\n## Alerts\n")[1].split("\n## ")[0]
    reported = re.findall(r"^### (.+)$", section, re.MULTILINE)

    assert sorted(reported) == sorted(rule["alert"] for group in ALERTS for rule in group["rules"])
    assert all(
        r["labels"]["severity"] in {"page", "ticket"} and r["annotations"]["summary"]
        for g in ALERTS
        for r in g["rules"]
    )


def test_the_sites_lock_file_has_hashes_and_no_addresses():
    text = (ROOT / "docs/requirements.lock").read_text()
    locked = re.findall(r"^([a-z0-9_.-]+==\S+)", text, re.MULTILINE | re.IGNORECASE)
    wanted = [line for line in (ROOT / "docs/requirements.in").read_text().splitlines() if line and line[0] != "#"]

    assert set(wanted) <= set(locked), "run `make lock`"
    assert "://" not in text
    assert text.count("--hash=sha256:") >= len(locked)


def test_the_images_lock_files_hold_the_versions_of_the_whole_one():
    pattern = re.compile(r"^([a-z0-9_.-]+)==(\S+)", re.MULTILINE | re.IGNORECASE)
    whole = dict(pattern.findall((ROOT / "requirements.lock").read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = (ROOT / "deploy/build-requirements.in").read_text().splitlines()
    extras = project["optional-dependencies"]
    asked = {
        "requirements": {one.partition("==")[0] for one in [*project["dependencies"], *extras["lake"]]},
        "build-requirements": {line for line in build if line and line[0] != "#"},
    }
    more = {one.partition("==")[0] for extra in ("stack", "train") for one in extras[extra]} - asked["requirements"]
    assert (more | asked["requirements"]) <= whole.keys(), "run `make lock`"
    for name in ("requirements", "build-requirements"):
        text = (ROOT / f"deploy/{name}.lock").read_text()
        locked = dict(pattern.findall(text))
        # redis needs it for the Python of Debian, which is older than that of the lock.
        assert {k: v for k, v in locked.items() if k != "async-timeout"}.items() <= whole.items()
        assert "://" not in text
        assert text.count("--hash=sha256:") >= len(locked)
        assert asked[name] <= locked.keys(), "run `make lock`"
        assert not more & locked.keys(), "the image has the lake, and nothing of the stack or of training"


def compose_config(env_file: Path | str) -> dict:
    """Return docker-compose.yml as compose understands it, which needs no engine."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose to ask what it makes of docker-compose.yml")
    command = [docker, "compose", "--env-file", str(env_file), "config", "--format", "json"]
    # What a person has exported for the command line is of no concern to the containers.
    own = {
        "PATH": os.environ["PATH"],
        "PROACT_ENV_FILE": str(env_file),
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_every_setting_of_the_env_file_reaches_every_service(tmp_path):
    wanted = {setting.variable: f"{number}" for number, setting in enumerate(SETTINGS.values())}
    (tmp_path / "own.env").write_text("".join(f"{name}={value}\n" for name, value in wanted.items()))

    services = compose_config(tmp_path / "own.env")

    for name in OURS:
        assert wanted.items() <= services[name]["environment"].items(), name


def test_without_an_env_file_services_use_what_compose_starts():
    services = compose_config("/dev/null")

    for name in OURS:
        found = services[name]["environment"]
        assert (found["PROACT_KAFKA_BOOTSTRAP_SERVERS"], found["PROACT_REDIS_URL"]) == (
            "kafka:19092",
            "redis://redis:6379/0",
        )
    assert services["kafka"]["deploy"]["replicas"] == services["redis"]["deploy"]["replicas"] == 1


def test_an_own_kafka_and_redis_take_the_place_of_the_bundled_ones(tmp_path):
    (tmp_path / "own.env").write_text("PROACT_BUNDLED_KAFKA=0\nPROACT_BUNDLED_REDIS=0\n")

    services = compose_config(tmp_path / "own.env")

    assert services["kafka"]["deploy"]["replicas"] == services["redis"]["deploy"]["replicas"] == 0
    for name in OURS:
        needed = services[name].get("depends_on", {})
        assert not any(needed[store]["required"] for store in ("kafka", "redis") if store in needed), name


@pytest.mark.parametrize("name", OURS)
def test_no_setting_of_a_service_stands_where_an_env_file_cannot_change_it(name):
    assert not [key for key in OURS[name].get("environment", {}) if key.startswith("PROACT_")]
    assert OURS[name]["env_file"][-1] == {"path": "${PROACT_ENV_FILE:-.env}", "required": False}


def test_every_image_is_pinned():
    assert not [s["image"] for s in SERVICES.values() if ":" not in s["image"] or s["image"].endswith(":latest")]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_limited_checked_and_published_to_this_host_alone(name):
    service = SERVICES[name]

    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["deploy"]["resources"]["limits"].keys() >= {"memory", "cpus"}
    assert service["healthcheck"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_may_not_write_and_is_nobody(name):
    service = OURS[name]

    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert "noexec" in service["tmpfs"][0]
    assert service["deploy"]["resources"]["limits"]["pids"]


def test_there_are_volumes_for_all_that_must_outlive_a_container():
    mounted = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v[0] not in "./$"}

    assert mounted == set(COMPOSE["volumes"])
    assert {"kafka-data", "redis-data", "prometheus-data"} <= mounted


def test_prometheus_looks_for_every_service_that_has_metrics():
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"]: job["dns_sd_configs"][0] for job in scraped if "dns_sd_configs" in job}

    assert found.keys() == OURS.keys() - {"topics"}
    assert all(config["names"] == [name] and config["type"] == "A" for name, config in found.items())
    assert all(str(config["port"]) in OURS[name]["expose"] for name, config in found.items())


def test_what_prometheus_scrapes_is_written_from_the_registry():
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()

    assert script("deploy/make_targets.py").with_targets(text) == text, "run `make dashboards` to write it anew"


@pytest.mark.parametrize("spec", REGISTERED, ids=lambda spec: spec.name)
def test_every_service_of_the_registry_has_a_container(spec):
    assert spec.name in OURS, f"docker-compose.yml lacks the {spec.name}"
    service = OURS[spec.name]

    assert service["command"] == ["python", "-m", *process_of(spec.name)]
    assert service["expose"] == [str(spec.port)]
    assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "services.runtime.probe", "/readyz"]
    assert service["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"


def test_every_container_of_ours_is_a_service_or_known_beside():
    assert OURS.keys() == {spec.name for spec in REGISTERED} | {"topics", "monitor", "evaluator"}


@pytest.mark.parametrize(
    ("writer", "topic", "reader"), [e for e in edges() if {e[0], e[2]} <= OURS.keys() and e[0] != e[2]]
)
def test_who_writes_a_topic_stands_above_who_reads_it(writer, topic, reader):
    """deploy/roll goes from below: a reader refuses records of a schema that it does not know."""
    order = list(OURS)

    assert order.index(writer) < order.index(reader), topic
