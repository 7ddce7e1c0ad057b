"""Settings that may hold a password: read out for a client alone, by name, and shown to nobody."""

from __future__ import annotations

from typing import Final, Self
from urllib.parse import urlsplit

_HIDDEN: Final = "***"


class SecretUrl:
    """An address that may hold a user and a password.

    Its text, its representation and whatever is formatted from it show neither; :meth:`reveal` is the only way to read it.
    """

    __slots__ = ("_shown", "_url")

    def __init__(self, url: str | SecretUrl) -> None:
        """Raises ValueError, without the address, for what is none: a client's own message could show a part of it."""
        self._url: str = url.reveal() if isinstance(url, SecretUrl) else str(url)
        try:
            parts = urlsplit(self._url)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            raise ValueError("not an address") from None
        host = parts.hostname or ""
        if not parts.scheme or not (host or parts.path) or parts.fragment or "@" in parts.path:
            raise ValueError("not an address")
        user = f"{_HIDDEN}@" if "@" in parts.netloc else ""
        query = f"?{_HIDDEN}" if parts.query else ""
        self._shown = f"{parts.scheme}://{user}{f'[{host}]' if ':' in host else host}{port}{parts.path}{query}"

    def reveal(self) -> str:
        """Return the address as a client needs it. Nothing that shows or logs may call this."""
        return self._url

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return repr(self._shown)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written down")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)


class Servers(str):
    """Addresses of brokers: ``host:port``, several with commas. They are shown, so no user or password may be among them."""

    __slots__ = ()

    def __new__(cls, servers: object) -> Self:
        """Raises ValueError, without the value."""
        if "@" in str(servers):
            raise ValueError("holds a user or a password")
        return super().__new__(cls, servers)
