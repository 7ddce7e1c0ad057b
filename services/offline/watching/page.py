"""Drift as a page for people."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from services.offline.pages import page, svg, table
from services.offline.watching.distribution import Binned, Drift
from services.offline.watching.drift import MANY

_DRAWN: Final = 6
"""The farthest ones are drawn."""


def drift_page(
    title: str, facts: Sequence[str], found: Sequence[Drift], both: tuple[Mapping[str, Binned], Mapping[str, Binned]]
) -> str:
    """Return the page.

    Args:
        title: what is compared.
        facts: a paragraph each.
        found: of every feature, the farthest first.
        both: the distributions, before and now, by feature.
    """
    rows = [
        [
            one.name, _number(one.stability_index), _number(one.distance), _percent(one.missing_before), _percent(one.missing),
            "look" if one.stability_index > MANY else "",
        ]
        for one in found
    ]  # fmt: skip
    return page(
        title,
        [
            "".join(f"<p>{html.escape(fact)}</p>" for fact in facts),
            _plots(found[:_DRAWN], *both),
            table("Every feature", ["", "stability index", "distance", "missing then", "missing now", ""], rows),
        ],
    )


def _plots(found: Sequence[Drift], before: Mapping[str, Binned], now: Mapping[str, Binned]) -> str:
    figure = Figure(figsize=(10, 2.6 * max(1, -(-len(found) // 3))), layout="constrained")
    for at, one in enumerate(found):
        axes = figure.add_subplot(-(-len(found) // 3), 3, at + 1)
        for shift, binned, colour, label in ((-0.2, before, "#8a99a8", "then"), (0.2, now, "#1f4e79", "now")):
            counts = np.append(binned[one.name].counts, binned[one.name].missing)
            axes.bar(
                np.arange(len(counts)) + shift, counts / max(1.0, counts.sum()), width=0.4, color=colour, label=label
            )
        edges = [f"{edge:.3g}" for edge in before[one.name].edges]
        axes.set_xticks(range(len(edges) + 2), [*(f"< {e}" for e in edges), "more", "none"], rotation=60, fontsize=6)
        axes.set_title(f"{one.name}: {_number(one.stability_index)}", fontsize=8)
        if at == 0:
            axes.legend(frameon=False, fontsize=7)
    return svg(figure)


def _number(value: float) -> Any:
    return None if np.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> Any:
    return None if np.isnan(value) else f"{value:.1%}"
