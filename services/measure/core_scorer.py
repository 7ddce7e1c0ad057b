"""``python -m services.measure.core_scorer``: one scorer of the workload ``core``."""

from __future__ import annotations

from services.signals import end_at_once

if __name__ == "__main__":
    end_at_once()  # before what takes its time to import, and may swallow an interrupt

    from services.measure.core_only import CoreProcessor
    from services.runtime.config import Settings
    from services.runtime.health import Health
    from services.runtime.metrics import MetricsRegistry
    from services.runtime.service import service_main
    from services.runtime.team import Runnable
    from services.scorer.wiring import build_around, ladder_of

    def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Runnable:
        """Build it. Raises ConfigError."""
        return build_around(CoreProcessor(None, ladder_of(settings)), settings, health, metrics)

    service_main("scorer", build)
