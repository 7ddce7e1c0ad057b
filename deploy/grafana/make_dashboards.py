"""Write the three dashboards: ``python deploy/grafana/make_dashboards.py``, or ``make dashboards``.

A dashboard is a list of rows of panels; a panel is a title, what it is drawn as, its unit, and its queries with their
legends. The JSON beside this file is generated, and a test keeps it so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.registry import BY_NAME

FOLDER: Final = Path(__file__).parent / "dashboards"
WIDTH: Final = 24
DATA_SOURCE: Final = {"type": "prometheus", "uid": "proact-prometheus"}
COLORS: Final = {"APPROVE": "green", "CHALLENGE": "yellow", "REVIEW": "orange", "BLOCK": "red"}
"""An action has one colour on every panel."""
PER_S: Final = "[$__rate_interval]"
OF_SCORERS: Final = 'job="scorer"'
OF_ALL: Final = f'job=~"{"|".join([*BY_NAME, "evaluator", "monitor"])}"'
OF_TRANSACTIONS: Final = 'topic="card-transactions"'
NOT_APPROVED: Final = 'action!="APPROVE"'
AMOUNT: Final = "proact_billing_amount_total"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; ``queries`` are pairs of PromQL and legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    about: str = ""
    stacked: bool = False


def one(title: str, unit: str, query: str, about: str = "") -> Panel:
    """Return a panel with one number."""
    return Panel(title, unit, ((query, ""),), "stat", about)


def lines(title: str, unit: str, *queries: tuple[str, str], about: str = "", stacked: bool = False) -> Panel:
    """Return a panel of lines over time."""
    return Panel(title, unit, queries, "timeseries", about, stacked)


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the query of a counter's rate a second, summed over all but the labels ``by``."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{f'{{{where}}}' if where else ''}{PER_S}))"


def stage(quantile: float) -> str:
    """Return the query of a quantile of the time of a batch in each stage."""
    return (
        f"histogram_quantile({quantile}, sum by (stage, le) (rate(proact_stage_seconds_bucket{{{OF_SCORERS}}}{PER_S})))"
    )


BUSINESS: Final = (
    (
        one("Decisions", "ops", rate("proact_decisions_total")),
        one("Not approved", "percentunit", 'sum(proact:decisions:rate1m{action!="APPROVE"}) / sum(proact:decisions:rate1m)'),
        one("Fraud alerts", "ops", rate("proact_alerts_total", where='kind="FRAUD"'), "Without those about declines."),
        one("Refused records", "ops", rate("proact_dead_letters_total", where=OF_SCORERS)),
        one("Decided within 0.1 s", "percentunit", "1 - proact:slow_decisions:ratio_rate5m", "The objective is 99%."),
        one("Model", "none", f"count(proact_model_info{{{OF_SCORERS}}})", "How many scorers score with a verified model."),
    ),
    (
        lines("Decisions by action", "ops", (rate("proact_decisions_total", "action"), "{{action}}"), stacked=True),
        lines(
            "Share of each action but APPROVE", "percentunit",
            (f"{rate('proact_decisions_total', 'action', NOT_APPROVED)} / on () group_left {rate('proact_decisions_total')}", "{{action}}"),
        ),
    ),
    (
        lines(
            "Money decided on, by action", "none",
            (rate(AMOUNT, "action, currency"), "{{action}} {{currency}}"),
            about="Billing amounts in major units a second.",
        ),
        lines(
            "Money not approved, of all", "percentunit",
            (f"{rate(AMOUNT, 'currency', NOT_APPROVED)} / {rate(AMOUNT, 'currency')}", "{{currency}}"),
        ),
        Panel(
            "Money by action in this time range", "none",
            (("round(sum by (action) (increase(proact_billing_amount_total[$__range])))", "{{action}}"),), "bargauge",
        ),
    ),
    (
        Panel("Score distribution", "none", ((f"sum by (le) (increase(proact_scores_bucket{PER_S}))", "{{le}}"),), "heatmap"),
        lines(
            "Score drift", "none", ("proact:scores:drift", "distance"),
            about="Largest distance between the score distributions of the last half hour and the last day.",
        ),
    ),
    (
        lines("Refused records by reason", "ops", (rate("proact_dead_letters_total", "reason", OF_SCORERS), "{{reason}}")),
        lines(
            "Decisions that could not see everything, and repeats", "ops",
            (rate("proact_degraded_total", "what"), "{{what}}"),
            (rate("proact_repeats_total", where=OF_SCORERS), "REPEAT"),
            (rate("proact_lookups_missed_total", where=OF_SCORERS), "batches without what other services know"),
        ),
    ),
    (
        lines(
            "By whose word, and rules that held by their effect", "ops",
            (rate("proact_decided_by_total", "source"), "{{source}}"), (rate("proact_rules_held_total", "effect"), "rule {{effect}}"),
        ),
        lines("Refused by account or customer", "ops", (rate("proact_declines_total", "decline"), "{{decline}}")),
        lines(
            "Rule set that runs, by scorer", "none", (f"proact_rule_set_version{{{OF_SCORERS}}}", "{{instance}}"),
            (f"sum(proact_rule_set_refused{{{OF_SCORERS}}})", "scorers that cannot run the live one"),
        ),
    ),
    (
        lines(
            "Models beside the live one: what canaries decided", "ops",
            (rate("proact_canary_decisions_total", "action"), "canary {{action}}"),
            (f"sum by (model, version, stage) (proact_releases_beside{{{OF_SCORERS}}})", "{{stage}} {{model}} {{version}}, scorers"),
        ),
        lines(
            "What releases in the shadow would have decided, and what the control group let through", "ops",
            (rate("proact_shadow_decisions_total", "action"), "shadow {{action}}"),
            (rate("proact_control_decisions_total", "would_be"), "let through, would be {{would_be}}"),
        ),
    ),
    (
        lines(
            "Quality by age of label", "percentunit",
            ('proact_quality{figure=~"precision|recall|average_precision"}', "{{figure}}, labels of {{label_age}}"),
            ('proact_quality_forecast{figure=~"precision|recall"}', "{{figure}}, forecast of the last week"),
        ),
        lines(
            "Features that drift, and how much is missing", "none",
            ("topk(5, proact_feature_drift)", "{{feature}}"),
            ("topk(3, proact_feature_distance)", "{{feature}}, distance"),
            ("topk(3, proact_feature_missing_share)", "{{feature}}, missing"),
            ("round(sum(increase(proact_evaluator_failures_total[1h])))", "times that the lake could not be read, an hour"),
        ),
    ),
    (
        lines("Decisions by class of transaction", "ops", (rate("proact_transaction_classes_total", "transaction_class"), "{{transaction_class}}")),
        lines(
            "Decisions below the champion, and scorers without it", "ops",
            ('sum by (fallback_tier) (rate(proact_decisions_by_tier_total{fallback_tier!="CHAMPION"}[1m]))', "{{fallback_tier}}"),
            ("count(proact_model_complete == 0) or vector(0)", "workers that cannot use the model"),
        ),
        lines(
            "Assessed again: what was decided and would have been", "ops",
            ("sum by (decided, would_be) (rate(proact_reassessed_total[1m]))", "{{decided}}, would be {{would_be}}"),
        ),
    ),
)  # fmt: skip

PIPELINE: Final = (
    (
        one("Records", "ops", rate("proact_records_in_total", where=OF_SCORERS)),
        one("Scorers ready", "none", 'sum(proact_ready{job="scorer"})'),
        one("Partitions running", "none", 'sum(proact_partitions{job="scorer", state="running"})'),
        one("Partitions halted", "none", "sum(proact_halted_partitions)"),
        one("Lag", "none", f"sum(proact_group_lag_records{{{OF_TRANSACTIONS}}})", "Records behind the committed offsets."),
        one("Alerts firing", "none", 'count(ALERTS{alertstate="firing"}) or vector(0)'),
    ),
    (
        lines("Records by scorer", "ops", (rate("proact_records_in_total", "instance", OF_SCORERS), "{{instance}}"), stacked=True),
        lines(
            "Latency, from Kafka timestamp to committed decision", "s",
            *(
                (f"histogram_quantile({q}, sum by (le) (rate(proact_decision_latency_seconds_bucket{PER_S})))", name)
                for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
            ),
        ),
    ),
    (
        lines("Time of a batch in each stage, mean", "s", (
            f"sum by (stage) (rate(proact_stage_seconds_sum{{{OF_SCORERS}}}{PER_S})) / sum by (stage) (rate(proact_stage_seconds_count{{{OF_SCORERS}}}{PER_S}))",
            "{{stage}}",
        ), stacked=True),
        lines("Time of a batch in each stage, p99", "s", (stage(0.99), "{{stage}}")),
    ),
    (
        lines("Lag by partition", "none", (f"sum by (partition) (proact_group_lag_records{{{OF_TRANSACTIONS}}})", "{{partition}}"), stacked=True),
        lines("Backlog at the present rate", "s", ("proact:group_lag:seconds", "to work off")),
        lines(
            "Records of a batch", "none",
            (f"sum(rate(proact_batch_records_sum{{{OF_SCORERS}}}{PER_S})) / sum(rate(proact_batch_records_count{{{OF_SCORERS}}}{PER_S}))", "mean"),
            (f"histogram_quantile(0.99, sum by (le) (rate(proact_batch_records_bucket{{{OF_SCORERS}}}{PER_S})))", "p99"),
        ),
    ),
    (
        lines("Decisions slower than the objective", "percentunit", *(
            (f"proact:slow_decisions:ratio_rate{w}", w) for w in ("5m", "30m", "1h", "6h")
        ), about="Pages above 14.4% (5m and 1h) and 6% (30m and 6h)."),
        lines("Batches abandoned", "ops", (rate("proact_abandoned_batches_total", "job, cause"), "{{job}} {{cause}}")),
        lines(
            "Waiting for a store, and catching up", "none",
            (rate("proact_outage_seconds_total", "store"), "seconds waited for {{store}}"),
            (rate("proact_recovered_records_total"), "records folded only"),
        ),
    ),
    (
        lines("Processor by process", "percentunit", (f"rate(process_cpu_seconds_total{{{OF_ALL}}}{PER_S})", "{{job}} {{instance}}")),
        lines("Memory by process", "bytes", (f"process_resident_memory_bytes{{{OF_ALL}}}", "{{job}} {{instance}}")),
        lines(
            "Profiles in the near caches, and copies of others'", "none",
            ("proact_profiles_cached", "{{instance}}"), ("proact_foreign_cache_profiles", "{{instance}} copies"),
        ),
    ),
)  # fmt: skip

STORES: Final = (
    (
        one("Kafka answers", "none", "min(proact_kafka_up)"),
        one("Brokers", "none", "max(proact_kafka_brokers)"),
        one("Redis answers", "none", "min(proact_grid_up)"),
        one("Redis memory used", "percentunit", "max(proact:grid_memory:ratio)"),
        one("Append-only file written", "none", "min(proact_grid_log_ok)"),
        one("Keys evicted", "none", "max(proact_grid_evicted_keys_total)", "Must stay 0."),
    ),
    (
        lines("Written to each topic", "ops", (rate("proact_topic_end_offset", "topic"), "{{topic}}")),
        lines("Kept in each topic", "none", (
            "sum by (topic) (proact_topic_end_offset - proact_topic_start_offset)", "{{topic}}",
        ), about="Offsets between the ends of the log."),
    ),
    (
        lines("Written to each partition of the transactions", "ops", (
            f'sum by (partition) (rate(proact_topic_end_offset{{topic="card-transactions"}}{PER_S}))', "{{partition}}",
        )),
        lines("Lag by topic", "none", ("sum by (topic) (proact_group_lag_records)", "{{topic}}")),
    ),
    (
        lines("Redis memory", "bytes", ("proact_grid_memory_bytes", "used"), ("proact_grid_memory_max_bytes", "limit")),
        lines("Profiles", "none", ("proact_grid_profiles", "profiles")),
        lines("Events folded into sums", "ops", (rate("proact_bucketed_events_total"), "of busy terminals")),
        lines("Append-only file", "bytes", ("proact_grid_log_bytes", "bytes")),
    ),
    (
        lines("Redis commands", "ops", (f"rate(proact_grid_commands_total{PER_S})", "commands")),
        lines("Redis connections", "none", ("proact_grid_clients", "connections")),
    ),
    (
        lines("Rows written to each table of the lake", "ops", (rate("proact_lake_rows_total", "table"), "{{table}}")),
        lines("Lake: age of the oldest record of the last commit", "s", ("max by (table) (proact_lake_behind_seconds)", "{{table}}")),
        lines(
            "Lake: commits that failed, and records that no table can hold", "ops",
            (rate("proact_lake_failures_total", "table"), "{{table}} failed"), (rate("proact_lake_left_out_total", "table"), "{{table}} left out"),
            (rate("proact_lake_commits_total", "table"), "{{table}} committed"),
        ),
        lines(
            "Lake: rows that wait, and time of the last commit", "none",
            ("sum by (table) (proact_lake_waiting_bytes)", "{{table}} bytes"), ("max by (table) (proact_lake_write_seconds)", "{{table}} seconds"),
        ),
    ),
    (
        lines("Audited decisions", "ops", (rate("proact_audited_total", "depth"), "{{depth}}"), (rate("proact_audit_left_out_total", "why"), "left out: {{why}}")),
        lines("Audited decisions that are not what their log makes of them", "ops", (rate("proact_parity_mismatches_total", "mismatch"), "{{mismatch}}"), about="Must stay 0."),
    ),
)  # fmt: skip

DASHBOARDS: Final = {
    "business": ("Proact: business", BUSINESS),
    "pipeline": ("Proact: pipeline", PIPELINE),
    "stores": ("Proact: Kafka and Redis", STORES),
}


def _options(panel: Panel) -> dict[str, Any]:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "value"}
    if panel.kind == "bargauge":
        return {"reduceOptions": reduce, "orientation": "horizontal", "displayMode": "basic"}
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"scheme": "Oranges", "mode": "scheme"},
            "yAxis": {"unit": "none"},
        }
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _field_config(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 25 if panel.stacked else 5, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
    overrides = [
        {
            "matcher": {"id": "byRegexp", "options": f"^{action}.*"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for action, color in COLORS.items()
        if any("{{action}}" in legend for _, legend in panel.queries)
    ]
    return {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": overrides}


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    heatmap = panel.kind == "heatmap"
    targets = [
        {
            "refId": chr(ord("A") + i), "datasource": DATA_SOURCE, "expr": query, "legendFormat": legend or "__auto",
            "format": "heatmap" if heatmap else "time_series", "instant": panel.kind == "bargauge",
        }
        for i, (query, legend) in enumerate(panel.queries)
    ]  # fmt: skip
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.about, "datasource": DATA_SOURCE,
        "gridPos": position, "targets": targets, "fieldConfig": _field_config(panel), "options": _options(panel),
    }  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """Return one dashboard as Grafana reads it."""
    title, rows = DASHBOARDS[name]
    panels, top = [], 0
    for row in rows:
        width, height = WIDTH // len(row), 4 if row[0].kind == "stat" else 8
        for i, panel in enumerate(row):
            position = {"x": i * width, "y": top, "w": width, "h": height}
            panels.append(_panel(panel, len(panels) + 1, position))
        top += height
    return {
        "uid": f"proact-{name}", "title": title, "tags": ["proact"], "timezone": "utc", "editable": False, "schemaVersion": 39,
        "version": 1, "refresh": "5s", "time": {"from": "now-15m", "to": "now"}, "panels": panels,
        "links": [{"type": "dashboards", "title": "Proact", "tags": ["proact"], "asDropdown": False, "keepTime": True}],
    }  # fmt: skip


def render(name: str) -> str:
    """Return one dashboard's file."""
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(render(each))
