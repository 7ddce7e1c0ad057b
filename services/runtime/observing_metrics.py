"""The metrics of the processes that look at the others: the monitor, and the evaluator."""

from __future__ import annotations

from typing import Final

from services.core.features import FEATURE_NAMES
from services.runtime.metric import COUNTER, GAUGE, Label, Metric

PARTITION, TOPIC = Label("partition"), Label("topic")
READY = Metric("proact_ready", GAUGE, "0 or 1", "whether /readyz says yes")

KAFKA_UP = Metric("proact_kafka_up", GAUGE, "0 or 1", "whether Kafka answers the monitor")
KAFKA_BROKERS = Metric("proact_kafka_brokers", GAUGE, "brokers", "in the cluster")
TOPIC_END = Metric(
    "proact_topic_end_offset", GAUGE, "offset", "that the topic's next record will have", (TOPIC, PARTITION)
)
TOPIC_START = Metric(
    "proact_topic_start_offset", GAUGE, "offset", "of the oldest record that is kept", (TOPIC, PARTITION)
)
GROUP_LAG = Metric(
    "proact_group_lag_records",
    GAUGE,
    "records",
    "behind the committed offsets of those who work a topic off, whether they run or not; with `lake-` before the topic those of the archivers, with `auditor-` those of the auditors",
    (TOPIC, PARTITION),
)
GRID_UP = Metric("proact_grid_up", GAUGE, "0 or 1", "whether Redis answers the monitor")
GRID_MEMORY = Metric("proact_grid_memory_bytes", GAUGE, "bytes", "used by Redis")
GRID_MEMORY_MAX = Metric("proact_grid_memory_max_bytes", GAUGE, "bytes", "from which Redis refuses writes; 0: no limit")
GRID_PROFILES = Metric("proact_grid_profiles", GAUGE, "profiles", "of all partitions")
GRID_CLIENTS = Metric("proact_grid_clients", GAUGE, "connections", "to Redis")
GRID_COMMANDS = Metric("proact_grid_commands_total", COUNTER, "commands", "that Redis has run")
GRID_EVICTED = Metric("proact_grid_evicted_keys_total", COUNTER, "keys", "that Redis dropped for room: must stay 0")
GRID_LOG_BYTES = Metric("proact_grid_log_bytes", GAUGE, "bytes", "of Redis's append-only file")
GRID_LOG_OK = Metric("proact_grid_log_ok", GAUGE, "0 or 1", "whether Redis could write its append-only file")

MONITOR_METRICS: Final = (
    READY, KAFKA_UP, KAFKA_BROKERS, TOPIC_START, TOPIC_END, GROUP_LAG, GRID_UP, GRID_MEMORY, GRID_MEMORY_MAX, GRID_PROFILES,
    GRID_CLIENTS, GRID_COMMANDS, GRID_EVICTED, GRID_LOG_BYTES, GRID_LOG_OK,
)  # fmt: skip

FIGURE: Final = Label(
    "figure", ("precision", "recall", "average_precision", "frauds", "stopped", "fraud_stopped", "fraud_missed")
)
LABEL_AGE: Final = Label("label_age", ("7d", "14d", "30d", "60d", "90d"))
FEATURE: Final = Label("feature", (*FEATURE_NAMES, "score"))
QUALITY = Metric(
    "proact_quality", GAUGE, "share, transactions or major units",
    "what was decided on the newest seven days whose labels are as old as that", (FIGURE, LABEL_AGE),
)  # fmt: skip
QUALITY_FORECAST = Metric(
    "proact_quality_forecast", GAUGE, "share or transactions", "of the last seven days, when all labels will have come",
    (Label("figure", ("precision", "recall", "frauds")),),
)  # fmt: skip
FEATURE_DRIFT = Metric(
    "proact_feature_drift", GAUGE, "1", "population stability index of the last hour against the training", (FEATURE,)
)
FEATURE_DISTANCE = Metric(
    "proact_feature_distance",
    GAUGE,
    "0 to 1",
    "largest distance of the distributions, of the last hour and the training",
    (FEATURE,),
)
FEATURE_MISSING = Metric(
    "proact_feature_missing_share",
    GAUGE,
    "0 to 1",
    "of the decisions of the last hour, for how many it was missing",
    (FEATURE,),
)
EVALUATED = Metric(
    "proact_evaluated_seconds",
    GAUGE,
    "s since 1970",
    "until when it was looked at, by what",
    (Label("what", ("quality", "drift")),),
)
EVALUATOR_FAILURES = Metric("proact_evaluator_failures_total", COUNTER, "times", "that the lake could not be read")

EVALUATOR_METRICS: Final = (
    READY, QUALITY, QUALITY_FORECAST, FEATURE_DRIFT, FEATURE_DISTANCE, FEATURE_MISSING, EVALUATED, EVALUATOR_FAILURES,
)  # fmt: skip
