"""A policy as a file: which model, which thresholds, which rules, and what a review costs. All of it as it would go live, together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from services.core.classes import TransactionClass
from services.core.fallback import SafeDefault
from services.core.policy import Thresholds
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import read_rule_set
from services.core.rules.syntax import RuleError
from services.decision.engine import DecisionEngine
from services.inference import ModelError
from services.inference.artifact import ReleasedModel, load_model
from services.inference.released import folder_of, live_model
from services.inference.trees import ClassTable, Route
from services.offline.trainer.costs import CostTable

_KEYS: Final = ("model", "thresholds", "rules", "review_minutes")
BYTES_MAX: Final = 1_000_000


class PolicyError(ValueError):
    """A policy cannot be used: a user's mistake, said in one line."""


@dataclass(frozen=True, slots=True)
class TriedPolicy:
    """A policy that can decide."""

    name: str
    engine: DecisionEngine
    description: dict[str, Any]
    """What it is made of."""
    rule_ids: tuple[str, ...]
    review_minutes: float
    costs: CostTable


def read_policy(path: Path) -> TriedPolicy:
    """Read a policy's file, and what it names; paths in it are as seen from its folder.

    Raises:
        PolicyError: something in it is wrong, or not there.
    """
    described = _document(path)
    if unknown := set(described) - set(_KEYS):
        raise PolicyError(f"{path}: unknown {min(map(str, unknown))!r}: a policy has {', '.join(_KEYS)}")
    model = _model(path, described.get("model"))
    thresholds = described.get("thresholds")
    if thresholds is not None:
        model = _with_thresholds(path, model, thresholds)
    rules = None if described.get("rules") is None else _rules(path, described["rules"])
    minutes = described.get("review_minutes", 4.0)
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= 600:
        raise PolicyError(f"{path}: review_minutes is a number from 0 to 600, not {minutes!r}")
    description = {
        "policy": path.stem, "model": f"{model.name}/{model.version}", "thresholds": thresholds or "the model's",
        "rules": 0 if rules is None else len(rules.rule_set.rules),
    }  # fmt: skip
    ids = () if rules is None else tuple(rule.rule_id for rule in rules.rule_set.rules)
    engine = DecisionEngine(model, rules, SafeDefault(30.0, 300.0))
    return TriedPolicy(path.stem, engine, description, ids, float(minutes), CostTable())


def _document(path: Path) -> Mapping[str, Any]:
    try:
        raw = path.read_bytes()
        if len(raw) > BYTES_MAX:
            raise PolicyError(f"{path} has {len(raw):,} bytes, more than {BYTES_MAX:,}")
        found = yaml.safe_load(raw)
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(found, dict):
        raise PolicyError(f"{path} is no policy: it must have some of {', '.join(_KEYS)}")
    return found


def _model(path: Path, named: object) -> ReleasedModel:
    try:
        if named is None:
            return load_model(live_model())
        beside = path.parent / str(named)
        return load_model(beside if (beside / "manifest.json").is_file() else folder_of(str(named)))
    except ModelError as error:
        raise PolicyError(f"{path}: {error}") from None


def _with_thresholds(path: Path, model: ReleasedModel, wanted: object) -> ReleasedModel:
    """Let a model's scores mean the same in every class; return it."""
    if not isinstance(wanted, dict) or set(wanted) != {"challenge", "review", "block"}:
        raise PolicyError(f"{path}: thresholds are challenge, review and block, not {wanted!r}")
    try:
        thresholds = Thresholds(**{name: float(value) for name, value in wanted.items()})
    except (TypeError, ValueError) as error:
        raise PolicyError(f"{path}: thresholds: {error}") from None
    champion = model.champion
    assert isinstance(champion, ClassTable)
    scored_by = champion.scored_by(np.array(list(TransactionClass), np.int64)).tolist()
    routes = {
        one: Route(champion.boosters[at], thresholds) for one, at in zip(TransactionClass, scored_by, strict=True)
    }
    model.champion = ClassTable(routes, champion.by_name)  # it was loaded for this policy, and nobody else has it
    return model


def _rules(path: Path, named: object) -> RuleEngine:
    beside = path.parent / str(named)
    try:
        return RuleEngine(read_rule_set(yaml.safe_load(beside.read_bytes())))
    except OSError as error:
        raise PolicyError(f"{path}: rules {beside}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path}: rules {beside} are not YAML: {' '.join(str(error).split())[:300]}") from None
    except RuleError as error:
        raise PolicyError(f"{path}: rules {beside}: {error}") from None
