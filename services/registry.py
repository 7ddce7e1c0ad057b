"""Every service, one entry each: what it works off, folds, looks up and needs.

From here come its process (``python -m services NAME``), its command, its sandbox, ``proact grid --service``, what the monitor and the checker ask
after, the sessions of demo and measurements, and the workers that chaos hurts; the containers and what Prometheus scrapes are held to it. What a
service is made of is named as ``module:name`` and imported by whoever needs it: this module is imported by commands that only show their help.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.core.layouts import (
    ACCOUNT_LAYOUT,
    ARCHIVE_LAYOUT,
    AUDIT_LAYOUT,
    CARD_LAYOUT,
    CUSTOMER_LAYOUT,
    LABEL_LAYOUT,
    REASSESSMENT_LAYOUT,
    TERMINAL_LAYOUT,
)

if TYPE_CHECKING:
    from services.runtime.settings import Settings

LAKE_PREFIX: Final = "lake-"
"""What the names of the archivers' logs begin with."""
AUDITOR_PREFIX: Final = "auditor-"
"""What the names of the auditors' logs begin with."""
METRICS_PORT: Final = 9108
"""On which the container of every service serves /metrics, /livez and /readyz."""
_DECIDING: Final = ("lookup_timeout_ms", "model_path", "models_path", "safe_challenge_from", "safe_review_from")
_TERMINALS: Final = "terminal-events"
_REFERENCE: Final = ("accounts", "customers")


@dataclass(frozen=True, slots=True)
class LogSpec:
    """A topic that a service works off, with one worker."""

    topic: str
    layout: int
    """The version of the profiles that are folded from it; see :class:`services.worker.processor.Processor`."""
    processor: str
    """Makes, without arguments, what folds it: to fold takes no model."""
    grid_prefix: str = ""
    """Before the topic's name in the grid where another service works the same topic off, too: so the two are kept apart."""

    @property
    def name(self) -> str:
        """By what the grid knows its partitions; the topic's own name for the service that keeps its profiles."""
        return self.grid_prefix + self.topic


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service. Names of the form ``module:name`` are for :func:`load`.

    With one log ``proact grid --service`` knows its partitions by the service's name, with several by those of the logs.
    """

    name: str
    """Of its process, its command, its container and its Prometheus job."""
    summary: str
    """A line of ``proact --help``."""
    purpose: str
    """The help of its command."""
    holds: str
    """What its partitions hold, as the help of ``proact grid`` says it."""
    logs: tuple[LogSpec, ...]
    group_setting: str | None = None
    """The setting that names its consumer group; without one the group is ``proact-NAME``."""
    keeps_profiles: bool = True
    """Without profiles a record is worked off when it is committed."""
    looks_up: tuple[str, ...] = ()
    """The topics of other services whose profiles it reads."""
    settings: tuple[str, ...] = ()
    """Its own settings, beside those of every worker and its group."""
    example: str = ""
    """Arguments of its command, for the help."""
    conditions: tuple[str, ...] = ()
    """What must hold for it to be ready, beside :data:`services.runtime.health.CONDITIONS`."""
    metrics: str = "services.runtime.catalogue:WORKER_METRICS"
    build: str | None = None
    """Makes the parts of a worker where its processor alone will not do: (log, settings, clock, metrics, health) ->
    :class:`services.worker.assembling.Parts`. May raise ConfigError."""
    check: str | None = None
    """Tells a person at once of settings that the service could make do with: (settings), raises ConfigError."""
    warm_up: str | None = None
    """Compiles the kernels that its processor needs: (processor)."""
    sandbox: str | None = None
    """Makes the processor in which records are tried that may have killed a worker: (settings); without it the first log's is used."""
    port: int = METRICS_PORT

    def __post_init__(self) -> None:
        assert self.logs, "a service works something off"

    def group_id(self, settings: Settings, topic: str) -> str:
        """Return the consumer group that works off one of its topics: two topics in one group would rebalance each other."""
        named = f"proact-{self.name}" if self.group_setting is None else str(getattr(settings, self.group_setting))
        return named if len(self.logs) == 1 else f"{named}-{topic}"


SERVICES: Final = (
    ServiceSpec(
        name="scorer",
        summary="Run scorers: decide on transactions.",
        purpose="Run scorers until SIGTERM or Ctrl-C: one process each, under one supervisor that starts a dead one again.",
        holds="profiles of cards",
        logs=(LogSpec("card-transactions", CARD_LAYOUT, "services.scorer.parts:folding_processor"),),
        group_setting="group_id",
        looks_up=(_TERMINALS, *_REFERENCE),
        settings=(*_DECIDING, "without_profiles", "control_share", "control_amount_max", "control_key"),
        example="--workers 2 --metrics-port 9108",
        conditions=("model_verified",),
        metrics="services.runtime.catalogue:SCORER_METRICS",
        build="services.scorer.parts:build",
        check="services.decision.model_loader:check_model",
        warm_up="services.scorer.parts:warm_up",
        sandbox="services.scorer.parts:sandbox_processor",
    ),
    ServiceSpec(
        name="profiler",
        summary="Run profilers: remember what happens at terminals.",
        purpose="Run profilers until SIGTERM or Ctrl-C: they fold transactions and labels into what is known of each terminal.",
        holds="profiles of terminals",
        logs=(LogSpec(_TERMINALS, TERMINAL_LAYOUT, "services.profiler.processor:ProfilerProcessor"),),
        group_setting="profiler_group_id",
        example="--metrics-port 9118",
        metrics="services.runtime.catalogue:PROFILER_METRICS",
        warm_up="services.profiler.warm_up:warm_up",
    ),
    ServiceSpec(
        name="router",
        summary="Run routers: bring fraud labels to their terminals.",
        purpose="Run routers until SIGTERM or Ctrl-C: they put fraud labels into the log of their terminals.",
        holds="none, but they can halt",
        logs=(LogSpec("fraud-labels", LABEL_LAYOUT, "services.router.processor:RouterProcessor"),),
        group_setting="router_group_id",
        keeps_profiles=False,
        example="--metrics-port 9128",
    ),
    ServiceSpec(
        name="reference",
        summary="Run reference services: keep what is known of accounts and customers.",
        purpose="Run reference services until SIGTERM or Ctrl-C: they keep in the grid what is known of accounts and customers.",
        holds="what is known of accounts or customers",
        logs=(
            LogSpec("accounts", ACCOUNT_LAYOUT, "services.reference.processor:of_accounts"),
            LogSpec("customers", CUSTOMER_LAYOUT, "services.reference.processor:of_customers"),
        ),
        group_setting="reference_group_id",
        example="--metrics-port 9138",
    ),
    ServiceSpec(
        name="reassessor",
        summary="Run reassessors: say what would have been decided where something was missing.",
        purpose="Run reassessors until SIGTERM or Ctrl-C: they say what would have been decided where something was missing.",
        holds="none, but they can halt",
        logs=(
            LogSpec("card-reassessment-requests", REASSESSMENT_LAYOUT, "services.reassessor.parts:folding_processor"),
        ),
        group_setting="reassessor_group_id",
        keeps_profiles=False,
        looks_up=("card-transactions", _TERMINALS, *_REFERENCE),
        settings=_DECIDING,
        example="--metrics-port 9148",
        conditions=("model_verified",),
        metrics="services.runtime.catalogue:REASSESSOR_METRICS",
        build="services.reassessor.parts:build",
        check="services.decision.model_loader:check_model",
        warm_up="services.reassessor.parts:warm_up",
    ),
    ServiceSpec(
        name="archiver",
        summary="Run archivers: keep the topics as tables of the lake.",
        purpose="Run archivers until SIGTERM or Ctrl-C: they keep what happened as Delta Lake tables, which other tools read.",
        holds="none, but they can halt",
        logs=tuple(
            LogSpec(topic, ARCHIVE_LAYOUT, f"services.archiver.processor:of_{topic.replace('-', '_')}", LAKE_PREFIX)
            for topic in (
                "card-transactions",
                "card-decisions",
                "fraud-labels",
                "card-reassessments",
                "rule-sets",
                "model-releases",
                "shadow-decisions",
            )
        ),
        group_setting="archiver_group_id",
        keeps_profiles=False,
        settings=("lake_url", "lake_interval_ms"),
        example="--lake-url .proact/lake --metrics-port 9158",
        conditions=("lake_reachable",),
        metrics="services.runtime.catalogue:ARCHIVER_METRICS",
        build="services.archiver.parts:build",
        warm_up="services.archiver.parts:warm_up",
    ),
    ServiceSpec(
        name="auditor",
        summary="Run auditors: make the decisions on a share of the cards again.",
        purpose="Run auditors until SIGTERM or Ctrl-C: for a share of the cards they make every decision again, in plain Python, and compare.",
        holds="what is known of audited cards",
        logs=(
            LogSpec("card-transactions", AUDIT_LAYOUT, "services.auditor.processor:of_transactions", AUDITOR_PREFIX),
            LogSpec("card-decisions", AUDIT_LAYOUT, "services.auditor.processor:of_decisions", AUDITOR_PREFIX),
            LogSpec("audit-events", AUDIT_LAYOUT, "services.auditor.processor:AuditProcessor", AUDITOR_PREFIX),
        ),
        group_setting="auditor_group_id",
        settings=("audit_share", "model_path", "models_path", "safe_challenge_from", "safe_review_from"),
        example="--audit-share 0.05 --metrics-port 9168",
        metrics="services.runtime.catalogue:AUDITOR_METRICS",
        build="services.auditor.parts:build",
        warm_up="services.auditor.parts:warm_up",
    ),
)
"""In the order of the command line's help."""


def _by_name() -> dict[str, ServiceSpec]:
    assert len({spec.name for spec in SERVICES}) == len(SERVICES), "two services have one name"
    return {spec.name: spec for spec in SERVICES}


def _by_log() -> dict[str, ServiceSpec]:
    found = {log.name: spec for spec in SERVICES for log in spec.logs}
    assert len(found) == sum(len(spec.logs) for spec in SERVICES), "the grid would mix two services' partitions up"
    return found


BY_NAME: Final[Mapping[str, ServiceSpec]] = _by_name()
BY_LOG: Final[Mapping[str, ServiceSpec]] = _by_log()
LOGS: Final[Mapping[str, LogSpec]] = {log.name: log for spec in SERVICES for log in spec.logs}
"""By the names that the grid knows."""
BY_TOPIC: Final[Mapping[str, LogSpec]] = {log.topic: log for log in LOGS.values() if not log.grid_prefix}
"""The logs of the services that answer a topic's records, or keep profiles of them; who only copies them elsewhere is left out."""


def service_name(log: str) -> str:
    """Return what ``proact grid --service`` calls a log."""
    spec = BY_LOG[log]
    return spec.name if len(spec.logs) == 1 else log


LOG_OF: Final[Mapping[str, str]] = {service_name(log): log for log in LOGS}
"""The log whose partitions ``proact grid --service`` means by a name."""
DEFAULT_LOG: Final = next(iter(LOG_OF))
"""The name that it means where none is given."""


def group_of(settings: Settings, log: str) -> str:
    """Return the consumer group that works a log off."""
    return BY_LOG[log].group_id(settings, LOGS[log].topic)


def readers_of(topic: str) -> tuple[str, ...]:
    """Return the services that decide by the profiles of a topic."""
    return tuple(spec.name for spec in SERVICES if topic in spec.looks_up)


def process_of(name: str) -> tuple[str, ...]:
    """Return what starts a service, as arguments of ``python -m``."""
    return "services", BY_NAME[name].name


def sandbox_of(name: str) -> tuple[str, ...]:
    """Return what starts a service's sandbox, as arguments of ``python -m``."""
    return "services.sandbox", name


def load(path: str) -> Any:
    """Import what a spec names as ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
