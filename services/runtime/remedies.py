"""What helps where a store does not answer: the stores' errors know it, and whoever tells of one says it with it."""

from __future__ import annotations


def with_remedy(error: Exception) -> str:
    """Return what an error says and, where it is an outage, what its reader can do."""
    remedy: str | None = getattr(error, "remedy", None)
    return str(error) if remedy is None else f"{error}; {remedy}"
