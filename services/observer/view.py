"""The live view: a tally as a page of text."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.core.money import format_amount
from services.core.policy import Action
from services.observer.tally import ALERTS, DEAD_LETTERS, DECISIONS, Tally, deciding_rule

_STYLES = {"APPROVE": "green", "CHALLENGE": "yellow", "REVIEW": "dark_orange", "BLOCK": "bold red"}


@dataclass(frozen=True, slots=True)
class Progress:
    """What the view cannot know from the outputs."""

    title: str
    lag: int | None
    sent: int | None = None


def render(tally: Tally, progress: Progress, now_s: float) -> RenderableType:
    """Return the page."""
    return Group(_numbers(tally, progress, now_s), _actions(tally), _alerts(tally))


def _numbers(tally: Tally, progress: Progress, now_s: float) -> RenderableType:
    latency = tally.latency_ms()
    table = Table.grid(padding=(0, 3))
    table.add_row("rate", "lag", "latency p50 / p99", "decisions", "alerts", "dead letters", style="dim")
    table.add_row(
        f"{tally.rate(now_s):,.0f}/s",
        "?" if progress.lag is None else f"{progress.lag:,}",
        "-" if latency is None else f"{latency[0]:,.0f} / {latency[1]:,.0f} ms",
        f"{tally.records[DECISIONS]:,}" + ("" if progress.sent is None else f" of {progress.sent:,}"),
        f"{tally.records[ALERTS]:,}",
        f"{tally.records[DEAD_LETTERS]:,}",
    )
    return Panel(table, title=progress.title, title_align="left", border_style="blue")


def _actions(tally: Tally) -> RenderableType:
    total = max(1, int(tally.actions.sum()))
    table = Table.grid(padding=(0, 2))
    for action in Action:
        count = int(tally.actions[action])
        style = _STYLES[action.name]
        bar = "█" * round(40 * count / total) or ("▏" if count else "")
        table.add_row(Text(action.name, style=style), f"{count:>10,}", f"{count / total:7.2%}", Text(bar, style=style))
    return Panel(table, title="decisions by action", title_align="left", border_style="blue")


def _alerts(tally: Tally) -> RenderableType:
    lines = Table.grid(padding=(0, 1))
    for alert in reversed(tally.recent_alerts):
        amount = format_amount(alert["billing_amount_minor"], alert["billing_currency"])
        reason = explained_by(alert)[0]
        lines.add_row(
            Text(time_text(alert["event_time_ms"])), Text(uuid_text(alert["transaction_id"]), style="dim"),
            Text(alert["action"], style=_STYLES[alert["action"]]), score_text(alert["score"], 2), Text(alert["card_id"]),
            Text(amount, justify="right"), Text(reason, overflow="ellipsis", no_wrap=True),
        )  # fmt: skip
    return Panel(lines, title="latest alerts", title_align="left", border_style="blue", height=9)


def one_line(tally: Tally, progress: Progress, now_s: float) -> str:
    """Return the view as one line, for where there is no terminal to redraw."""
    latency = tally.latency_ms()
    shown = "-" if latency is None else f"{latency[0]:.0f}/{latency[1]:.0f} ms"
    actions = " ".join(f"{a.name}={int(tally.actions[a])}" for a in Action)
    lag = "?" if progress.lag is None else progress.lag
    return (
        f"{progress.title}: {tally.rate(now_s):,.0f}/s lag={lag} latency p50/p99={shown} {actions} "
        f"alerts={tally.records[ALERTS]} dead_letters={tally.records[DEAD_LETTERS]}"
    )


_LOWER: Final = {
    "SMALL_MODEL": "by the small model, since not everything was at hand",
    "RULES": "without any model",
    "SAFE_DEFAULT": "by the amount alone, since no model could be used",
}
"""How an alert was decided on a lower fallback tier."""


def alert_line(alert: dict[str, Any]) -> str:
    """Return an alert as a line of text: when, which transaction, how severe, what was done, and why.

    The amount stands in front; what is said behind it says "the amount".
    """
    amount = format_amount(alert["billing_amount_minor"], alert["billing_currency"])
    why = re.sub(rf"(?<![\d.,]){re.escape(amount)}(?= is )", "the amount", "; ".join(explained_by(alert)))
    what = (
        f"{alert['severity']:<6} {alert.get('kind', 'FRAUD'):<7} {alert['action']:<9} {score_text(alert['score'], 3)}"
    )
    return f"{time_text(alert['event_time_ms'])} {uuid_text(alert['transaction_id'])} {what} {alert['card_id']} {amount}: {why}"


def time_text(at_ms: int) -> str:
    """Return a moment as people and machines read it: ISO 8601, UTC, to the millisecond."""
    try:
        return datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1_000:03d}Z"
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"


def score_text(score: float | None, digits: int) -> str:
    """Return a score as people read it; a line where no model could be used."""
    return "-" * (2 + digits) if score is None else f"{score:.{digits}f}"


def explained_by(alert: dict[str, Any]) -> list[str]:
    """Return what an alert says in words: what account or customer forbid, the rule that decided, what weighed most, what would have passed."""
    rule = deciding_rule(alert)
    by_rule = [] if rule is None else [f"rule {rule['rule_id']}: {rule['reason'] or rule['action']}"]
    anomalous = (
        [f"unlike all that was seen (anomaly score {alert['anomaly_score']:.2f})"]
        if alert["decided_by"] == "ANOMALY"
        else []
    )
    refused = [one["text"] for one in alert.get("declines", [])]
    tier = alert.get("fallback_tier", "CHAMPION")
    lower = [] if tier == "CHAMPION" else [_LOWER[tier]]
    words = [*refused, *by_rule, *lower, *anomalous, *(reason["text"] for reason in alert["reasons"])] or [
        "no single feature stands out"
    ]
    return list(dict.fromkeys(words + [one["text"] for one in alert["counterfactuals"]]))


def uuid_text(raw: object) -> str:
    """Return 16 bytes as a UUID's text; what is one already, as it is."""
    if isinstance(raw, str):
        return raw
    assert isinstance(raw, bytes)
    return str(uuid.UUID(bytes=raw))
