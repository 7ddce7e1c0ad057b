"""Write the generated tables of ``docs/`` between their marks: settings, metrics, features, questions, decisions.

``tests/test_docs.py`` fails while a page says something else than the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from services.core.features import FEATURES
from services.observer.questions import questions_table
from services.runtime.catalogue import metrics_table
from services.runtime.settings import settings_table


def features_table() -> str:
    """Return the table of all features, in Markdown."""
    rows = ["| feature | unit | meaning |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{f.name}` | {f.unit} | {f.meaning} |" for f in FEATURES])


TABLES = {
    "settings": settings_table,
    "metrics": metrics_table,
    "features": features_table,
    "questions": questions_table,
}


def decisions(docs: Path) -> list[Path]:
    """Return the pages of decisions in the order of their numbers."""
    return sorted((docs / "decisions").glob("[0-9]*.md"))


def decisions_table(docs: Path) -> str:
    """Return the table of all decisions with their status, in Markdown, for a page beside theirs."""
    rows = ["| number | decision | status |", "|---|---|---|"]
    for page in decisions(docs):
        # "# 7. Title", a blank line, "Status: ..." up to the next blank line.
        heading, status = page.read_text().split("\n\n")[:2]
        number, _, title = heading.removeprefix("# ").partition(". ")
        said = " ".join(status.removeprefix("Status: ").split())
        rows.append(f"| {number} | [{title}]({page.name}) | {said} |")
    return "\n".join(rows)


def decisions_nav(docs: Path) -> str:
    """Return the lines of mkdocs.yml's navigation that name the decisions' pages."""
    return "\n".join(f"      - decisions/{page.name}" for page in decisions(docs))


def _between(text: str, opening: str, closing: str, made: str) -> str:
    """Return the text with what stands between two lines replaced."""
    pattern = re.compile(rf"({re.escape(opening)}\n)(?:.*?\n)?( *{re.escape(closing)})", re.DOTALL)
    return pattern.sub(lambda found: found[1] + made + "\n" + found[2], text)


def with_tables(text: str, docs: Path) -> str:
    """Return the text of a page with every marked table written anew."""
    for name, table in TABLES.items():
        text = _between(text, f"<!-- {name} -->", f"<!-- /{name} -->", table())
    return _between(text, "<!-- decisions -->", "<!-- /decisions -->", decisions_table(docs))


def written_anew(root: Path) -> dict[Path, str]:
    """Return what the pages of a checkout, and its mkdocs.yml, should hold."""
    docs = root / "docs"
    texts = {page: with_tables(page.read_text(), docs) for page in sorted(docs.rglob("*.md"))}
    site = root / "mkdocs.yml"
    return texts | {site: _between(site.read_text(), "# decisions", "# /decisions", decisions_nav(docs))}


if __name__ == "__main__":
    for path, wanted in written_anew(Path(sys.argv[1])).items():
        path.write_text(wanted)
