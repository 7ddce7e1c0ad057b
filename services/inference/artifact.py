"""A released model on disk: ``model.json``, ``anomaly.json``, ``manifest.json``, ``golden.json``, verified before it scores anything.

XGBoost scores permuted columns without complaint, so the manifest's feature names, their order and their hash are
compared with the running code's. The golden rows must score the same, bit for bit, before the model is used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.core.columns import type_f64
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.core.policy import Thresholds
from services.inference.base import Anomaly, ModelError
from services.inference.forest import Forest, ForestError, Shares
from services.inference.isolation import IsolationForest
from services.inference.lean_xgboost import xgboost

MODEL_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a model, beside its trees."""

    name: str
    version: str
    feature_names: list[str]
    feature_set_hash: str
    thresholds: dict[str, float]
    sha256: str
    anomaly_sha256: str
    xgboost_version: str
    trained_at: str
    training: dict[str, Any]
    metrics: dict[str, Any]
    costs: dict[str, Any]


class XgboostModel:
    """A verified booster: the :class:`services.inference.Model` of the scorer."""

    def __init__(self, booster: Any, anomaly: Anomaly, manifest: Manifest, raw: bytes) -> None:
        self._booster, self.anomaly = booster, anomaly
        try:
            self._shares: Shares | None = Shares.of(Forest.of(raw))
        except ForestError:
            self._shares = None  # XGBoost itself explains, at its pace
        # One thread: a worker is one process a core, and a small batch is not worth waking others.
        booster.set_param({"nthread": 1})
        self.manifest = manifest
        self.name, self.version = manifest.name, manifest.version
        self.thresholds = Thresholds(**manifest.thresholds)

    def predict(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Model`."""
        if not len(vectors):
            return np.empty(0)
        return np.asarray(self._booster.inplace_predict(vectors, validate_features=False), np.float64)

    def explain(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Model`. Source: Lundberg et al., TreeSHAP, 2018, as XGBoost computes it."""
        if not len(vectors):
            return np.empty((0, vectors.shape[1]))
        if self._shares is not None:
            return self._shares.explain(vectors)
        matrix = xgboost.DMatrix(vectors, nthread=1)
        shares = self._booster.predict(matrix, pred_contribs=True, validate_features=False)
        return np.asarray(shares[:, :-1], np.float64)  # the last column is the bias

    def predict_few(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Model`."""
        return self.predict(vectors) if self._shares is None else self._shares.forest.scores(vectors)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from None


def load_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ModelError: it is missing, damaged, or of another feature set than the running code's.
    """
    try:
        manifest = Manifest(**_read_json(folder / "manifest.json"))
        Thresholds(**manifest.thresholds)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'manifest.json'}: {error}") from None
    if tuple(manifest.feature_names) != FEATURE_NAMES or manifest.feature_set_hash != FEATURE_SET_HASH:
        raise ModelError(
            f"{folder} was trained on the feature set {manifest.feature_set_hash}, this code computes "
            f"{FEATURE_SET_HASH}: train a model for it with `make train`"
        )
    return manifest


def load_model(folder: Path) -> XgboostModel:
    """Load and verify a released model.

    Raises:
        ModelError: a file is missing or was changed, the features differ, or a golden row scores differently.
    """
    manifest = load_manifest(folder)
    raw = _read_verified(folder / "model.json", manifest.sha256)
    anomaly = IsolationForest.of(
        _read_verified(folder / "anomaly.json", manifest.anomaly_sha256), len(manifest.feature_names)
    )
    booster = xgboost.Booster()
    booster.load_model(bytearray(raw))
    model = XgboostModel(booster, anomaly, manifest, raw)
    _check_golden(model, folder / "golden.json")
    return model


def _read_verified(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise ModelError(f"{path} is missing")
    raw = path.read_bytes()
    if len(raw) > MODEL_BYTES_MAX:
        raise ModelError(f"{path} has {len(raw)} bytes, more than {MODEL_BYTES_MAX}")
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ModelError(f"{path} is not the file that its manifest describes (SHA-256 differs)")
    return raw


def _check_golden(model: XgboostModel, path: Path) -> None:
    golden = _read_json(path)
    vectors = np.array([[np.nan if x is None else x for x in row] for row in golden["vectors"]], np.float64)
    if not len(vectors) or vectors.shape[1] != len(FEATURE_NAMES):
        raise ModelError(f"{path} does not hold golden rows of {len(FEATURE_NAMES)} features")
    for name, scores in (("scores", model.predict(vectors)), ("anomaly_scores", model.anomaly.score(vectors))):
        expected = np.array([float.fromhex(score) for score in golden[name]])
        wrong = int((scores != expected).sum()) if len(expected) == len(scores) else len(scores)
        if wrong:
            raise ModelError(
                f"{path}: {name} of {wrong} of {len(scores)} golden rows are others with this XGBoost or numpy"
            )


def save_model(
    folder: Path, booster: Any, anomaly: IsolationForest, manifest: dict[str, Any], golden_vectors: type_f64
) -> XgboostModel:
    """Write a release: the models, their manifest with the SHA-256s filled in, and golden rows with their exact scores."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = bytes(booster.save_raw("json"))
    raw_anomaly = json.dumps(anomaly.as_json(), separators=(",", ":")).encode()
    (folder / "model.json").write_bytes(raw)
    (folder / "anomaly.json").write_bytes(raw_anomaly)
    complete = Manifest(
        **manifest,
        sha256=hashlib.sha256(raw).hexdigest(),
        anomaly_sha256=hashlib.sha256(raw_anomaly).hexdigest(),
        xgboost_version=xgboost.__version__,
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(complete), indent=2) + "\n")
    reread = xgboost.Booster()
    reread.load_model(bytearray(raw))
    model = XgboostModel(reread, IsolationForest.of(raw_anomaly, len(FEATURE_NAMES)), complete, raw)
    golden = {
        "vectors": [[None if np.isnan(x) else float(x) for x in row] for row in golden_vectors],
        "scores": [float(score).hex() for score in model.predict(golden_vectors)],
        "anomaly_scores": [float(score).hex() for score in model.anomaly.score(golden_vectors)],
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    return load_model(folder)
