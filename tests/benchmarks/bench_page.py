"""What ``bench`` found, as a page with plots: one file of HTML with its figures in it as SVG."""

from __future__ import annotations

import io
import json
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.bench import KINDS

TARGETS: Final = {"exactly_once": 85_000, "at_least_once": 90_000, "full": 40_000}
NAMES: Final = {
    "exactly_once": "core, exactly once",
    "at_least_once": "core, at least once",
    "full": "full, exactly once",
}
PERCENTILES: Final = ("p50", "p90", "p99", "p999", "p9999", "max")
LATENCIES: Final = ("latency_ms_1000", "latency_ms_10000", "latency_ms_half")
COLOURS: Final = ("#1f4e79", "#2e8b57", "#b8860b", "#8b3a3a", "#6b5b95", "#708090")
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}pre{white-space:pre-wrap;background:#f6f6f6;padding:1rem}"
)


def bench_page(found: dict[str, Any]) -> str:
    """Return the page."""
    kinds = [kind for kind in KINDS if kind in found]
    parts = [
        "<h1>Proact, measured</h1>",
        (f"<p>{found['plan']['records']:,} transactions of {found['plan']['cards']:,} cards; {found['machine']['cores']} cores run "
        "everything: Kafka, Redis, the services, the load and the observer. Throughput is counted from 10 to 90 % of the decisions by Kafka's "
        "clock, latency from when a record was due.</p>"),
        "<h2>Throughput</h2>", _svg(_throughput(found, kinds)), _throughput_table(found, kinds),
        "<h2>Processor time</h2>", _svg(_processor_time(found, kinds)),
        "<h2>Latency</h2>", _svg(_latency(found, kinds)), _latency_table(found, kinds),
        "<h2>Within the process</h2>", _svg(_stages(found)),
        (f"<p>The machine's own share of every tail: the same short loop took {found['machine']['loop_us']['p50']:g} microseconds, "
        f"{found['machine']['loop_us']['p99']:g} at the 99th percentile.</p>"),
        "<h2>All of it</h2>", f"<pre>{escape(json.dumps(found, indent=1))}</pre>",
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>Proact, measured</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "proact", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _throughput(found: dict[str, Any], kinds: list[str]) -> Figure:
    figure, axes = _axes(8, 2.6)
    names = [NAMES[kind] for kind in kinds] + ["plain worker"]
    values = [found[kind]["throughput_per_s"] for kind in kinds] + [found["plain"]["throughput_per_s"]]
    bars = axes.barh(names, values, color=COLOURS[0])
    axes.bar_label(bars, [f" {value:,}" for value in values])
    for at, kind in enumerate(kinds):
        axes.plot([TARGETS[kind]] * 2, [at - 0.4, at + 0.4], color=COLOURS[3], label="asked" if at == 0 else None)
    axes.invert_yaxis()
    axes.set_xlabel("transactions a second")
    axes.legend(frameon=False)
    return figure


def _processor_time(found: dict[str, Any], kinds: list[str]) -> Figure:
    figure, axes = _axes(8, 2.4)
    parts = list(dict.fromkeys(part for kind in kinds for part in found[kind]["cpu_us_per_record"]))
    left = [0.0] * len(kinds)
    for part, colour in zip(parts, COLOURS, strict=False):
        widths = [found[kind]["cpu_us_per_record"].get(part, 0.0) for kind in kinds]
        axes.barh([NAMES[kind] for kind in kinds], widths, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("microseconds of a core, a record")
    axes.legend(frameon=False, ncols=3)
    return figure


def _latency(found: dict[str, Any], kinds: list[str]) -> Figure:
    figure, axes = _axes(8, 3.6)
    for kind, colour in zip(kinds, COLOURS, strict=False):
        for name, style in zip(LATENCIES, ("-", "--", ":"), strict=True):
            if name in found[kind]:
                reported = found[kind][name]
                label = f"{NAMES[kind]}, {reported['rate_per_s']:,} a second"
                axes.plot(PERCENTILES, [reported[p] for p in PERCENTILES], style, color=colour, marker=".", label=label)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.grid(axis="y", color="#ddd")
    axes.legend(
        frameon=False, fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12)
    )  # below: lines are everywhere
    return figure


def _stages(found: dict[str, Any]) -> Figure:
    figure, axes = _axes(8, 3.0)
    for workload, colour in zip(found["in_process"], COLOURS, strict=False):
        by_size = found["in_process"][workload]
        for stage, style in zip(("prepare", "decide"), ("--", "-"), strict=True):
            values = [one["us_per_record"][stage] for one in by_size.values()]
            axes.plot(list(by_size), values, style, color=colour, marker=".", label=f"{workload}, {stage}")
    axes.set_yscale("log")
    axes.set_xlabel("records in a batch")
    axes.set_ylabel("microseconds a record")
    axes.legend(frameon=False)
    return figure


def _table(head: list[str], rows: list[list[str]]) -> str:
    def cells(row: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    return f"<table>{cells(head, 'th')}{''.join(cells(row, 'td') for row in rows)}</table>"


def _throughput_table(found: dict[str, Any], kinds: list[str]) -> str:
    rows = [
        [NAMES[k], f"{found[k]['throughput_per_s']:,}", f"{TARGETS[k]:,}", f"{found[k]['ratio_to_plain']} x"] for k in kinds
    ]  # fmt: skip
    return _table(["", "a second", "asked", "against the plain worker"], rows)


def _latency_table(found: dict[str, Any], kinds: list[str]) -> str:
    rows = [
        [NAMES[k], f"{found[k][name]['rate_per_s']:,}", *(f"{found[k][name][p]:g}" for p in PERCENTILES)]
        for k in kinds
        for name in LATENCIES
        if name in found[k]
    ]
    return _table(["milliseconds", "a second", *PERCENTILES], rows)
