"""``python -m services.runtime.probe``: a container's health check, without a shell, curl, or any package of ours."""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 2.0


def probe(path: str = "/readyz") -> int:
    """Return 0 if the service in this container answers 200 to ``path``, else 1; print what it says."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("PROACT_METRICS_PORT", "9108")), timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode(errors="replace"))
    except OSError as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(probe(*sys.argv[1:]))
