"""Write the generated tables into a README, between their marks; a test keeps them true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from services.core.features import FEATURES
from services.observer.questions import questions_table
from services.runtime.catalogue import metrics_table
from services.runtime.config import settings_table


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


def with_tables(text: str) -> str:
    """Return the text with every marked table written anew."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        made = table().replace("\\", r"\\")
        text = pattern.sub(rf"\g<1>{made}\g<2>", text)
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text()))
