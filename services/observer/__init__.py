"""Watching what comes out: an independent consumer of decisions, alerts and dead letters, and the live view."""
