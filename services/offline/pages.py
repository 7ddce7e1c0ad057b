"""Pages for people: one file of HTML each, its tables and plots within."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 1rem 0 2rem; width: 100% } th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child { text-align: left } caption { text-align: left; font-weight: 600; padding-bottom: .4rem } svg { max-width: 100%; height: auto }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a page of parts that are HTML already."""
    begin = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
    )
    return "\n".join([*begin, *parts, "</html>"])


def table(title: str, head: list[str], rows: list[list[Any]]) -> str:
    """Return a table; None is an empty cell, and whole numbers have commas."""

    def cells(kind: str, values: list[Any]) -> str:
        return "".join(
            f"<{kind}>{html.escape('' if v is None else f'{v:,}' if type(v) is int else str(v))}</{kind}>"
            for v in values
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><caption>{html.escape(title)}</caption><tr>{cells('th', head)}</tr>{body}</table>"


def svg(figure: Figure) -> str:
    """Return a plot as SVG; the same plot is the same text."""
    mpl.rcParams["svg.hashsalt"] = "proact"
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)
