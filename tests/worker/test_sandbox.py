"""Records are tried in a process of their own: what dies there does not die here."""

from __future__ import annotations

import sys

import numpy as np

from services.registry import sandbox_of
from services.streams import Records
from services.worker.sandbox import ProcessSandbox, dump_records, load_records, sandbox_command
from tests.chaos.victim import POISON, SANDBOX
from tests.decision.test_fallback import requests_of_the_small_booster
from tests.scorer.test_scorer import good, records_of

CHILD = """
import os, sys
from services.worker.sandbox import load_records
for line in sys.stdin.buffer:
    values = load_records(line).values
    if b"abort" in values: os.abort()
    if b"raise" in values: raise ValueError
    sys.stdout.buffer.write(b"ok\\n"); sys.stdout.buffer.flush()
"""


def records(*values: bytes | None) -> Records:
    return records_of([None] * len(values), list(values))


def test_records_go_to_the_child_and_back_unchanged():
    sent = Records(
        "t", np.array([3, 4]), np.array([7, 2**40]), np.array([1, 2]), [b"\x00\xff", None], [None, b"caf\xc3\xa9"]
    )

    received = load_records(dump_records(sent))

    assert received.topic == "t"
    assert (received.keys, received.values) == (sent.keys, sent.values)
    for name in ("partition", "offset", "timestamp_ms"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))


def test_what_kills_the_child_does_not_survive_and_the_next_batch_gets_a_new_child():
    stays = []
    sandbox = ProcessSandbox([sys.executable, "-c", CHILD], stays.append)

    verdicts = [
        sandbox.survives(records(*values)) for values in ([b"a"], [b"b", b"abort"], [b"c"], [b"raise"], [b"d", None])
    ]

    assert verdicts == [True, False, True, False, True]
    assert stays, "the group sees signs of life while a child starts"
    sandbox.close()


def test_the_scorers_own_sandbox_survives_good_and_bad_records():
    sandbox = ProcessSandbox(sandbox_command(sandbox_of("scorer")), lambda _: None)
    keys, values = good(20)

    assert sandbox.survives(records_of([*keys, None], [*values, b"rubbish"]))
    sandbox.close()


def test_what_waits_for_others_in_a_reassessors_sandbox_does_not_count_as_dead():
    sandbox = ProcessSandbox(sandbox_command(sandbox_of("reassessor")), lambda _: None)
    requests, _ = requests_of_the_small_booster()

    assert sandbox.survives(requests)
    sandbox.close()


def test_the_deadly_record_of_chaos_kills_in_the_victims_sandbox_alone():
    deadly = records_of([b"card-1"], [POISON])
    for arguments, survives in ((sandbox_of("scorer"), True), (("tests.chaos.victim", SANDBOX), False)):
        sandbox = ProcessSandbox(sandbox_command(arguments), lambda _: None)
        assert sandbox.survives(records_of([b"card-1"], [b"bad"]))
        assert sandbox.survives(deadly) == survives
        sandbox.close()
