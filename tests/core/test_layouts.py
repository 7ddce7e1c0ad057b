"""The register of layouts: a number is given once, and nobody makes one up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from services.checker import oracle as oracle_cards
from services.checker import terminals as oracle_terminals
from services.core import layouts
from services.core.card.layout import CARD
from services.core.layouts import ARCHIVE_LAYOUT, AUDIT_LAYOUT, LAYOUTS, RETIRED
from services.core.terminal.layout import TERMINAL
from services.profiler.processor import ProfilerProcessor
from services.reassessor.processor import ReassessorProcessor
from services.reference.processor import ReferenceProcessor
from services.router.processor import RouterProcessor
from services.scorer.processor import ScorerProcessor

SERVICES = Path(layouts.__file__).parents[1]
OTHERS = [p for p in sorted(SERVICES.rglob("*.py")) if p != Path(layouts.__file__) and p.parent.name != "checker"]
"""All but the register, and the oracle, which keeps its own numbers."""


def test_every_number_is_given_once():
    constants = {name: value for name, value in vars(layouts).items() if name.endswith("_LAYOUT")}
    assert sorted([*LAYOUTS.values(), ARCHIVE_LAYOUT, AUDIT_LAYOUT]) == sorted(constants.values())
    numbers = [*constants.values(), *RETIRED]
    assert len(numbers) == len(set(numbers)) > 6
    assert all(0 < number < 2**16 for number in numbers)  # two bytes of a profile's header


def test_every_service_that_folds_has_the_registered_number_of_its_topic():
    folding = (ScorerProcessor, ProfilerProcessor, RouterProcessor, ReassessorProcessor)
    found = {one.topic: one.layout for one in folding}
    found |= {topic: ReferenceProcessor(topic).layout for topic in ("accounts", "customers")}

    assert found == LAYOUTS
    assert (CARD.version, TERMINAL.version) == (found["card-transactions"], found["terminal-events"])


def numbers_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield what a file gives the name of a layout, and every number that it writes as layouts are written."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Constant) and type(value.value) is int:
            for target in targets:
                if isinstance(target, ast.Name | ast.Attribute) and "layout" in ast.unparse(target).lower():
                    yield ast.unparse(target), value.value
    for written in re.findall(r"\b0x[0-9a-fA-F]{3}\b", text):
        if int(written, 16) in {*LAYOUTS.values(), *RETIRED}:
            yield written, int(written, 16)


def test_nobody_makes_a_number_up():
    assert len(OTHERS) > 200
    assert {str(p.relative_to(SERVICES)): found for p in OTHERS if (found := list(numbers_of(p)))} == {}


def test_the_oracle_has_the_same_numbers():
    said = (oracle_cards.LAYOUT, oracle_terminals.LAYOUT)
    assert said == (LAYOUTS["card-transactions"], LAYOUTS["terminal-events"])
    written = re.findall(r"\b0x[0-9a-f]{3}\b", (SERVICES / "checker" / "reference_data.py").read_text())
    assert {int(one, 16) for one in written} == {LAYOUTS["accounts"], LAYOUTS["customers"]}
