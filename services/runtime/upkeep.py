"""What a worker does between two batches, beside its own log: it keeps up with what others announce."""

from __future__ import annotations

from typing import Protocol


class Upkeep(Protocol):
    """The worker's thread calls everything: :meth:`begin` at each take-over, :meth:`turn` before each poll, :meth:`close` at the end."""

    def begin(self) -> None:
        """Learn what was announced before; does nothing when that is done already. Raises StreamsError."""
        ...

    def turn(self) -> None:
        """Take what was announced since, without waiting for anything. Never raises for an outage."""
        ...

    def close(self) -> None:
        """Say goodbye, and release what was held."""
        ...


class NoUpkeep:
    """There is nothing to keep up with."""

    def begin(self) -> None:
        """See :class:`Upkeep`."""

    def turn(self) -> None:
        """See :class:`Upkeep`."""

    def close(self) -> None:
        """See :class:`Upkeep`."""


class Upkeeps:
    """Several, one after the other."""

    def __init__(self, *upkeeps: Upkeep) -> None:
        self._upkeeps = upkeeps

    def begin(self) -> None:
        """See :class:`Upkeep`."""
        for upkeep in self._upkeeps:
            upkeep.begin()

    def turn(self) -> None:
        """See :class:`Upkeep`."""
        for upkeep in self._upkeeps:
            upkeep.turn()

    def close(self) -> None:
        """See :class:`Upkeep`."""
        for upkeep in self._upkeeps:
            upkeep.close()
