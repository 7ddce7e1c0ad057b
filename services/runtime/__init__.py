"""What every service runs on: the worker loop, configuration, metrics, clock, health, logging."""
