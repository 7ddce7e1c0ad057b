"""Settings that may hold a password: read out for a client alone, by name, and shown to nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Self
from urllib.parse import urlsplit

_HIDDEN: Final = "***"
_SHOWN_ENDINGS: Final = (
    ".protocol", ".mechanism", ".mechanisms", ".location", ".ms", ".bytes", ".kbytes", ".messages", ".rack", ".enable", ".level", ".algorithm",
    "client.id", "client.name", "max.connections", ".ca.certs", ".certfile", ".keyfile", ".ca.path", ".cert.reqs", ".check.hostname",
    "compression.type",
)  # fmt: skip
"""How the names of client properties end whose values people may see. Every other value is hidden, so that a new property is."""


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
        # A #, / or ? within a password ends the host's part early, and what follows would be shown: it is to be written as %23, %2F, %3F.
        if not parts.scheme or not (host or parts.path) or parts.fragment or "@" in parts.path or "@" in parts.query:
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


class HiddenValues(Mapping[str, str]):
    """Named texts of which some may be secret: read by a client alone, by name, while their text shows the names."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values: dict[str, str] = dict(values or {})

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HiddenValues) and self._values == other._values

    def __repr__(self) -> str:
        return ", ".join(f"{name}={self.shown(name)}" for name in self)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written down")

    def shown(self, name: str) -> str:
        """Return a value as people may see it: only what is known to be none of a secret."""
        known = name.replace("_", ".").endswith(_SHOWN_ENDINGS)
        return self._values[name] if known else _HIDDEN

    def without_secrets(self, text: str) -> str:
        """Return a client's own message without any of these values in it that people may not see."""
        for name, value in self._values.items():
            if value and self.shown(name) == _HIDDEN:
                text = text.replace(value, _HIDDEN)
        return text
