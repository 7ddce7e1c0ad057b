"""Models to release: the live one under another version, so that nothing has to be trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from services.inference.released import live_model


def candidate(models: Path, version: str = "v5", challenge: float | None = None) -> Path:
    """Return the folder of a copy of the live model with another version, and another threshold from which it challenges."""
    folder = models / "fraud" / version
    shutil.copytree(live_model(), folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["version"] = version
    if challenge is not None:
        for route in (*manifest["classes"].values(), manifest["small"]):
            route["thresholds"]["challenge"] = challenge
    path.write_text(json.dumps(manifest))
    return folder


class Later:
    """A background whose call is made when it is let go."""

    def __init__(self) -> None:
        self.call: Any = None
        self.held = False

    def start(self, call: Any) -> None:
        self.call = call

    def wait(self, timeout_s: float) -> None: ...

    def ended(self) -> bool:
        return not self.held

    def join(self) -> None:
        self.call()

    def close(self) -> None: ...
