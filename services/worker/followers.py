"""What a worker does between two batches, beside its own log: it keeps up with what others announce."""

from __future__ import annotations

from typing import Protocol


class Follower(Protocol):
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


class NoFollower:
    """There is nothing to keep up with."""

    def begin(self) -> None:
        """See :class:`Follower`."""

    def turn(self) -> None:
        """See :class:`Follower`."""

    def close(self) -> None:
        """See :class:`Follower`."""


class Followers:
    """Several, one after the other."""

    def __init__(self, *followers: Follower) -> None:
        self._followers = followers

    def begin(self) -> None:
        """See :class:`Follower`."""
        for follower in self._followers:
            follower.begin()

    def turn(self) -> None:
        """See :class:`Follower`."""
        for follower in self._followers:
            follower.turn()

    def close(self) -> None:
        """See :class:`Follower`."""
        for follower in self._followers:
            follower.close()
