"""Variables that look like settings and are none are reported, with the nearest setting, and without their value."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.registry import process_of
from services.runtime.settings import SETTINGS
from services.runtime.variables import unread_variables
from tests.cli.running import run


def test_a_slip_of_the_pen_is_reported_with_the_nearest_setting_and_without_its_value():
    lines = unread_variables({"PROACT_WROKERS": "c4n4ry", "PROACT_GARANTEE": "x", "WORKERS": "1", "PROACT": "1"})

    assert len(lines) == 2
    assert lines[0].startswith("PROACT_GARANTEE is no setting and changes nothing; did you mean PROACT_GUARANTEE?")
    assert lines[1].startswith("PROACT_WROKERS is no setting and changes nothing; did you mean PROACT_WORKERS?")
    assert "c4n4ry" not in "".join(lines)


@pytest.mark.parametrize(
    "name",
    [
        "PROACT_CONFIG", "PROACT_TEST_STACK", "PROACT_SIMULATION_SEEDS", "PROACT_CHAOS_FOLDER", "PROACT_KAFKA_SASL_MECHANISM",
        "PROACT_REDIS_TLS_CA", "PROACT_REDIS_URL_FILE", "PROACT_PROMETHEUS_URL_FILE", "PROACT_BUNDLED_KAFKA", "PROACT_IMAGE_TAG",
        *(setting.variable for setting in SETTINGS.values()),
    ],
)  # fmt: skip
def test_what_others_read_is_not_reported(name):
    assert unread_variables({name: "1"}) == []


def test_a_file_of_what_is_no_secret_is_reported():
    [line] = unread_variables({"PROACT_GROUP_ID_FILE": "/run/secrets/group"})

    assert line.startswith("PROACT_GROUP_ID_FILE is no setting and changes nothing")


def test_every_command_says_it_once(proact):
    done = run(proact, "token", "8a6e0804-2bd0-4672-b79d-d97027f9071a", PROACT_WROKERS="2")

    assert done.returncode == 0
    assert done.stderr.count("did you mean PROACT_WORKERS?") == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("more", "reported"), [({}, 1), ({"PROACT_SUPERVISED_WORKER": "1"}, 0)])
def test_every_service_says_it_and_of_several_workers_the_supervisor_alone(more, reported):
    # It ends at once, of a setting that is out of range.
    environment = {"PATH": "/usr/bin:/bin", "PROACT_WROKERS": "2", "PROACT_WORKERS": "0", **more}
    for process in (process_of("scorer"), *([("services.monitor",)] if not more else [])):
        done = subprocess.run(
            [sys.executable, "-m", *process], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.count("did you mean PROACT_WORKERS?") == reported, done.stderr
