"""The pages of docs/ and the README: links lead somewhere, names exist, all are in the navigation and true to the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from services.cli.docs_tables import TABLES, decisions, decisions_table, with_tables, written_anew

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:services|tests|deploy|schemas|models|docs|\.ci)/[\w./*-]*|[\w-]+\.(?:md|yml|lock|toml))`")
"""A file or folder of the checkout in backticks."""
MADE_BY_A_USER = {"proact.toml"}
WIDTH = 120


def prose(text: str) -> list[str]:
    """Return the lines that are neither code nor rows of a table nor headings."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in without_code.splitlines() if not line.startswith(("|", "#", "<!--"))]


def links(text: str) -> list[str]:
    """Return what a page links to; code shows brackets of its own."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [target for target in LINK.findall(re.sub(r"`[^`\n]*`", "", without_code)) if "://" not in target]


def anchors(text: str) -> set[str]:
    """Return what can be linked to within a page: its headings, as the site calls them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def dead_links(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere; a page of docs/ leads to others of docs/, since the site has no more."""
    found = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        within = there.is_relative_to(DOCS) or page == ROOT / "README.md"
        if not there.is_file() or not within or (anchor and anchor not in anchors(there.read_text())):
            found.append(target)
    return found


def not_there(text: str) -> list[str]:
    """Return the files and folders that a text names and that do not exist."""
    named = {name.rstrip("/") for name in NAMED.findall(text)} - MADE_BY_A_USER
    known = {
        path.name for folder in (ROOT, ROOT / "models/fraud/v4", *ROOT.glob("schemas/*")) for path in folder.iterdir()
    }
    return sorted(name for name in named if name not in known and not any(ROOT.glob(name)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_dead_links_and_names_no_file_that_is_not_there(page: Path):
    text = page.read_text()

    assert dead_links(page, text) == []
    assert not_there(text) == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_of_a_page_wraps_at_120_columns(page: Path):
    assert [line for line in prose(page.read_text()) if len(line) > WIDTH] == []


def test_what_would_be_wrong_with_a_page_is_found():
    page = DOCS / "rules.md"
    text = "[a](gone.md) [b](features.md#gone) [c](../README.md) [d](features.md#all-features) `services/gone.py` `deploy/`"

    assert dead_links(page, text) == ["gone.md", "features.md#gone", "../README.md"]
    assert not_there(text) == ["services/gone.py"]
    assert prose("```\n" + "c" * 130 + "\n```\n| " + "t" * 130 + "\nprose\n") == ["", "prose"]


def test_every_page_is_in_the_navigation_once():
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    assert sorted(pages(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_readme_fits_on_a_screen_or_two():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_leads_to_every_page_but_the_sites_own():
    linked = {target.removeprefix("docs/") for target in links((ROOT / "README.md").read_text())}
    own = {"index.md", "changelog.md"}

    assert {page.name for page in DOCS.glob("*.md")} - own <= linked


@pytest.mark.parametrize("page", decisions(DOCS), ids=lambda page: page.stem)
def test_a_decision_is_short_numbered_by_its_name_and_has_a_status(page: Path):
    lines = page.read_text().splitlines()

    assert len(lines) <= 40
    assert lines[0].startswith(f"# {int(page.stem[:4])}. ")
    status = page.read_text().split("\n\n")[1]
    assert re.match(r"Status: (accepted$|((partly )?superseded|extended) by \[\d+\])", status), status


def test_the_numbers_of_decisions_follow_each_other():
    assert [int(page.stem[:4]) for page in decisions(DOCS)] == list(range(1, len(decisions(DOCS)) + 1))


def test_a_decision_that_is_superseded_says_so_in_the_index():
    index = (DOCS / "decisions/index.md").read_text()

    assert decisions_table(DOCS) in index
    assert "| 7 |" in index
    assert re.search(r"^\| 7 \|.*\| partly superseded by \[60\]\(0060-", index, re.MULTILINE)


def test_what_pages_say_of_the_code_is_generated_from_it():
    texts = {path: path.read_text() for path in written_anew(ROOT)}

    assert texts == written_anew(ROOT), "run `make docs-tables` to write the tables anew"
    whole = "\n".join(texts.values())
    assert all(whole.count(f"<!-- {name} -->") == 1 for name in [*TABLES, "decisions"])
    assert "# decisions\n" in texts[ROOT / "mkdocs.yml"]


def test_a_table_that_is_behind_the_code_is_written_anew():
    behind = "before\n<!-- features -->\n| old |\n<!-- /features -->\nafter\n"
    empty = "before\n<!-- features -->\n<!-- /features -->\nafter\n"

    made = with_tables(behind, DOCS)

    assert "| `card_count_10m` |" in made
    assert "old" not in made
    assert with_tables(empty, DOCS) == made == with_tables(made, DOCS)
