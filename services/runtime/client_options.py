"""What people say of the clients beside the declared settings: ``PROACT_KAFKA_*`` and ``PROACT_REDIS_*``, ``[kafka]`` and ``[redis]``, secrets in files.

One rule: a property's variable is its name in capitals with underscores for dots. The variable beats the table. One that is empty says that the
property is not set, whatever the table has. ``..._FILE`` names a file that holds the value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.runtime.setting import ConfigError

FILE: Final = "_FILE"
_REAL_FILES: Final = (
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
)
"""Properties of Kafka's client whose own names end so: their value is a path."""


@dataclass(frozen=True, slots=True)
class Family:
    """The properties of one client: its table, the variables that begin with its prefix, and how its names are written."""

    table: str
    dotted: bool

    @property
    def prefix(self) -> str:
        """What its variables begin with."""
        return f"PROACT_{self.table.upper()}_"

    def property_of(self, variable: str) -> tuple[str, bool]:
        """Return the property that a variable stands for, and whether its value is in a file."""
        name = variable.removeprefix(self.prefix).lower()
        name = name.replace("_", ".") if self.dotted else name
        ending = ".file" if self.dotted else "_file"
        in_file = name.endswith(ending) and name not in _REAL_FILES
        return name.removesuffix(ending) if in_file else name, in_file

    def variable_of(self, name: str) -> str:
        """Return the variable of a property."""
        return self.prefix + name.upper().replace(".", "_")


KAFKA: Final = Family("kafka", dotted=True)
REDIS: Final = Family("redis", dotted=False)
FAMILIES: Final = (KAFKA, REDIS)


@dataclass(frozen=True, slots=True)
class Given:
    """What was said of one client: its properties as text, and where each was said."""

    values: Mapping[str, str]
    origins: Mapping[str, str]

    def origin(self, message: str) -> str:
        """Return where the property was said that a message names; all that may be meant where it names none."""
        named = [name for name in self.origins if name in message]
        return self.origins[max(named, key=len)] if named else " and ".join(sorted(set(self.origins.values())))


def read_secret_file(variable: str, path: str) -> str:
    """Return what a file holds, without the line's end. Raises ConfigError, which shows nothing of it."""
    try:
        text = Path(path).read_text().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{variable}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: {path} holds no text") from None
    if not text:
        raise ConfigError(f"{variable}: {path} is empty")
    return text


def variable_or_file(variable: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the value of a variable whose value may be in a file, and which variable said it. Raises ConfigError where both do."""
    path = environment.get(variable + FILE)
    if not path:
        value = environment.get(variable)
        return None if value is None else (value, variable)
    if variable in environment:
        raise ConfigError(f"{variable} and {variable + FILE} are both set: leave one out")
    return read_secret_file(variable + FILE, path), variable + FILE


def given_properties(
    family: Family, declared: Collection[str], environment: Mapping[str, str], table: tuple[object, str]
) -> Given:
    """Return what is said of a client.

    Args:
        family: which one.
        declared: the variables of the declared settings, which are no properties.
        environment: the variables.
        table: the family's table of the file, and the file's name.

    Raises:
        ConfigError: a value is no text, number or truth, is said twice, or its file cannot be read.
    """
    flat = _flattened(table[0], f"{table[1]}: [{family.table}]")
    values, origins = dict(flat), dict.fromkeys(flat, f"{table[1]}: [{family.table}]")
    seen: dict[str, str] = {}
    for variable in sorted(environment):
        if not variable.startswith(family.prefix) or variable in declared:
            continue
        name, in_file = family.property_of(variable)
        said = environment[variable]
        if in_file and not said:
            continue
        if name in seen:
            raise ConfigError(f"{seen[name]} and {variable} are both set: leave one out")
        seen[name] = variable
        values[name], origins[name] = read_secret_file(variable, said) if in_file else said, variable
    return Given(values, origins)


def _flattened(table: Any, where: str, before: str = "") -> dict[str, str]:
    """Return a table's values as text by dotted names: TOML reads ``security.protocol`` as a table in a table."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            flat |= _flattened(value, where, f"{name}.")
        elif isinstance(value, bool):
            flat[name] = str(value).lower()
        elif isinstance(value, (str, int, float)):
            flat[name] = str(value)
        else:
            raise ConfigError(f"{where}: {name} must be text, a number, true or false")
    return flat
