"""Which models there are, and which one is live: folders ``models/NAME/vN``, and ``models/live.json``, which names one of them.

What is live is named and never guessed: a model that was trained beside it changes nothing until somebody names it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from services.inference.base import ModelError
from services.paths import data_folder

DEFAULT_NAME: Final = "fraud"
_LIVE: Final = "live.json"
_RELEASE: Final = re.compile(r"[a-z][a-z0-9-]{0,30}/v[1-9][0-9]{0,5}")
_LIVE_BYTES_MAX: Final = 10_000


def live_model(models: Path | None = None) -> Path:
    """Return the folder of the model that is live.

    Args:
        models: the folder of all models; the one that travels with this code if left out.

    Raises:
        ModelError: nothing is named as live, or what is named is not there.
    """
    models = models_folder() if models is None else models
    path = models / _LIVE
    try:
        raw = path.read_bytes()
        document = json.loads(raw) if len(raw) <= _LIVE_BYTES_MAX else None
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: name the live model with `proact models live NAME/vN`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from None
    named = document.get("live") if isinstance(document, dict) else None
    if not isinstance(named, str) or not _RELEASE.fullmatch(named):
        raise ModelError(f'{path} names no live model: it must be like {{"live": "fraud/v4"}}')
    if not (models / named).is_dir():
        raise ModelError(f"{path} says that {named} is live, and there is no folder {models / named}")
    return models / named


def put_live(release: str, models: Path | None = None) -> Path:
    """Name a model as live for whatever starts from now on, and return its folder; whether it can be used is not looked at.

    Raises:
        ModelError: there is no such model, or the file cannot be written.
    """
    models = models_folder() if models is None else models
    folder = folder_of(release, models)
    written = models / f".{_LIVE}.{os.getpid()}"
    try:
        written.write_text(json.dumps({"live": release}) + "\n")
        written.replace(models / _LIVE)  # at once: whoever reads meanwhile reads one of the two
    except OSError as error:
        raise ModelError(f"{models / _LIVE} cannot be written: {error.strerror}") from None
    return folder


def folder_of(release: str, models: Path | None = None) -> Path:
    """Return the folder of the model NAME/vN. Raises ModelError if there is none."""
    models = models_folder() if models is None else models
    if not _RELEASE.fullmatch(release):
        raise ModelError(f"a model is named like fraud/v4, not {release[:60]!r}")
    if not (models / release / "manifest.json").is_file():
        there = ", ".join(releases(models)) or "none"
        raise ModelError(f"there is no model {release} in {models}; there are: {there}")
    return models / release


def releases(models: Path | None = None) -> list[str]:
    """Return the models that there are, as NAME/vN, by name and number."""
    models = models_folder() if models is None else models
    named = (f"{path.parent.parent.name}/{path.parent.name}" for path in models.glob("*/v*/manifest.json"))
    found = [name for name in named if _RELEASE.fullmatch(name)]
    return sorted(found, key=lambda name: (name.split("/v")[0], int(name.split("/v")[1])))


def next_release(models: Path, name: str = DEFAULT_NAME) -> Path:
    """Return the folder in ``models`` that no model of this name has or had: its number is one above the highest there is."""
    folders = {folder for root in (models, models_folder()) for folder in (root / name).glob("v*")}
    numbers = [int(path.name[1:]) for path in folders if re.fullmatch(r"v[0-9]{1,6}", path.name)]
    return models / name / f"v{max(numbers, default=0) + 1}"


def release_of(folder: Path) -> str | None:
    """Return NAME/vN of a folder that can be named as live; None if it lies elsewhere."""
    resolved = folder.resolve()
    named = f"{resolved.parent.name}/{resolved.name}"
    return named if resolved.parent.parent == models_folder().resolve() and _RELEASE.fullmatch(named) else None


def models_folder() -> Path:
    """Return the folder of all models that travels with this code. Raises ModelError."""
    try:
        return data_folder("models")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from None
