"""``PROACT_*`` variables that nothing reads: most are settings with a slip of the pen, which would otherwise do nothing in silence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from services.runtime.client_options import FAMILIES, FILE
from services.runtime.settings import SETTINGS

WORKER_VARIABLE: Final = "PROACT_SUPERVISED_WORKER"
"""Tells a worker under a supervisor which of them it is; every line of its log says so."""
_PREFIX: Final = "PROACT_"
_OTHERS: Final = frozenset(
    {
        WORKER_VARIABLE, "PROACT_CONFIG", "PROACT_ENV_FILE", "PROACT_BUNDLED_KAFKA", "PROACT_BUNDLED_REDIS", "PROACT_PROMETHEUS_PORT",
        "PROACT_GRAFANA_PORT", "PROACT_REDIS_MEMORY", "PROACT_IMAGE_TAG", "PROACT_ROLL_WAIT_S",
    }
)  # fmt: skip
"""Read by the supervisor's workers, by this file's neighbours, and by docker-compose.yml and the Makefile."""
_OTHER_PREFIXES: Final = (
    "PROACT_TEST_",
    "PROACT_SIMULATION_",
    "PROACT_CHAOS_",
    *(family.prefix for family in FAMILIES),
)
"""Of tests and of chaos; and of the two clients, whose own options follow: one that there is not is refused, with the file that would hold it."""


def unread_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that looks like a setting and is none, with the nearest setting; never its value."""
    known = {setting.variable for setting in SETTINGS.values()} | _OTHERS
    known |= {setting.variable + FILE for setting in SETTINGS.values() if setting.secret}
    return [
        f"{name} is no setting and changes nothing{_nearest(name, known)} (`proact settings` shows them all)"
        for name in sorted(environment)
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_OTHER_PREFIXES)
    ]


def _nearest(name: str, known: set[str]) -> str:
    # By what follows the prefix, which all have in common and which would make any two look alike.
    by_rest = {one.removeprefix(_PREFIX): one for one in known}
    found = difflib.get_close_matches(name.removeprefix(_PREFIX), by_rest, n=1)
    return f"; did you mean {by_rest[found[0]]}?" if found else ""
