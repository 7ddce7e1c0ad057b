"""The notebooks run from their first cell to their last, on a small lake, and are kept without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.offline.simulated_lake import fill_simulated

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDTH = 120
SAYS = {
    "1-explore-the-lake": ["card_decisions", "0.5 to 1", "share of frauds known", "median, fraud"],
    "2-design-a-feature": ["left_out", "75%", "without"],
    "3-decide-on-a-release": ["average_precision", "net_value_eur", "EUR more than then", "caught_by_policy"],
}
"""What somebody who runs a notebook sees in it, among other things."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    fill_simulated(folder, cards=300, days=110)
    return folder


def run(path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PROACT_LAKE_URL", str(lake))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    return NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()


def outputs_of(notebook: Any) -> str:
    found = []
    for cell in notebook.cells:
        for one in cell.get("outputs", []):
            found += [one.get("text", ""), *one.get("data", {}).values()]
    return "\n".join(map(str, found))


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS} == SAYS.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_it_promises(path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch):
    before = path.read_bytes()

    said = outputs_of(run(path, lake, monkeypatch))

    for wanted in SAYS[path.stem]:
        assert wanted in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_leads_to_pages_that_are_there(path: Path):
    document = json.loads(path.read_text())
    nbformat.validate(nbformat.from_dict(document))
    prose = "".join(
        line for cell in document["cells"] if cell["cell_type"] == "markdown" for line in [*cell["source"], "\n"]
    )

    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [line for line in prose.splitlines() if len(line) > WIDTH] == []
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        assert (path.parent / target).is_file(), target
