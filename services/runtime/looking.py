"""What the processes that look at the others, and are no workers, have in common: they run until they are asked to stop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from services.runtime.settings import ConfigError, Settings, resolve_settings
from services.runtime.variables import unread_variables
from services.signals import end_in_order


def run_until_stopped(run: Callable[[Settings, threading.Event], None]) -> None:
    """Run with settings from the environment and ``proact.toml``, until SIGTERM or Ctrl-C sets the event."""
    stop = threading.Event()
    end_in_order(stop.set)
    sys.stderr.writelines(f"proact: {line}\n" for line in unread_variables(os.environ))
    try:
        run(resolve_settings({}), stop)
    except ConfigError as error:
        sys.exit(f"proact: {error}")
