"""What was trained, noted in MLflow: parameters, metrics, and the release's files. Only where somebody says where, and never in the way of training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from services.inference.artifact import Manifest

MLFLOW_URI: Final = "MLFLOW_TRACKING_URI"
"""MLflow's own variable."""
PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's variables, unless they are said: by itself it tries for minutes."""
_VALUE_MAX: Final = 500
"""Characters of a parameter that every version of MLflow takes."""
_AT_ONCE: Final = 100
"""Parameters in one request, and metrics."""


class TrackingError(ValueError):
    """MLflow did not take it; the message holds no password of its address."""


def log_release(folder: Path, manifest: Manifest, uri: str, now_ms: int) -> str:
    """Make a run of a release in the experiment ``proact-NAME``, and return its id.

    Args:
        folder: the release; all of its files become artefacts.
        manifest: its manifest.
        uri: where MLflow is: a server, or a folder as ``file:///...``.
        now_ms: epoch milliseconds.

    Raises:
        TrackingError: MLflow does not answer, or refuses it.
        ModuleNotFoundError: MLflow is not installed.
    """
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - of an extra
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    parameters = [Param(name, str(value)[:_VALUE_MAX]) for name, value in flat(manifest.training) if value is not None]
    metrics = [Metric(name, float(value), now_ms, 0) for name, value in flat(manifest.metrics) if _is_number(value)]
    tags = {"feature_set_hash": manifest.feature_set_hash, "release": f"{manifest.name}/{manifest.version}"}
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(f"proact-{manifest.name}")
        experiment_id = (
            client.create_experiment(f"proact-{manifest.name}") if experiment is None else experiment.experiment_id
        )
        run = client.create_run(experiment_id, now_ms, tags, run_name=tags["release"]).info.run_id
        for begin in range(0, max(len(parameters), len(metrics)), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            client.log_batch(run, metrics=metrics[some], params=parameters[some])
        client.log_artifacts(run, str(folder))
        client.set_terminated(run)
    except Exception as error:  # noqa: BLE001 - of MLflow, of its HTTP client, of a store
        said = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))
        raise TrackingError(f"{type(error).__name__}: {said[:600]}") from None
    return str(run)


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings, by the names that lead to each with slashes between."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
