"""A service that folds one new topic is a schema folder, a processor and an entry: one is added to a copy, and is everywhere where it has to be.

Its files and its diff are in ``tests/fixtures/sample_service``.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from services.stack.processes import free_port
from services.streams import Records
from services.streams.connection import KafkaConnection
from services.streams.sink import KafkaSink
from services.worker.sandbox import ProcessSandbox

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/fixtures/sample_service"
CHANGED = ("docker-compose.yml", "services/registry.py")
"""What is changed; all else is added."""
OVERLAY = """from pathlib import Path

__path__ = [str(Path(__file__).parent), {real!r}]

from services._kernel_cache import use_kernel_cache

use_kernel_cache()
"""
"""The package of the copy: what is not in it is that of the checkout, under whose paths the kernels are compiled already."""
GOOD = ("merchant-1", 250, 1_767_225_600_000)


def installed(text: str, entry: str, before: str) -> str:
    """Return a file with an entry before a line that is there once."""
    assert text.count(before) == 1, before
    return text.replace(before, entry + before)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What there is, with the sample service."""
    folder = tmp_path_factory.mktemp("copy")
    bare = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("schemas", "deploy", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=bare)
    (folder / "models").symlink_to(ROOT / "models")
    for name in ("README.md", "pyproject.toml", "requirements.lock", "docker-compose.yml"):
        shutil.copy(ROOT / name, folder)
    (folder / "services").mkdir()
    (folder / "services/__init__.py").write_text(OVERLAY.format(real=str(ROOT / "services")))
    for name in ("registry.py", "paths.py"):
        shutil.copy(ROOT / "services" / name, folder / "services")
    add_sample(folder)
    return folder


def add_sample(folder: Path) -> None:
    shutil.copytree(SAMPLE / "schemas", folder / "schemas", dirs_exist_ok=True)
    shutil.copytree(SAMPLE / "services", folder / "services", dirs_exist_ok=True)
    for name, entry, before in (
        ("services/registry.py", "entry.txt", ')\n"""In the order of the command line\'s help."""\n'),
        ("docker-compose.yml", "compose.txt", "  # What Kafka and Redis say of themselves"),
    ):
        file = folder / name
        file.write_text(installed(file.read_text(), (SAMPLE / entry).read_text(), before))
    assert python(folder, "deploy/make_targets.py").returncode == 0


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True,
        text=True, check=False, timeout=250,
    )  # fmt: skip


def proact(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(copy, "-m", "services.cli.main", *arguments)


def difference(copy: Path) -> str:
    """Return what adding the service took: the lines that were added to files that were there, and the files that were not."""
    said = []
    for name in CHANGED:
        before, after = ((folder / name).read_text().splitlines() for folder in (ROOT, copy))
        lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        assert not [line for line in lines if line.startswith("-")]
        said += [f"{name}:", *(line for line in lines if not line.startswith("@@")), ""]
    new = sorted(str(p.relative_to(SAMPLE)) for part in ("schemas", "services") for p in (SAMPLE / part).rglob("*.*"))
    return "\n".join([*said, "new files:", *(f"+ {name}" for name in new if "__pycache__" not in name), ""])


def test_what_it_takes_is_what_is_shown(copy):
    assert difference(copy) == (SAMPLE / "sample.diff").read_text()


def test_the_commands_know_it(copy):
    whole, own = proact(copy, "--help"), proact(copy, "sample", "--help")
    topology, grid = proact(copy, "topology"), proact(copy, "grid", "status", "--help")

    assert "sample Run sample services: count the refunds of merchants." in " ".join(whole.stdout.split())
    assert "they count the refunds of each merchant" in " ".join(own.stdout.split())
    assert "simulator  ->  [merchant-refunds]  ->  sample" in topology.stdout
    assert "|sample]" in grid.stdout
    assert "sample: counts of merchants' refunds" in " ".join(grid.stdout.split())


def test_the_tests_of_every_service_are_its_tests_too(copy):
    """What holds for keys, card numbers, examples, random records, entries and containers."""
    files = (
        "tests/worker/test_keys.py", "tests/worker/test_card_numbers.py", "tests/codec/test_schemas.py",
        "tests/worker/test_fuzz.py", "tests/test_registry.py", "tests/test_deploy.py",
    )  # fmt: skip
    done = python(
        copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "merchant-refunds or merchant or sample or prometheus"
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3_000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 25


def test_without_its_container_a_test_says_so(copy, tmp_path):
    without = tmp_path / "copy"
    shutil.copytree(copy, without, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    shutil.copy(ROOT / "docker-compose.yml", without)

    done = python(without, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_deploy.py", "-k", "container")

    assert done.returncode == 1
    assert "docker-compose.yml lacks the sample" in done.stdout


def test_a_worker_over_the_twins_counts(copy):
    done = python(copy, str(SAMPLE / "in_memory.py"))

    assert done.returncode == 0, done.stderr[-2_000:]
    good = [i for i in range(60) if i % 10]
    assert json.loads(done.stdout) == {
        "held": {f"merchant-{m}": [len([i for i in good if i % 3 == m]), sum(100 + i for i in good if i % 3 == m)] for m in range(3)},
        "letters": 6, "committed": 60,
    }  # fmt: skip


def refund_of(copy: Path) -> bytes:
    code = (
        "import sys; from services.codec.records import encode_record; from services.codec.schemas import topics\n"
        f"merchant, amount, at = {GOOD!r}\n"
        "record = {'merchant_id': merchant, 'amount_minor': amount, 'event_time_ms': at}\n"
        "sys.stdout.write(encode_record(topics()['merchant-refunds'].latest, record).hex())"
    )
    return bytes.fromhex(python(copy, "-c", code).stdout)


def test_its_sandbox_decodes_its_records(copy, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(copy))
    monkeypatch.chdir(copy)
    sandbox = ProcessSandbox([sys.executable, "-m", "services.sandbox", "sample"], lambda _: None)
    zeros = np.zeros(2, np.int64)
    records = Records(
        "merchant-refunds", zeros, np.arange(2), zeros + GOOD[2], [b"merchant-1"] * 2, [refund_of(copy), b"bad"], 1
    )

    assert sandbox.survives(records)
    sandbox.close()


@pytest.fixture
def connection(own_stack, copy: Path) -> tuple[str, ...]:
    stack = own_stack(3)
    said = ("--kafka-bootstrap-servers", stack.kafka_address, "--redis-url", stack.redis_url)
    applied = proact(copy, "topics", "apply", *said[:2], "--partitions", "3")
    assert applied.returncode == 0, applied.stderr
    assert "merchant-refunds" in applied.stdout
    return said


def statuses(copy: Path, connection: tuple[str, ...]) -> list[dict]:
    for _ in range(20):  # a broker that has just begun may not answer for groups yet
        done = proact(copy, "grid", "status", "--service", "sample", "--json", *connection)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_on_a_real_kafka_and_redis_it_works_its_topic_off(copy, connection):
    sink = KafkaSink(KafkaConnection(connection[1]))
    sink.send("merchant-refunds", [b"merchant-1"] * 500, [refund_of(copy)] * 500)
    assert sink.flush(30)
    sink.close()
    waiting = statuses(copy, connection)
    assert sum(row["waiting"] for row in waiting) == 500
    assert {row["members"] for row in waiting} == {0}
    said = proact(copy, "grid", "status", "--service", "sample", *connection).stdout
    assert "nobody of group proact-sample is running: start it with `proact sample`" in said

    own = {
        "PYTHONPATH": str(copy), "PROACT_KAFKA_BOOTSTRAP_SERVERS": connection[1], "PROACT_REDIS_URL": connection[3],
        "PROACT_METRICS_PORT": str(free_port()), "PROACT_LOG_FORMAT": "json",
    }  # fmt: skip
    with (copy / "sample.log").open("wb") as log:
        command = [sys.executable, "-m", "services", "sample"]
        process = subprocess.Popen(command, cwd=copy, env=os.environ | own, stdout=log, stderr=log)
    try:
        until_s = time.monotonic() + 120
        while sum(row["waiting"] for row in statuses(copy, connection)):
            assert process.poll() is None, (copy / "sample.log").read_text()
            assert time.monotonic() < until_s, (copy / "sample.log").read_text()
        assert {row["members"] for row in statuses(copy, connection)} == {1}
        verified = proact(copy, "grid", "verify", "--service", "sample", *connection)
        assert verified.returncode == 0, verified.stderr
        assert ": 1 profiles at offset" in verified.stdout
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert '"sample stopped"' in (copy / "sample.log").read_text()
