"""What commands say by the way: counts, how long it takes, what is waited for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from services.cli import watch
from services.cli.check import estimate
from services.cli.main import proact as command_line
from services.cli.options import counted
from services.observer.choosing import Choice


@pytest.mark.parametrize(("count", "said"), [(0, "0 days"), (1, "1 day"), (2, "2 days"), (1_200, "1,200 days")])
def test_one_is_singular(count, said):
    assert counted(count, "day") == said


@pytest.mark.parametrize(("transactions", "said"), [(0, "1 second"), (16_000, "10 seconds"), (1_000_000, "10 minutes")])
def test_a_check_says_in_advance_how_long_it_takes(transactions, said):
    assert estimate(transactions).endswith(f"takes about {said}")


def test_the_reference_services_topics_are_named():
    done = CliRunner().invoke(command_line, ["grid", "status", "--service", "reference"])

    assert done.exit_code == 2
    assert "--service accounts or --service customers" in done.output


class Silent:
    """A topic in which nothing happens."""

    def read(self, timeout_s: float) -> Iterator[None]:  # noqa: ARG002 - a reader's signature
        yield from ()

    def close(self) -> None:
        pass


def test_a_tail_that_waits_says_so_once_and_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(watch, "REPORTED_AFTER_S", 0.0)

    end = watch.time.monotonic() + 1.0, "waiting for new records"
    watch.print_as_they_come(Silent(), Choice("card-alerts"), True, None, end)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "· waiting for new records\n"
