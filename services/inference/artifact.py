"""A released model on disk: boosters, ``anomaly.json``, ``manifest.json``, ``golden.json``, verified before it scores anything.

XGBoost scores permuted columns without complaint, so the manifest's feature names, their order and their hash are
compared with the running code's. The golden rows must score the same, bit for bit, before the model is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.core.classes import TransactionClass
from services.core.columns import type_f64
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.inference.base import Anomaly, ModelError, Predictor
from services.inference.isolation import IsolationForest
from services.inference.json_files import parse_object, read_file
from services.inference.lean_xgboost import xgboost
from services.inference.trees import Booster, ClassTable, Route

BOOSTERS_MAX: Final = 8
GOLDEN_SCORES_MIN: Final = 2
"""Rows that all score alike do not tell one model from another."""
CHAMPION, SMALL = "champion", "small"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a model, beside its trees."""

    name: str
    version: str
    feature_names: list[str]
    feature_set_hash: str
    classes: dict[str, dict[str, Any]]
    """Of each class the booster that scores it, and its thresholds."""
    small: dict[str, Any]
    """The same for decisions that must be made without what others know."""
    boosters: dict[str, str]
    """The SHA-256 of each booster's file, ``NAME.json``."""
    anomaly_sha256: str
    xgboost_version: str
    trained_at: str
    training: dict[str, Any]
    metrics: dict[str, Any]
    costs: dict[str, Any]

    def __post_init__(self) -> None:
        texts = [self.name, self.version, self.feature_set_hash, self.anomaly_sha256]
        if not all(isinstance(text, str) and text for text in texts) or not isinstance(self.feature_names, list):
            raise ValueError("a name, a version or a hash is no text")
        if not isinstance(self.boosters, dict) or not all(isinstance(one, str) for one in self.boosters.values()):
            raise ValueError("boosters are names with their SHA-256")
        if not 0 < len(self.boosters) <= BOOSTERS_MAX or SMALL not in self.boosters:
            raise ValueError(f"a release has 1 to {BOOSTERS_MAX} boosters, one of them named {SMALL}")
        if wrong := [name for name in self.boosters if not re.fullmatch(r"[a-z][a-z-]{0,30}", name)]:
            raise ValueError(f"a booster's name is lower-case letters and hyphens: {wrong[0]!r}")
        if self.small_route.booster != SMALL:
            raise ValueError(f"the small route leads to the booster {SMALL}")
        _ = self.routes

    @property
    def routes(self) -> dict[TransactionClass, Route]:
        """The table of classes. Raises TypeError, ValueError, KeyError for what is none."""
        return {TransactionClass[name]: Route.of(document) for name, document in self.classes.items()}

    @property
    def small_route(self) -> Route:
        """What the small booster's scores mean, for every class."""
        return Route.of(self.small)


class SmallModel:
    """What is left of a release whose small booster alone can be used; see :class:`services.inference.Model`."""

    champion: None = None
    anomaly: None = None

    def __init__(self, manifest: Manifest, boosters: Mapping[str, Booster]) -> None:
        self.manifest, self.name, self.version = manifest, manifest.name, manifest.version
        self.small: Predictor = ClassTable(dict.fromkeys(TransactionClass, manifest.small_route), boosters)


class ReleasedModel:
    """A verified release: the :class:`services.inference.Model` of the scorer."""

    def __init__(self, manifest: Manifest, boosters: Mapping[str, Booster], anomaly: Anomaly) -> None:
        """Put together what was read. Raises ModelError."""
        self.manifest, self.name, self.version = manifest, manifest.name, manifest.version
        self.champion: Predictor = ClassTable(manifest.routes, boosters)
        self.small: Predictor = ClassTable(dict.fromkeys(TransactionClass, manifest.small_route), boosters)
        self.anomaly = anomaly


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Make of whatever a damaged file leads to the one error of a model: files are data, and what they hold is no mistake of ours."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} is damaged: {type(error).__name__}: {str(error)[:200]}") from None


def _read_json(path: Path) -> dict[str, Any]:
    return parse_object(read_file(path), path)


def load_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ModelError: it is missing, damaged, or of another feature set than the running code's.
    """
    with _damage(folder / "manifest.json"):
        manifest = Manifest(**_read_json(folder / "manifest.json"))
    if tuple(manifest.feature_names) != FEATURE_NAMES or manifest.feature_set_hash != FEATURE_SET_HASH:
        raise ModelError(
            f"{folder} was trained on the feature set {manifest.feature_set_hash}, this code computes "
            f"{FEATURE_SET_HASH}: train a model for it with `make train`, and name it as live"
        )
    return manifest


def load_model(folder: Path) -> ReleasedModel:
    """Load and verify a released model.

    Raises:
        ModelError: a file is missing or was changed, the features differ, or a golden row scores differently.
    """
    with _damage(folder):
        return _load_model(folder)


def _load_model(folder: Path) -> ReleasedModel:
    manifest = load_manifest(folder)
    raw_anomaly = _read_verified(folder / "anomaly.json", manifest.anomaly_sha256)
    boosters = {name: _load_booster(folder, manifest, name) for name in manifest.boosters}
    anomaly = IsolationForest.of(raw_anomaly, len(manifest.feature_names))
    model = ReleasedModel(manifest, boosters, anomaly)
    golden = _Golden.read(folder / "golden.json")
    golden.check("scores", model.champion.predict(golden.vectors))
    golden.check("small_scores", model.small.predict(golden.vectors))
    golden.check("anomaly_scores", anomaly.score(golden.vectors))
    return model


def load_small(folder: Path) -> SmallModel:
    """Load and verify the small booster alone, where the release as a whole cannot be used. Raises ModelError."""
    with _damage(folder):
        return _load_small(folder)


def _load_small(folder: Path) -> SmallModel:
    manifest = load_manifest(folder)
    model = SmallModel(manifest, {SMALL: _load_booster(folder, manifest, SMALL)})
    golden = _Golden.read(folder / "golden.json")
    golden.check("small_scores", model.small.predict(golden.vectors))
    return model


def _load_booster(folder: Path, manifest: Manifest, name: str) -> Booster:
    path = folder / f"{name}.json"
    raw = _read_verified(path, manifest.boosters[name])
    parse_object(raw, path)  # within limits, before XGBoost's own parser sees it
    return Booster(raw)


def _read_verified(path: Path, sha256: str) -> bytes:
    raw = read_file(path)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ModelError(f"{path} is not the file that its manifest describes (SHA-256 differs)")
    return raw


@dataclass(frozen=True, slots=True)
class _Golden:
    """Rows that must score the same, bit for bit."""

    path: Path
    vectors: type_f64
    expected: Mapping[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> _Golden:
        golden = _read_json(path)
        vectors = np.array([[np.nan if x is None else x for x in row] for row in golden["vectors"]], np.float64)
        if not len(vectors) or vectors.shape[1] != len(FEATURE_NAMES):
            raise ModelError(f"{path} does not hold golden rows of {len(FEATURE_NAMES)} features")
        if len(set(golden.get("scores", ()))) < GOLDEN_SCORES_MIN:
            raise ModelError(f"{path}: all golden rows score alike, as they would with many another model")
        return cls(path, vectors, golden)

    def check(self, name: str, scores: type_f64) -> None:
        expected = np.array([float.fromhex(score) for score in self.expected.get(name, [])])
        wrong = int((scores != expected).sum()) if len(expected) == len(scores) else len(scores)
        if wrong:
            raise ModelError(
                f"{self.path}: {name} of {wrong} of {len(scores)} golden rows are others with this XGBoost or numpy"
            )


def save_model(
    folder: Path, boosters: Mapping[str, Any], anomaly: IsolationForest, manifest: dict[str, Any], golden: type_f64
) -> ReleasedModel:
    """Write a release: boosters, anomaly model, their manifest with the SHA-256s filled in, and golden rows with their exact scores."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {name: bytes(booster.save_raw("json")) for name, booster in boosters.items()}
    raw_anomaly = json.dumps(anomaly.as_json(), separators=(",", ":")).encode()
    for name, content in raw.items():
        (folder / f"{name}.json").write_bytes(content)
    (folder / "anomaly.json").write_bytes(raw_anomaly)
    complete = Manifest(
        **manifest,
        boosters={name: hashlib.sha256(content).hexdigest() for name, content in raw.items()},
        anomaly_sha256=hashlib.sha256(raw_anomaly).hexdigest(),
        xgboost_version=xgboost.__version__,
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(complete), indent=2) + "\n")
    reread = IsolationForest.of(raw_anomaly, len(FEATURE_NAMES))
    model = ReleasedModel(complete, {name: Booster(content) for name, content in raw.items()}, reread)
    scores = {
        "scores": model.champion.predict(golden),
        "small_scores": model.small.predict(golden),
        "anomaly_scores": reread.score(golden),
    }
    written: dict[str, Any] = {"vectors": [[None if np.isnan(x) else float(x) for x in row] for row in golden]}
    written |= {name: [float(score).hex() for score in found] for name, found in scores.items()}
    (folder / "golden.json").write_text(json.dumps(written) + "\n")
    return load_model(folder)
