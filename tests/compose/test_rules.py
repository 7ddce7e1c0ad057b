"""Prometheus's own tool checks its settings and runs the unit tests of the rules."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.containers import DOCKER, ROOT, image_of


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    image = image_of("prometheus")
    mounts = ["-v", f"{ROOT}/deploy/prometheus:/etc/prometheus:ro", "-v", f"{ROOT}/tests/compose:/tests:ro"]
    command = [
        DOCKER,
        "run",
        "--rm",
        "--network",
        "none",
        *mounts,
        "--entrypoint",
        "/bin/promtool",
        image,
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "/etc/prometheus/prometheus.yml"), ("test", "rules", "/tests/alerts.test.yml")],
    ids=["settings", "rules"],
)
def test_promtool_is_content(docker, arguments):
    done = promtool(*arguments)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_with_what_fires_it_and_with_what_does_not():
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    tested = yaml.safe_load((ROOT / "tests/compose/alerts.test.yml").read_text())["tests"]
    cases = [case for test in tested for case in test.get("alert_rule_test", [])]

    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts
