"""Folders of stacks and commands: one command at a time, one line where a folder cannot be used, nothing of others is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.folders import check_readable, claimed
from services.stack.kafka import EmbeddedKafka
from services.stack.processes import COMMAND, Daemon, StackError
from services.stack.redis import EmbeddedRedis
from services.stack.temporary import emptied, temporary_stack
from tests.cli.running import run

HOLDS = """\
import sys, time
from pathlib import Path
from services.stack.temporary import emptied
from services.stack.folders import claimed
with claimed(Path(sys.argv[1]), "a demo"), emptied(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "data").write_text("precious")
    print("holds", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def sleeper(daemon: Daemon) -> Iterator[int]:
    daemon.start([sys.executable, "-c", "import time; time.sleep(60)"])
    process = daemon.running()
    assert process is not None
    try:
        yield process.pid
    finally:
        with_id = psutil.Process(process.pid) if psutil.pid_exists(process.pid) else None
        if with_id is not None:
            with_id.kill()


def test_a_second_command_in_a_folder_is_refused_and_the_first_goes_on_unharmed(tmp_path):
    folder = tmp_path / "demo"
    with held(folder) as first:
        for refused in (lambda: temporary_stack(folder, print, {}), lambda: emptied(folder)):
            with pytest.raises(StackError, match=rf"a demo is running in .*demo, process {first.pid}: `proact stack down`"), refused():  # fmt: skip
                pass
        assert (folder / "data").read_text() == "precious"
        noted = Daemon(COMMAND, folder).running()
        assert noted is not None
        assert noted.pid == first.pid


def test_a_second_demo_says_so_in_one_line_before_it_simulates(proact, tmp_path):
    with held(tmp_path / "demo") as first:
        done = run(proact, "demo", "--data-folder", str(tmp_path))

        assert done.returncode == 1
        assert done.stderr.startswith("proact: a demo is running in ")
        assert f"process {first.pid}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert first.poll() is None


def test_what_a_killed_command_left_is_in_nobodys_way(tmp_path):
    folder = tmp_path / "demo"
    with held(folder) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with claimed(folder), emptied(folder):  # and a command may claim what it has
        assert not (folder / "data").exists()
    with claimed(folder):
        pass


@pytest.mark.parametrize(
    ("part", "name", "config", "line"),
    [
        (EmbeddedRedis, "redis", "redis.conf", "bind 127.0.0.1\nport 6379\n"),
        (
            EmbeddedKafka, "kafka", "server.properties",
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\nadvertised.listeners=PLAINTEXT://127.0.0.1:1\n",
        ),
    ],
)  # fmt: skip
def test_a_server_that_runs_at_another_port_is_reported_at_once(tmp_path, part, name, config, line):
    daemon = Daemon(name, tmp_path / name)
    with sleeper(daemon) as pid:
        (tmp_path / name / config).write_text(line)
        with pytest.raises(
            StackError, match=rf"already runs on (6379|9092) \(process {pid}\), not on 6479: `proact stack down`"
        ):
            part(tmp_path, 6479).up(lambda _: None, timeout_s=1.0)
        with pytest.raises(StackError, match="does not answer"):  # where it is the port, it is waited for
            part(tmp_path, 6379 if name == "redis" else 9092).up(lambda _: None, timeout_s=0.3)


def test_a_data_folder_that_is_a_file_is_reported_in_one_line(proact, tmp_path):
    (tmp_path / "file").touch()
    for data_folder in (str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        for command in (["demo"], ["stack", "up"], ["chaos", "--fault", "F-13"]):
            done = run(proact, *command, "--data-folder", data_folder)

            assert done.returncode == 1
            assert done.stderr.startswith("proact: ")
            assert "cannot be a folder, a file is in its place" in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
    assert "is not a folder" in run(proact, "stack", "down", "--data-folder", str(tmp_path / "file")).stderr


def test_a_data_folder_without_permission_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as it is for anybody but root
    with pytest.raises(StackError, match="may not be read and written"), claimed(tmp_path / "demo"):
        pass
    with pytest.raises(StackError, match="may not be read and written"):
        EmbeddedStack.of(tmp_path / "new", 1, 2).up(lambda _: None)
    with pytest.raises(StackError, match="may not be read"):
        check_readable(tmp_path)


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    for up in (lambda e: e.up(lambda _: None), lambda e: e.up_with_topics(lambda _: None, {})):
        with pytest.raises(StackError, match=r"cannot be made \(Permission denied\)"):
            up(EmbeddedStack.of(tmp_path / "new", 1, 2))


def test_a_process_of_another_user_cannot_be_stopped_and_that_is_said(tmp_path, monkeypatch):
    def denied(self: psutil.Process, number: int) -> None:
        raise psutil.AccessDenied(self.pid)

    daemon = Daemon("redis", tmp_path)
    with sleeper(daemon) as pid:
        with monkeypatch.context() as patched:
            patched.setattr(psutil.Process, "send_signal", denied)
            with pytest.raises(StackError, match=rf"redis is process {pid} of user \w+"):
                daemon.stop()
        assert daemon.running() is not None, "it is still known"
        assert daemon.stop()


def test_a_pid_file_that_cannot_be_removed_ends_nothing_with_a_traceback(tmp_path):
    (tmp_path / "file").touch()

    assert not Daemon("redis", tmp_path / "file").stop()


def test_a_killed_process_that_its_parent_has_not_noticed_counts_as_ended(tmp_path, monkeypatch):
    daemon = Daemon("redis", tmp_path)

    def never(self: psutil.Process, timeout: float | None = None) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        raise psutil.TimeoutExpired(timeout or 0.0, self.pid)

    with sleeper(daemon):
        monkeypatch.setattr(psutil.Process, "wait", never)
        assert daemon.stop()
