"""Workers that are broken on purpose by the thousand have nothing to tell; how many schedules they ran is reported at the end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

SCHEDULES: pytest.StashKey[Counter[str]] = pytest.StashKey()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts schedules that were run and held, by kind."""
    return request.config.stash.setdefault(SCHEDULES, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counted = config.stash.get(SCHEDULES, Counter[str]())
    if counted:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counted.items()))
        terminalreporter.write_line(f"simulation: {counted.total():,} schedules held: {kinds}")
