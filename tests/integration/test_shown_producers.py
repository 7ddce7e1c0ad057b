"""What the pages show as a producer runs as it stands, and every producer that is shown, or that is ours, sets the partitioner."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from services.checker.oracle import home_of
from services.codec.records import decode_record
from services.codec.transactions import TOPIC
from services.streams.clients import ATOMIC, PRODUCER
from tests.integration.system import read_all, scorers, wait_drained

ROOT = Path(__file__).parents[2]
SHOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE = re.compile(r"\bProducer\((?!Protocol)")
OWN_SETTINGS = ("| PRODUCER", "ATOMIC |", "self._settings", "settings | {", "murmur2_random", "nowhere.producer(")
NOT_OF_KEYED_INPUT = {
    "tests/chaos/partition_faults.py",  # the fault itself
    "tests/chaos/worker_faults.py",  # sends nothing
}


def shown_producers() -> list[str]:
    """Return every block of Python in what we show that makes a producer."""
    return [code for path in SHOWN for code in BLOCK.findall(path.read_text()) if MADE.search(code)]


def test_every_producer_that_is_shown_or_ours_sets_the_partitioner():
    assert shown_producers()
    for code in shown_producers():
        assert '"partitioner": "murmur2_random"' in code
    assert PRODUCER["partitioner"] == ATOMIC["partitioner"] == "murmur2_random"
    silent = set()
    for path in (*sorted((ROOT / "services").rglob("*.py")), *sorted((ROOT / "tests/chaos").glob("*.py"))):
        lines = path.read_text().splitlines()
        made = [line for line in lines if re.search(r"(?<![A-Za-z_])Producer\(", line) and "class " not in line]
        if any(not any(known in line for known in OWN_SETTINGS) for line in made):
            silent.add(str(path.relative_to(ROOT)))
    assert silent == NOT_OF_KEYED_INPUT


def test_what_the_pages_show_runs_as_it_stands_and_is_decided(own_stack, tmp_path):
    stack = own_stack(6)
    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        for number, code in enumerate(shown_producers()):
            own = code.replace("127.0.0.1:9092", stack.kafka_address).replace("card-1", f"card-{number}")
            done = subprocess.run(
                [sys.executable, "-c", own], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, done.stderr
        wait_drained(stack)
        sent, decided = read_all(stack, TOPIC), read_all(stack, "card-decisions")
    assert [(p, key) for p, _, key, _ in sent] == [(home_of(key or b"", 6), key) for _, _, key, _ in sent]
    decisions = [decode_record(value or b"")[1] for *_, value in decided]
    assert len(decisions) == len(shown_producers())
    assert not any("WRONG_PARTITION" in decision["degraded"] for decision in decisions)
