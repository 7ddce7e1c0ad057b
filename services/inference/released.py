"""Which models are released: folders ``models/NAME/vN``."""

from __future__ import annotations

import re
from pathlib import Path

from services.inference.base import ModelError
from services.paths import data_folder


def newest_model(name: str = "fraud") -> Path:
    """Return the folder of the newest released version. Raises ModelError if there is none."""
    versions = [p for p in (data_folder("models") / name).glob("v*") if re.fullmatch(r"v\d+", p.name)]
    if not versions:
        raise ModelError(f"no model {name!r} is released: train one with `proact train`")
    return max(versions, key=lambda p: int(p.name[1:]))
