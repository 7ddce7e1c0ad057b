"""Where the grid is and how clients are let in: one value, from which every client of ours is made.

What people may set of a client (``[redis]``, ``PROACT_REDIS_*``, the query of ``redis_url``) is checked here. The client itself is imported only
where one is made: every command reads the settings.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from services.secrets import HiddenValues, SecretUrl

_TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TLS_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def _truth(text: str) -> bool:
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _one_of(choices: Mapping[str, Any]) -> Callable[[str], Any]:
    def choose(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choices[text]

    return choose


OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "username": str,
    "password": str,
    "db": _whole,
    "client_name": str,
    "socket_keepalive": _truth,
    "socket_read_size": _whole,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": _one_of({"none": "none", "optional": "optional", "required": "required"}),
    "ssl_check_hostname": _truth,
    "ssl_ciphers": str,
    "ssl_min_version": _one_of(_TLS_VERSIONS),
    "ssl_validate_ocsp": _truth,
    "ssl_validate_ocsp_stapled": _truth,
}
"""The options of redis-py that people may set, and how each is read from text."""
_TWICE: Final = "a write whose answer was lost must not run again by itself"
_WAITS: Final = "say grid_timeout_ms or lookup_timeout_ms"
_BYTES: Final = "profiles are bytes"
REFUSED: Final[Mapping[str, str]] = {
    "host": "say redis_url",
    "port": "say redis_url",
    "path": "say redis_url",
    "unix_socket_path": "say redis_url",
    "ssl": "say rediss:// in redis_url",
    "retry": _TWICE,
    "retry_on_timeout": _TWICE,
    "retry_on_error": _TWICE,
    "socket_timeout": _WAITS,
    "socket_connect_timeout": _WAITS,
    "timeout": _WAITS,
    "decode_responses": _BYTES,
    "encoding": _BYTES,
    "encoding_errors": _BYTES,
    "protocol": "the form of the answers that the grid reads",
    "legacy_responses": "the form of the answers that the grid reads",
    "max_connections": "each thread of a worker needs its connection",
    "health_check_interval": "the worker looks itself whether Redis answers",
}
"""Options that the guarantees rest on, with the reason or with the setting to use."""


def why_refused(name: str) -> str | None:
    """Return why an option of the client cannot be set; None where it may be."""
    if name in OPTIONS:
        return None
    why = REFUSED.get(name)
    return f"{name} cannot be set: {why}" if why else f"there is no option {name} of a Redis client that can be set"


def place_of(url: str) -> str:
    """Return the host and port of an address, or the path of its socket, and nothing else of it."""
    parts = urlsplit(url)
    if not parts.hostname:
        return parts.path
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or 6379}"


@dataclass(frozen=True, slots=True, repr=False)
class GridConnection:
    """The Redis that holds the grid, and the client options that people have set; its text shows no secret."""

    url: SecretUrl
    """Options in its query count as if they were set apart."""
    options: HiddenValues = field(default_factory=HiddenValues)
    """By redis-py's names."""

    @classmethod
    def of(cls, url: str) -> GridConnection:
        """Return the connection of an address. Raises ValueError."""
        return cls(SecretUrl(url))

    def __post_init__(self) -> None:
        """Raises ValueError for an option that cannot be set, or a value that is none."""
        self.arguments()

    def __str__(self) -> str:
        return str(self.url)

    def __repr__(self) -> str:
        return f"GridConnection({self.url}{'; ' if self.options else ''}{self.options!r})"

    @property
    def address(self) -> str:
        """The address without its query; it may hold a password. Nothing that shows or logs may call this."""
        return urlunsplit(urlsplit(self.url.reveal())._replace(query=""))

    def arguments(self) -> dict[str, Any]:
        """Return the options as a client's keyword arguments; they may be secret. Nothing that shows or logs may call this."""
        parts = urlsplit(self.url.reveal())
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        found = {}
        for name, text in (asked | dict(self.options)).items():
            why = why_refused(name)
            if why is not None:
                raise ValueError(why)
            if name.startswith("ssl_") and parts.scheme != "rediss":
                raise ValueError(f"{name} needs rediss:// in redis_url")
            if name in ("username", "password") and "@" in parts.netloc:
                raise ValueError(f"{name} is in redis_url, too: say it in one place")
            try:
                found[name] = OPTIONS[name](text)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return found
