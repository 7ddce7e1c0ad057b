"""What Redis says of itself: for the monitor, not for the scorers."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from services.grid.base import GridUnavailableError
from services.grid.connection import GridConnection
from services.grid.redis import connect, described


@dataclass(frozen=True, slots=True)
class GridStatus:
    """Some of Redis's INFO, in bytes, profiles and counts since its start."""

    memory_bytes: int
    memory_max_bytes: int
    """0 where there is no limit."""
    profiles: int
    clients: int
    commands: int
    evicted_keys: int
    log_bytes: int
    log_ok: bool


class RedisStatus:
    """Asks one Redis."""

    def __init__(self, connection: GridConnection, timeout_s: float = 2.0) -> None:
        self._client = connect(connection, timeout_s)

    def ask(self) -> GridStatus:
        """Return what it says now. Raises GridUnavailableError."""
        try:
            info = self._client.info("everything")
            # A partition is two keys, so there are few to look through; the length of a hash is known at once.
            profiles = sum(self._client.hlen(key) for key in self._client.scan_iter(match="*}:profiles", count=1_000))
        except (redis.exceptions.RedisError, OSError) as error:
            raise GridUnavailableError(described(error)) from None
        return GridStatus(
            memory_bytes=info["used_memory"],
            memory_max_bytes=info["maxmemory"],
            profiles=profiles,
            clients=info["connected_clients"],
            commands=info["total_commands_processed"],
            evicted_keys=info["evicted_keys"],
            log_bytes=info.get("aof_current_size", 0),
            log_ok=info["aof_last_write_status"] == "ok",
        )
