"""Every setting of Proact, declared once: flags, ``PROACT_*`` variables, ``proact.toml`` and the README come from here.

A value is taken from the flag, else from the variable, else from ``proact.toml`` in the working folder (or the file that
``PROACT_CONFIG`` names), else it is the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.runtime.secrets import SecretUrl, Servers


class ConfigError(Exception):
    """A setting is unknown, of the wrong type or out of range: a user's mistake, said in one line."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name is the flag ``--my-name``, the variable ``PROACT_MY_NAME`` and the key ``my_name``."""

    name: str
    kind: type[int | float | str | SecretUrl]
    default: int | float | str | SecretUrl
    meaning: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

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
        return self.kind.__name__.upper() if self.kind in (int, float) else "STR"

    def parse(self, raw: Any, origin: str) -> Any:
        """Return the checked value of ``raw``, which came from ``origin``. Raises ConfigError, which shows no secret."""
        shown = "" if self.kind in (SecretUrl, Servers) else f", not {raw!r}"
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

    def _outside(self, value: float) -> bool:
        return (self.least is not None and value < self.least) or (self.most is not None and value > self.most)


_KINDS: Final = {
    int: "a whole number", float: "a number", str: "text",
    SecretUrl: "an address such as scheme://user:password@host:port, with what is special in a password percent-encoded",
    Servers: "host:port, several with commas, without user and password",
}  # fmt: skip

SETTINGS: Final = {
    setting.name: setting
    for setting in (
        Setting("kafka_bootstrap_servers", Servers, "127.0.0.1:9092", "the Kafka to use: host:port, several with commas"),
        Setting("redis_url", SecretUrl, SecretUrl("redis://127.0.0.1:6379/0"), "the Redis that holds the grid"),
        Setting("group_id", str, "proact-scorer", "the consumer group of the scorers"),
        Setting("profiler_group_id", str, "proact-profiler", "the consumer group of the profilers"),
        Setting("router_group_id", str, "proact-router", "the consumer group of the routers"),
        Setting("reference_group_id", str, "proact-reference", "the consumer groups of the reference services: this and -accounts or -customers"),
        Setting("reassessor_group_id", str, "proact-reassessor", "the consumer group of the reassessors"),
        Setting("guarantee", str, "exactly_once", "exactly_once, or at_least_once for the lowest latency: a crash may repeat decisions, equally", choices=("exactly_once", "at_least_once")),
        Setting("transactional_id", str, "", "the name of a scorer's producers, of its own; empty: from group, host and metrics port"),
        Setting("breaker_share", float, 0.5, "a partition stops when more of its records than this share are refused within 10 s (500 at least)", 0.0, 1.0),
        Setting("workers", int, 1, "scorer processes under one supervisor", 1, 64),
        Setting("batch_records_max", int, 16_384, "the most records of one micro-batch; light load makes small ones", 1, 50_000),
        Setting("poll_timeout_ms", int, 100, "how long to wait for a first record before looking around", 1, 5_000),
        Setting("session_timeout_ms", int, 6_000, "after how long a dead worker's partitions move (Kafka's limits apply)", 6_000, 300_000),
        Setting("near_cache_mb", int, 256, "memory for the worker's own copy of profiles, in MiB", 0, 65_536),
        Setting("copies_mb", int, 64, "memory for the worker's copies of what other services announce, in MiB", 0, 65_536),
        Setting("save_interval_ms", int, 1_000, "how long a card's changed profile may wait before it is written to Redis, once for all that changed it meanwhile; a take-over folds what was not written", 0, 60_000),
        Setting("save_records_max", int, 200_000, "after how many folded records profiles are written, whatever the time", 1, 10_000_000),
        Setting("grid_timeout_ms", int, 2_000, "how long Redis may take to answer before it counts as away", 10, 60_000),
        Setting("lookup_timeout_ms", int, 50, "how long a decision waits for what other services know; then it is made without", 1, 60_000),
        Setting("without_profiles", str, "wait", "what is done while the cards' own profiles cannot be read: wait, or decide on a lower rung of the ladder", choices=("wait", "ladder")),
        Setting("safe_challenge_from", float, 30.0, "when neither model nor rule can speak: the amount, in major units, from which a transaction is challenged", 0, 1e12),
        Setting("safe_review_from", float, 300.0, "the same for review", 0, 1e12),
        Setting("model_path", str, "", "the folder of the model to score with; empty: the live one, which models/live.json names"),
        Setting("prometheus_url", SecretUrl, SecretUrl("http://127.0.0.1:9090"), "the Prometheus that `proact report` asks"),
        Setting("metrics_host", str, "127.0.0.1", "the address that /metrics, /livez and /readyz listen on"),
        Setting("metrics_port", int, 9108, "their port; worker i of several uses this + i", 1, 65_535),
        Setting("log_format", str, "auto", "text, json, or auto: text on a terminal, else json", choices=("auto", "text", "json")),
        Setting("data_folder", str, ".proact", "where the embedded Kafka and Redis keep their data and logs"),
        Setting("kafka_port", int, 9092, "the embedded Kafka's port", 1, 65_535),
        Setting("redis_port", int, 6379, "the embedded Redis's port", 1, 65_535),
        Setting("partitions", int, 6, "partitions of the topics that cards', accounts' and customers' profiles are folded from, and of labels; fixed once they exist", 1, 1_000),
        Setting("terminal_partitions", int, 2, "partitions of the topic that terminals' profiles are folded from: how many profilers can share the work; each costs an atomic commit a request; fixed once it exists", 1, 1_000),
        Setting("decision_partitions", int, 2, "partitions of the topics of decisions, alerts and reassessments; each costs an atomic commit a request; fixed once they exist", 1, 1_000),
    )
}  # fmt: skip

TOPIC_SCALES: Final = ("partitions", "terminal_partitions", "decision_partitions")
"""The settings that numbers of partitions follow, as ``schemas/*/topic.yaml`` name them."""


class Settings:
    """The resolved settings, as attributes; an object that exists holds only checked values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        assert values.keys() == SETTINGS.keys()
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def with_values(self, **changes: Any) -> Settings:
        """Return a copy with other values, checked as flags are."""
        checked = {name: SETTINGS[name].parse(value, SETTINGS[name].flag) for name, value in changes.items()}
        return Settings(self._values | checked)

    @property
    def topic_counts(self) -> dict[str, int]:
        """Numbers of partitions by the setting that scales topics, as ``schemas/*/topic.yaml`` name it."""
        return {name: self._values[name] for name in TOPIC_SCALES}

    def reference_group(self, topic: str) -> str:
        """Return the consumer group of a reference topic: two topics in one group would rebalance each other."""
        return f"{self.reference_group_id}-{topic}"

    def environment(self) -> dict[str, str]:
        """Return the settings as variables, for a child process: secrets too, which is why none goes by its command line."""
        return {
            SETTINGS[name].variable: value.reveal() if isinstance(value, SecretUrl) else str(value)
            for name, value in self._values.items()
        }


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"PROACT_CONFIG names {path}, which does not exist") from None
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    unknown = table.keys() - SETTINGS.keys()
    if unknown:
        raise ConfigError(f"{path}: unknown setting {min(unknown)!r}")
    return table


def resolve_settings(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Resolve every setting.

    Args:
        flags: what the command line gave; None stands for a flag that was not given.
        environment: the variables; those of the process if None.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or the file holds an unknown key.
    """
    variables = os.environ if environment is None else environment
    named = variables.get("PROACT_CONFIG")
    path = Path(named or "proact.toml")
    table = _read_file(path, required=named is not None)
    values = {}
    for name, setting in SETTINGS.items():
        sources: tuple[tuple[Any, Callable[[], str]], ...] = (
            (flags.get(name), lambda s=setting: s.flag),  # type: ignore[misc]
            (variables.get(setting.variable), lambda s=setting: s.variable),  # type: ignore[misc]
            (table.get(name), lambda: str(path)),
        )
        raw, origin = next(
            ((raw, origin()) for raw, origin in sources if raw is not None), (setting.default, "default")
        )
        values[name] = setting.parse(raw, origin)
    return Settings(values)


def settings_table() -> str:
    """Return the table of all settings, in Markdown, as the README holds it."""
    rows = ["| setting | flag | variable | default | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{s.name}` | `{s.flag}` | `{s.variable}` | {f'`{s.default}`' if s.default != '' else 'empty'} | {s.meaning} |"
        for s in SETTINGS.values()
    ]
    return "\n".join(rows)
