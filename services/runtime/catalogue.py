"""Every metric, declared once: the services count under these names, the tables of docs/metrics.md are made from here.

A label's values come from a closed list; where the list is not fixed in the code (partitions, topics, models) it is as
short as the cluster is small. No card, merchant, rule or error text is ever a label. A counter and a histogram whose
labels are closed have all their series from the start, at 0: an increase from nothing to one would not be seen.
"""

from __future__ import annotations

from typing import Final

from services.core.card.windows import DEGRADATIONS
from services.core.classes import TransactionClass
from services.core.fallback import FallbackTier
from services.core.policy import Action, AlertKind, DecisionSource, Severity
from services.core.reference.eligibility import DeclineReason
from services.core.rules.engine import EFFECTS
from services.core.validation import Reject
from services.runtime.audit_metrics import AUDIT_LEFT_OUT as AUDIT_LEFT_OUT  # noqa: PLC0414
from services.runtime.audit_metrics import AUDITED as AUDITED  # noqa: PLC0414
from services.runtime.audit_metrics import MISMATCH as MISMATCH  # noqa: PLC0414
from services.runtime.audit_metrics import PARITY_MISMATCHES as PARITY_MISMATCHES  # noqa: PLC0414
from services.runtime.metric import COUNTER as COUNTER  # noqa: PLC0414 - who counts imports them from here
from services.runtime.metric import GAUGE as GAUGE  # noqa: PLC0414
from services.runtime.metric import HISTOGRAM as HISTOGRAM  # noqa: PLC0414
from services.runtime.metric import Label as Label  # noqa: PLC0414
from services.runtime.metric import Metric as Metric  # noqa: PLC0414
from services.runtime.observing_metrics import EVALUATOR_METRICS, MONITOR_METRICS, PARTITION
from services.runtime.observing_metrics import READY as READY  # noqa: PLC0414

_SECONDS: Final = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
_AGES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0)
_LATENCIES: Final = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0,
)  # fmt: skip
"""Fine around the objective of 0.1 s, which must be one of them."""
_RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0)
_SCORES: Final = tuple(round(0.05 * i, 2) for i in range(1, 20))


ACTION: Final = Label("action", tuple(action.name for action in Action))
KIND: Final = Label("kind", tuple(kind.name for kind in AlertKind))
SEVERITY: Final = Label("severity", tuple(severity.name for severity in Severity))
REASON: Final = Label("reason", tuple(reason.name for reason in Reject if reason is not Reject.NONE))
WHAT: Final = Label("what", tuple(DEGRADATIONS))
CAUSE: Final = Label("cause", ("log", "abandoned", "fenced", "refused", "internal_error"))
ENDING: Final = Label("ending", ("refused", "not_again", "halted"))
STORE: Final = Label("store", ("kafka", "redis"))
STAGE: Final = Label("stage", ("prepare", "read", "decide", "publish", "apply"))
DECLINE_REASON: Final = Label("decline", tuple(decline.name for decline in DeclineReason))
DECISION_SOURCE: Final = Label("source", tuple(source.name for source in DecisionSource))
FALLBACK_TIER: Final = Label("fallback_tier", tuple(tier.name for tier in FallbackTier))
CLASS: Final = Label("transaction_class", tuple(one.name for one in TransactionClass))
DECIDED: Final = Label("decided", ACTION.values)
WOULD_BE: Final = Label("would_be", ACTION.values)
EFFECT: Final = Label("effect", EFFECTS)
STATE: Final = Label("state", ("running", "halted"))
HALT_CAUSE: Final = Label(
    "cause",
    (
        "TOPIC_RECREATED", "TOPIC_MISSING", "PARTITIONS_CHANGED", "OFFSETS_MISSING", "LOG_BEHIND", "RETENTION", "HISTORY_MISSING",
        "MARKED",
    ),
)  # fmt: skip
"""The names of :class:`services.worker.halting.Cause`, to which a test holds them: nothing here imports the worker."""
CURRENCY = Label("currency")
TABLE: Final = Label(
    "table",
    (
        "card-transactions",
        "card-decisions",
        "fraud-labels",
        "card-reassessments",
        "rule-sets",
        "model-releases",
        "shadow-decisions",
    ),
)
"""The topics that are archived, to which a test holds them."""

RECORDS_IN = Metric(
    "proact_records_in_total", COUNTER, "records", "worked off: decided, refused, or folded after a take-over"
)
DECISIONS = Metric("proact_decisions_total", COUNTER, "decisions", "sent, by action", (ACTION,))
AMOUNT = Metric(
    "proact_billing_amount_total",
    COUNTER,
    "major units",
    "decided on, by action and billing currency",
    (ACTION, CURRENCY),
)
DEAD_LETTERS = Metric("proact_dead_letters_total", COUNTER, "records", "refused, by reason", (REASON,))
ALERTS = Metric(
    "proact_alerts_total", COUNTER, "alerts", "sent, by what they are about and how severe", (KIND, SEVERITY)
)
REPEATS = Metric("proact_repeats_total", COUNTER, "records", "that the profile of their card or terminal held already")
DEGRADED = Metric("proact_degraded_total", COUNTER, "decisions", "that could not see everything, by what", (WHAT,))
LOOKUPS_MISSED = Metric(
    "proact_lookups_missed_total", COUNTER, "batches", "for which what other services know did not come in time"
)
BUCKETED = Metric(
    "proact_bucketed_events_total", COUNTER, "records", "folded into profiles that hold sums of their oldest ones"
)
RECOVERED = Metric("proact_recovered_records_total", COUNTER, "records", "folded without a decision after a take-over")
ABANDONED = Metric("proact_abandoned_batches_total", COUNTER, "batches", "given up and begun again, by cause", (CAUSE,))
OUTAGES = Metric("proact_outage_seconds_total", COUNTER, "s", "waited for Kafka or Redis", (STORE,))
STAGE_SECONDS = Metric(
    "proact_stage_seconds",
    HISTOGRAM,
    "s",
    "time of a batch in each stage; publishing encodes its outputs",
    (STAGE,),
    _SECONDS,
)
BATCH_RECORDS = Metric("proact_batch_records", HISTOGRAM, "records", "in a batch", (), _RECORDS)
EVENT_AGE = Metric("proact_event_age_seconds", HISTOGRAM, "s", "age of the event when it was decided on", (), _AGES)
LATENCY = Metric(
    "proact_decision_latency_seconds", HISTOGRAM, "s", "from the record's Kafka timestamp until its decision is committed",
    (), _LATENCIES,
)  # fmt: skip
SCORES = Metric("proact_scores", HISTOGRAM, "probability", "scores of all decisions", (), _SCORES)
LAG = Metric(
    "proact_lag_records",
    GAUGE,
    "records",
    "not worked off, those that wait within the worker among them, by partition",
    (PARTITION,),
)
PARTITIONS = Metric("proact_partitions", GAUGE, "partitions", "assigned to the worker, by state", (STATE,))
HALTED = Metric("proact_halted_partitions", GAUGE, "partitions", "that are left alone, by cause", (HALT_CAUSE,))
POISON_RECORDS = Metric(
    "proact_poison_records_total", COUNTER, "records", "found to kill the process that decodes them"
)
INTERNAL_ERRORS = Metric(
    "proact_internal_errors_total",
    COUNTER,
    "exceptions",
    "in preparing or deciding: a record that raises is refused, one that does not raise again goes on, and where most raise the partition is halted",
    (ENDING,),
)
PROFILES_CACHED = Metric("proact_profiles_cached", GAUGE, "profiles", "in the worker's near cache")
FOREIGN_CACHE = Metric(
    "proact_foreign_cache_profiles",
    GAUGE,
    "profiles",
    "of other services, kept by the worker while they are proved to be true",
)
MODEL_INFO = Metric("proact_model_info", GAUGE, "1", "the model that scores", (Label("model"), Label("version")))
RELEASES_BESIDE = Metric(
    "proact_releases_beside",
    GAUGE,
    "1",
    "the models that this worker runs beside the live one, by stage",
    (Label("model"), Label("version"), Label("stage", ("CANARY", "SHADOW"))),
)
RELEASES_REFUSED = Metric(
    "proact_releases_refused", GAUGE, "releases", "that are announced, and that this worker cannot use"
)
CANARY_DECISIONS = Metric(
    "proact_canary_decisions_total", COUNTER, "decisions", "made by a canary, among all others, by action", (ACTION,)
)
SHADOW_DECISIONS = Metric(
    "proact_shadow_decisions_total",
    COUNTER,
    "decisions",
    "that releases in the shadow would have made, by action",
    (ACTION,),
)
CONTROL_DECISIONS = Metric(
    "proact_control_decisions_total",
    COUNTER,
    "decisions",
    "let through for the control group, by what would have been done",
    (WOULD_BE,),
)
GUARD_WITHDRAWALS = Metric(
    "proact_guard_withdrawals_total", COUNTER, "canaries", "that were withdrawn since they did not keep to their guards"
)
DECIDED_BY = Metric("proact_decided_by_total", COUNTER, "decisions", "by whose word the action was", (DECISION_SOURCE,))
FALLBACK_TIERS = Metric(
    "proact_decisions_by_tier_total",
    COUNTER,
    "decisions",
    "by the fallback tier that they were made on",
    (FALLBACK_TIER,),
)
CLASSES = Metric(
    "proact_transaction_classes_total", COUNTER, "decisions", "by the class of their transaction", (CLASS,)
)
REASSESSED = Metric(
    "proact_reassessed_total",
    COUNTER,
    "decisions",
    "assessed again after they were made on a lower fallback tier, by what was decided and what would have been",
    (DECIDED, WOULD_BE),
)
MODEL_COMPLETE = Metric("proact_model_complete", GAUGE, "0 or 1", "whether the released model can be used, all of it")
DECLINES = Metric(
    "proact_declines_total",
    COUNTER,
    "decisions",
    "that account or customer forbade, by each decline",
    (DECLINE_REASON,),
)
RULES_HELD = Metric("proact_rules_held_total", COUNTER, "decisions", "on which a rule held, by its effect", (EFFECT,))
RULE_SET_VERSION = Metric("proact_rule_set_version", GAUGE, "version", "of the rule set that runs; 0: none")
RULE_SET_REFUSED = Metric("proact_rule_set_refused", GAUGE, "0 or 1", "whether the live rule set cannot be run")

WORKER_METRICS: Final = (
    RECORDS_IN, DEAD_LETTERS, RECOVERED, ABANDONED, OUTAGES, STAGE_SECONDS, BATCH_RECORDS, LAG, PARTITIONS, HALTED, POISON_RECORDS,
    INTERNAL_ERRORS, PROFILES_CACHED, FOREIGN_CACHE, READY,
)  # fmt: skip
"""Of every service that works a topic off."""
SCORER_METRICS: Final = (
    *WORKER_METRICS, DECISIONS, AMOUNT, ALERTS, REPEATS, DEGRADED, LOOKUPS_MISSED, EVENT_AGE, LATENCY, SCORES, MODEL_INFO,
    RELEASES_BESIDE, RELEASES_REFUSED, CANARY_DECISIONS, SHADOW_DECISIONS, CONTROL_DECISIONS, GUARD_WITHDRAWALS,
    MODEL_COMPLETE, DECIDED_BY, FALLBACK_TIERS, CLASSES, DECLINES, RULES_HELD, RULE_SET_VERSION, RULE_SET_REFUSED,
)  # fmt: skip
PROFILER_METRICS: Final = (*WORKER_METRICS, REPEATS, BUCKETED)
REASSESSOR_METRICS: Final = (
    *WORKER_METRICS, REASSESSED, LOOKUPS_MISSED, MODEL_INFO, RELEASES_BESIDE, RELEASES_REFUSED, GUARD_WITHDRAWALS, MODEL_COMPLETE, RULE_SET_VERSION, RULE_SET_REFUSED,
)  # fmt: skip

LAKE_ROWS = Metric("proact_lake_rows_total", COUNTER, "rows", "written to a table of the lake", (TABLE,))
LAKE_COMMITS = Metric(
    "proact_lake_commits_total", COUNTER, "commits", "of a table of the lake by the archiver", (TABLE,)
)
LAKE_FAILURES = Metric(
    "proact_lake_failures_total", COUNTER, "commits", "of a table that failed; they are tried again", (TABLE,)
)
LAKE_LEFT_OUT = Metric(
    "proact_lake_left_out_total",
    COUNTER,
    "records",
    "that no table can hold, because they cannot be decoded or look like a card number",
    (TABLE,),
)
LAKE_BEHIND = Metric(
    "proact_lake_behind_seconds",
    GAUGE,
    "s",
    "age of the oldest record of the last commit, by Kafka's timestamp",
    (TABLE,),
)
LAKE_WAITING = Metric("proact_lake_waiting_bytes", GAUGE, "bytes", "of rows that wait for the next commit", (TABLE,))
LAKE_WRITE_SECONDS = Metric("proact_lake_write_seconds", GAUGE, "s", "that the last commit took", (TABLE,))
ARCHIVER_METRICS: Final = (
    *WORKER_METRICS, LAKE_ROWS, LAKE_COMMITS, LAKE_FAILURES, LAKE_LEFT_OUT, LAKE_BEHIND, LAKE_WAITING, LAKE_WRITE_SECONDS,
)  # fmt: skip

AUDITOR_METRICS: Final = (*WORKER_METRICS, PARITY_MISMATCHES, AUDITED, AUDIT_LEFT_OUT)

ALL_METRICS: Final = tuple(
    dict.fromkeys(
        (
            *SCORER_METRICS,
            *PROFILER_METRICS,
            *REASSESSOR_METRICS,
            *ARCHIVER_METRICS,
            *AUDITOR_METRICS,
            *MONITOR_METRICS,
            *EVALUATOR_METRICS,
        )
    )
)


def _table(metrics: tuple[Metric, ...]) -> str:
    rows = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {m.unit} | {', '.join(m.label_names)} | {m.meaning} |" for m in metrics]
    return "\n".join(rows)


def metrics_table() -> str:
    """Return the tables of all metrics, in Markdown, as docs/metrics.md holds them."""
    parts = {
        "Of scorers, profilers, routers and reference services:": WORKER_METRICS,
        "Of a scorer:": tuple(m for m in SCORER_METRICS if m not in WORKER_METRICS),
        f"Of a profiler, beside `{REPEATS.name}`:": (BUCKETED,),
        "Of a reassessor, beside those of a scorer on models and rule sets:": (REASSESSED,),
        "Of an archiver:": tuple(m for m in ARCHIVER_METRICS if m not in WORKER_METRICS),
        "Of an auditor:": tuple(m for m in AUDITOR_METRICS if m not in WORKER_METRICS),
        f"Of the evaluator, beside `{READY.name}`:": tuple(m for m in EVALUATOR_METRICS if m is not READY),
        f"Of the monitor, beside `{READY.name}`:": tuple(m for m in MONITOR_METRICS if m is not READY),
    }
    return "\n\n".join(f"{title}\n\n{_table(metrics)}" for title, metrics in parts.items())
