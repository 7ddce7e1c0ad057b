"""One setting: how it is named, read and checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from services.secrets import SecretUrl, Servers


class ConfigError(Exception):
    """A setting is unknown, of the wrong type or out of range: a user's mistake, said in one line."""


T = TypeVar("T", bool, int, float, str, SecretUrl, Servers)


def declare(
    default: T, meaning: str, least: float | None = None, most: float | None = None, *, choices: tuple[str, ...] = ()
) -> T:
    """Declare a setting: a field of :class:`services.runtime.settings.Settings`, whose name is the setting's and whose kind is that of its default."""
    return field(default=default, metadata={"meaning": meaning, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name is the flag ``--my-name``, the variable ``PROACT_MY_NAME`` and the key ``my_name``."""

    name: str
    kind: type[bool | int | float | str | SecretUrl]
    default: bool | int | float | str | SecretUrl
    meaning: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, declared: dataclasses.Field[Any]) -> Setting:
        """Return the setting that a field of the settings declares."""
        default: Any = declared.default
        return cls(declared.name, type(default), default, **declared.metadata)

    @property
    def secret(self) -> bool:
        """Whether its value may hold a password: it is shown to nobody, and may be in a file."""
        return self.kind is SecretUrl

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"PROACT_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The command line's flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for the value in the help of a command."""
        return {int: "INT", float: "FLOAT", bool: "true|false"}.get(self.kind, "STR")

    def parse(self, raw: Any, origin: str) -> Any:
        """Return the checked value of ``raw``, which came from ``origin``. Raises ConfigError, which shows no secret."""
        shown = "" if self.kind in (SecretUrl, Servers) else f", not {raw!r}"
        if self.kind is bool:
            return self._truth(raw, origin)
        if isinstance(raw, bool) or (self.kind is not str and isinstance(raw, str) and not raw.strip()):
            raise ConfigError(f"{origin}: {self.name} must be {_KINDS[self.kind]}{shown}")
        try:
            value = self.kind(raw)
        except (TypeError, ValueError):
            raise ConfigError(f"{origin}: {self.name} must be {_KINDS[self.kind]}{shown}") from None
        if self.choices and value not in self.choices:
            raise ConfigError(f"{origin}: {self.name} must be one of {', '.join(self.choices)}, not {raw!r}")
        if isinstance(value, (int, float)) and self._outside(value):
            raise ConfigError(f"{origin}: {self.name} must lie between {self.least} and {self.most}, not {raw!r}")
        return value

    def _truth(self, raw: Any, origin: str) -> bool:
        known = {"true": True, "false": False}.get(str(raw).strip().lower())
        if known is None:
            raise ConfigError(f"{origin}: {self.name} must be true or false, not {raw!r}")
        return known

    def _outside(self, value: float) -> bool:
        return (self.least is not None and value < self.least) or (self.most is not None and value > self.most)


_KINDS: Final = {
    int: "a whole number", float: "a number", str: "text",
    SecretUrl: "an address such as scheme://user:password@host:port, with what is special in a password percent-encoded",
    Servers: "host:port, several with commas, without user and password",
}  # fmt: skip
