"""Every setting of Proact, declared once: flags, ``PROACT_*`` variables, ``proact.toml`` and docs/settings.md come from here.

A value is taken from the flag, else from the variable, else from the file that the variable with ``_FILE`` names (secrets only), else from
``proact.toml`` in the working folder (or the file that ``PROACT_CONFIG`` names), else it is the default. What the clients of Kafka and Redis can be
reported beside, :mod:`.client_options` reads.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.runtime.client_options import FAMILIES, FILE, KAFKA, REDIS, Given, given_properties, variable_or_file
from services.runtime.setting import ConfigError as ConfigError  # noqa: PLC0414 - everybody imports it from here
from services.runtime.setting import Setting, declare
from services.secrets import HiddenValues, SecretUrl, Servers

if TYPE_CHECKING:
    from services.grid.connection import GridConnection
    from services.streams.connection import KafkaConnection


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings; an object that exists holds only checked values."""

    # fmt: off
    kafka_bootstrap_servers: Servers = declare(Servers("127.0.0.1:9092"), "the Kafka to use: host:port, several with commas")
    redis_url: SecretUrl = declare(SecretUrl("redis://127.0.0.1:6379/0"), "the Redis that holds the grid")
    group_id: str = declare("proact-scorer", "the consumer group of the scorers")
    profiler_group_id: str = declare("proact-profiler", "the consumer group of the profilers")
    router_group_id: str = declare("proact-router", "the consumer group of the routers")
    reference_group_id: str = declare("proact-reference", "the consumer groups of the reference services: this and -accounts or -customers")
    reassessor_group_id: str = declare("proact-reassessor", "the consumer group of the reassessors")
    guarantee: str = declare("exactly_once", "exactly_once, or at_least_once for the lowest latency: a crash may repeat decisions, equally", choices=("exactly_once", "at_least_once"))
    transactional_id: str = declare("", "the name of a scorer's producers, of its own; empty: from group, host and metrics port")
    breaker_share: float = declare(0.5, "a partition stops when more of its records than this share are refused within 10 s (500 at least)", 0.0, 1.0)
    workers: int = declare(1, "scorer processes under one supervisor", 1, 64)
    batch_records_max: int = declare(16_384, "the most records of one micro-batch; light load makes small ones", 1, 50_000)
    poll_timeout_ms: int = declare(100, "how long to wait for a first record before looking around", 1, 5_000)
    session_timeout_ms: int = declare(6_000, "after how long a dead worker's partitions move (Kafka's limits apply)", 6_000, 300_000)
    near_cache_mb: int = declare(256, "memory for the worker's own copy of profiles, in MiB", 0, 65_536)
    foreign_cache_mb: int = declare(64, "memory for the worker's copies of what other services announce, in MiB", 0, 65_536)
    save_interval_ms: int = declare(1_000, "how long a card's changed profile may wait before it is written to Redis, once for all that changed it meanwhile; a take-over folds what was not written", 0, 60_000)
    save_records_max: int = declare(200_000, "after how many folded records profiles are written, whatever the time", 1, 10_000_000)
    grid_timeout_ms: int = declare(2_000, "how long Redis may take to answer before it counts as away", 10, 60_000)
    lookup_timeout_ms: int = declare(50, "how long a decision waits for what other services know; then it is made without", 1, 60_000)
    without_profiles: str = declare("wait", "what is done while the cards' own profiles cannot be read: wait, or decide on a lower fallback tier", choices=("wait", "fallback"))
    safe_challenge_from: float = declare(30.0, "when neither model nor rule can speak: the amount, in major units, from which a transaction is challenged", 0, 1e12)
    safe_review_from: float = declare(300.0, "the same for review", 0, 1e12)
    model_path: str = declare("", "the folder of the model to score with; empty: the live one, which models/live.json names")
    control_share: float = declare(0.0, "of what model or anomaly score alone would stop, how much is let through, to learn what becomes of it", 0.0, 1.0)
    control_amount_max: float = declare(100.0, "what costs more, in major units, is never let through for the control group", 0, 1e12)
    control_key: str = declare("proact", "a word that says which transactions the control group has; another one, another group")
    models_path: str = declare("", "the folder of all models, in which the files of announced releases lie; empty: the one that travels with the code")
    four_eyes: bool = declare(True, "whether a model or a rule set goes live only when another person approves it")
    evaluator_interval_s: int = declare(300, "how often the evaluator looks at the lake, in seconds", 1, 86_400)
    prometheus_url: SecretUrl = declare(SecretUrl("http://127.0.0.1:9090"), "the Prometheus that `proact report` asks")
    metrics_host: str = declare("127.0.0.1", "the address that /metrics, /livez and /readyz listen on")
    metrics_port: int = declare(9108, "their port; worker i of several uses this + i", 1, 65_535)
    log_format: str = declare("auto", "text, json, or auto: text on a terminal, else json", choices=("auto", "text", "json"))
    archiver_group_id: str = declare("proact-archiver", "the consumer groups of the archivers: this, - and the topic")
    lake_url: str = declare(".proact/lake", "where the lake's tables are: a folder, or s3://BUCKET/FOLDER with the AWS_ variables of its library")
    lake_interval_ms: int = declare(10_000, "how long a record may wait before it is written to its table, with all that came meanwhile", 100, 60_000)
    auditor_group_id: str = declare("proact-auditor", "the consumer groups of the auditors: this, - and the topic")
    audit_share: float = declare(0.01, "the share of all cards, chosen by a hash of the card, whose decisions the auditor makes again; another share begins their past anew", 0.0, 1.0)
    data_folder: str = declare(".proact", "where the embedded Kafka and Redis keep their data and logs")
    kafka_port: int = declare(9092, "the embedded Kafka's port", 1, 65_535)
    redis_port: int = declare(6379, "the embedded Redis's port", 1, 65_535)
    partitions: int = declare(6, "partitions of the topics that cards', accounts' and customers' profiles are folded from, and of labels; fixed once they exist", 1, 1_000)
    terminal_partitions: int = declare(2, "partitions of the topic that terminals' profiles are folded from: how many profilers can share the work; each costs an atomic commit a request; fixed once it exists", 1, 1_000)
    decision_partitions: int = declare(2, "partitions of the topics of decisions, alerts and reassessments; each costs an atomic commit a request; fixed once they exist", 1, 1_000)

    # fmt: on
    kafka_properties: HiddenValues = field(default_factory=HiddenValues)
    """What was said of Kafka's clients; an empty value says that the property is not set."""
    redis_options: HiddenValues = field(default_factory=HiddenValues)
    """The same of Redis's clients."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        for setting in SETTINGS.values():
            value = getattr(self, setting.name)
            assert isinstance(value, setting.kind), setting.name
            setting.parse(value, setting.name)

    @property
    def kafka(self) -> KafkaConnection:
        """Where Kafka is and how clients are let in."""
        from services.streams.connection import KafkaConnection  # noqa: PLC0415 - a command's help must not take so long

        return KafkaConnection(self.kafka_bootstrap_servers, _set_ones(self.kafka_properties))

    @property
    def grid(self) -> GridConnection:
        """Where the grid is and how clients are let in."""
        from services.grid.connection import GridConnection  # noqa: PLC0415 - the same

        return GridConnection(self.redis_url, _set_ones(self.redis_options))

    def connected_to(self, kafka: KafkaConnection, grid: GridConnection) -> Settings:
        """Return a copy with another Kafka and Redis, of whose clients nothing holds that was said of these."""
        return replace(
            self,
            kafka_bootstrap_servers=Servers(kafka.bootstrap_servers),
            kafka_properties=HiddenValues(dict.fromkeys(self.kafka_properties, "") | dict(kafka.properties)),
            redis_url=grid.url,
            redis_options=HiddenValues(dict.fromkeys(self.redis_options, "") | dict(grid.options)),
        )

    def with_values(self, **changes: Any) -> Settings:
        """Return a copy with other values, checked as flags are."""
        return replace(self, **{n: SETTINGS[n].parse(value, SETTINGS[n].flag) for n, value in changes.items()})

    @property
    def topic_counts(self) -> dict[str, int]:
        """Numbers of partitions by the setting that scales topics, as ``schemas/*/topic.yaml`` name it."""
        return {name: getattr(self, name) for name in TOPIC_SCALES}

    def reference_group(self, topic: str) -> str:
        """Return the consumer group of a reference topic: two topics in one group would rebalance each other."""
        return f"{self.reference_group_id}-{topic}"

    def environment(self) -> dict[str, str]:
        """Return the settings as variables, for a child process: secrets too, which is why none goes by its command line.

        A child need not read what this process has read: no file of a secret, no table. Its own variables beat both.
        """
        own: dict[str, str] = {}
        for setting in SETTINGS.values():
            value = getattr(self, setting.name)
            own[setting.variable] = value.reveal() if isinstance(value, SecretUrl) else str(value)
            if setting.secret:
                own[setting.variable + FILE] = ""
        for family, values in ((KAFKA, self.kafka_properties), (REDIS, self.redis_options)):
            for name, value in values.items():
                own |= {family.variable_of(name): value, family.variable_of(name) + FILE: ""}
        return own


def _set_ones(values: HiddenValues) -> HiddenValues:
    return HiddenValues({name: value for name, value in values.items() if value})


SETTINGS: Final = {one.name: Setting.of(one) for one in fields(Settings) if "meaning" in one.metadata}
TOPIC_SCALES: Final = ("partitions", "terminal_partitions", "decision_partitions")
"""The settings that numbers of partitions follow, as ``schemas/*/topic.yaml`` name them."""
_DECLARED: Final = frozenset(
    variable for s in SETTINGS.values() for variable in (s.variable, *([s.variable + FILE] if s.secret else []))
)


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"PROACT_CONFIG names {path}, which does not exist") from None
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    unknown = table.keys() - SETTINGS.keys() - {family.table for family in FAMILIES}
    if unknown:
        raise ConfigError(f"{path}: unknown setting {min(unknown)!r}")
    return table


def resolve_settings(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Resolve every setting.

    Args:
        flags: what the command line gave; None stands for a flag that was not given.
        environment: the variables; those of the process if None.

    Raises:
        ConfigError: a value is of the wrong type or out of range, the file holds an unknown key, or a client's property is unknown or is not to be set.
    """
    variables = os.environ if environment is None else environment
    named = variables.get("PROACT_CONFIG")
    path = Path(named or "proact.toml")
    table = _read_file(path, required=named is not None)
    values = {name: _resolve(setting, flags, variables, (table, path)) for name, setting in SETTINGS.items()}
    kafka, redis = (
        given_properties(family, _DECLARED, variables, (table.get(family.table, {}), str(path))) for family in FAMILIES
    )
    settings = Settings(**values, kafka_properties=HiddenValues(kafka.values), redis_options=HiddenValues(redis.values))
    _check_clients(settings, kafka, redis)
    return settings


def _resolve(
    setting: Setting, flags: Mapping[str, Any], variables: Mapping[str, str], table: tuple[Mapping[str, Any], Path]
) -> Any:
    """Return a setting's checked value. Raises ConfigError."""
    if flags.get(setting.name) is not None:
        return setting.parse(flags[setting.name], setting.flag)
    if setting.secret:
        said = variable_or_file(setting.variable, variables)
    else:
        said = None if (raw := variables.get(setting.variable)) is None else (raw, setting.variable)
    if said is not None:
        return setting.parse(*said)
    if table[0].get(setting.name) is not None:
        return setting.parse(table[0][setting.name], str(table[1]))
    return setting.default


def _check_clients(settings: Settings, kafka: Given, redis: Given) -> None:
    """Let the clients check what they are given, and say where that comes from which they refuse. Raises ConfigError."""
    given = kafka
    try:
        if kafka.values:
            settings.kafka.check()
        given = redis
        if redis.values or "?" in settings.redis_url.reveal():
            assert settings.grid
    except ValueError as error:
        raise ConfigError(f"{given.origin(str(error)) or 'redis_url'}: {error}") from None


def settings_table() -> str:
    """Return the table of all settings, in Markdown, as docs/settings.md holds it."""
    rows = ["| setting | flag | variable | default | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{s.name}` | `{s.flag}` | `{s.variable}` | {f'`{s.default}`' if s.default != '' else 'empty'} | {s.meaning} |"
        for s in SETTINGS.values()
    ]
    for family, client in (
        (KAFKA, "Kafka's clients, by librdkafka's names"),
        (REDIS, "Redis's clients, by redis-py's names"),
    ):
        rows.append(
            f"| `[{family.table}]` | | `{family.prefix}<PROPERTY>` | empty | any property of {client}, but those that the guarantees rest on; "
            f"`{family.prefix}<PROPERTY>_FILE` names a file that holds the value |"
        )
    return "\n".join(rows)
