"""The story of a new fraud, from its first day to the model that stops it: all of it real, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess

import pytest


@pytest.mark.long
def test_a_new_fraud_is_learned_and_stopped_while_transactions_flow(proact, tmp_path):
    done = subprocess.run(
        [*proact, "demo-learning"],
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "PROACT_DATA_FOLDER": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["lost"], found["twice"]) == (0, 0)
    assert found["transactions"] > 200_000
    assert found["by_new_model"] > 20_000
    assert found["shadow_decisions"] > 5_000
    assert found["after"]["recall_new"] > found["before"]["recall_new"] + 0.2
    assert found["after"]["recall"] > found["before"]["recall"]
    assert max(found["canary_s"], found["live_s"]) < 30
    assert "approve fraud/v5 --author bo" in done.stdout
