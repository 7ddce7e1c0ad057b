"""A backtest as a page for people: one file, its plots within."""

from __future__ import annotations

import html
from typing import Any, Final

from matplotlib.figure import Figure

from services.offline.pages import page, svg, table

_WORDS: Final = {
    "fraud_stopped_eur": "fraud stopped, EUR",
    "good_sales_lost_eur": "good sales lost, EUR",
    "reviews": "reviews",
    "review_minutes": "minutes of review",
    "net_value_eur": "net value, EUR",
}


def backtest_page(found: dict[str, Any]) -> str:
    """Return the page of what :func:`services.offline.backtests.money.run_backtest` returned."""
    flips = [
        [one[name] for name in ("transaction_id", "amount_eur", "action", "would_be", "is_fraud", "why")]
        for one in found["flips"]
    ]
    groups = [
        [one["by"], one["name"], one["transactions"], one["frauds"], one["caught"], one["caught_by_policy"]]
        for one in found["groups"]
    ]
    return page(
        f"Backtest: {found['policy']}",
        [
            "".join(f"<p>{html.escape(fact)}</p>" for fact in _facts(found)),
            _plot(found),
            table(
                "What it comes to",
                ["", "was", "95% of", "would be", "95% of", "difference", "95% of"],
                _measures(found),
            ),
            table(
                "By class and scenario", ["by", "", "transactions", "frauds", "not approved", "by the policy"], groups
            ),
            table(
                f"Decided otherwise, the first {len(flips):,}",
                ["transaction", "EUR", "was", "would be", "fraud", "why"],
                flips,
            ),
        ],
    )


def _facts(found: dict[str, Any]) -> list[str]:
    period = (
        f"{found['from'] or 'the beginning'} to {found['until']}, without the last {found['label_delay_days']} days"
    )
    return [
        f"model {found['model']}, {found['rules']} rules, thresholds: {found['thresholds']}",
        f"{found['decisions']:,} decisions of {found['cards']:,} cards, {found['frauds']:,} known frauds; {period}",
        f"{found['truth_unknown']:,} were blocked and nobody knows what they were: of these no money is counted",
        f"{found['truth_unknown_and_approved_by_the_policy']:,} of them would be approved",
        f"{found['flipped']:,} would be decided otherwise",
    ]


def _measures(found: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for name, said in found["measures"].items():
        row: list[Any] = [_WORDS[name]]
        for what in ("done", "policy", "difference"):
            low, high = said[what]["interval"]
            row += [f"{said[what]['value']:,.0f}", f"{low:,.0f} .. {high:,.0f}"]
        rows.append(row)
    return rows


def _plot(found: dict[str, Any]) -> str:
    """Return the measures in money, then and by the policy, with their intervals, as SVG."""
    names = [name for name in found["measures"] if name.endswith("_eur")]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for shift, what, colour in ((-0.18, "done", "#8a99a8"), (0.18, "policy", "#1f4e79")):
        said = [found["measures"][name][what] for name in names]
        values = [one["value"] for one in said]
        errors = [
            [max(0.0, one["value"] - one["interval"][0]) for one in said],
            [max(0.0, one["interval"][1] - one["value"]) for one in said],
        ]
        at = [i + shift for i in range(len(names))]
        axes.bar(at, values, width=0.34, color=colour, label="was" if what == "done" else "by the policy")
        axes.errorbar(at, values, yerr=errors, fmt="none", ecolor="#1c2733", capsize=3, linewidth=1)
    axes.set_xticks(range(len(names)), [_WORDS[name] for name in names])
    axes.axhline(0, color="#1c2733", linewidth=0.8)
    axes.legend(frameon=False)
    return svg(figure)
