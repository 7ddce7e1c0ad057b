"""Writes what Prometheus scrapes, one job a service of ours; a test keeps the file true."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.registry import METRICS_PORT, SERVICES

FILE: Final = Path(__file__).parent / "prometheus/prometheus.yml"
BEGIN, END = "  # Written by `make dashboards`", "  # Up to here.\n"


def targets() -> str:
    """Return the jobs."""
    ports = {spec.name: spec.port for spec in SERVICES} | {"evaluator": METRICS_PORT, "monitor": METRICS_PORT}
    return "".join(
        f"  - job_name: {name}\n"
        f"    dns_sd_configs:\n      - {{names: [{name}], type: A, port: {port}, refresh_interval: 5s}}\n"
        for name, port in ports.items()
    )


def with_targets(text: str) -> str:
    """Return the configuration with its jobs written anew between the two marks."""
    begin, end = text.index("\n", text.index(BEGIN)) + 1, text.index(END)
    return text[:begin] + targets() + text[end:]


if __name__ == "__main__":
    FILE.write_text(with_targets(FILE.read_text()))
