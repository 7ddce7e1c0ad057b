"""The models that releases name, loaded and verified beside the worker's thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from services.codec.model_releases import ModelRelease
from services.inference import Model, ModelError
from services.inference.artifact import load_model
from services.inference.json_files import read_file
from services.streams.background import Background

Key = tuple[str, str, tuple[tuple[str, str], ...]]
RETRY_EVERY_S: Final = 10.0
"""How often a model that cannot be used is tried again: its files may still be on their way."""


def key_of(release: ModelRelease) -> Key:
    """Return what the model of a release depends on: another stage or share of it is the same model."""
    return release.release, release.location, tuple(sorted(release.files.items()))


def load_release(release: ModelRelease, models: Path) -> Model:
    """Load and verify the model of a release.

    Args:
        release: what was announced.
        models: the folder of all models, within which a relative location lies.

    Raises:
        ModelError: a file is missing or is not the one that was announced, or the model cannot be used.
    """
    folder = models / release.location
    for name, sha256 in sorted(release.files.items()):
        if hashlib.sha256(read_file(folder / name)).hexdigest() != sha256:
            raise ModelError(f"{folder / name} is not the file that was released (SHA-256 differs)")
    found = load_model(folder)
    if f"{found.name}/{found.version}" != release.release:
        raise ModelError(f"{folder} holds {found.name}/{found.version}, and was released as {release.release}")
    return found


def files_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a released model is loaded from. Raises ModelError: it cannot be used."""
    model = load_model(folder)
    names = ["manifest.json", "golden.json", "anomaly.json", *(f"{name}.json" for name in model.manifest.boosters)]
    return {name: hashlib.sha256(read_file(folder / name)).hexdigest() for name in names}


class ReleaseLoader:
    """Keeps the models of releases, for one worker. Its thread calls everything; the loading itself runs on the background's."""

    def __init__(self, models: Callable[[], Path], background: Background, monotonic_s: Callable[[], float]) -> None:
        """Load from the folder that ``models`` returns, which may raise ModelError."""
        self._models, self._background, self._monotonic_s = models, background, monotonic_s
        self.loaded: dict[Key, Model] = {}
        self.refused: dict[Key, str] = {}
        self._tried_at_s: dict[Key, float] = {}
        self._under_way: list[ModelRelease] | None = None
        self._found: list[Model | str] = []

    def load_now(self, releases: Iterable[ModelRelease]) -> None:
        """Load what is missing, and wait for it."""
        self.turn(releases)
        if self._under_way is not None:
            self._background.join()
            self._take()

    def turn(self, releases: Iterable[ModelRelease]) -> bool:
        """Begin to load what is missing, and take what is ready; return whether there is anything new."""
        if self._under_way is not None:
            if not self._background.ended():
                return False
            self._background.join()
            return self._take()
        now_s = self._monotonic_s()
        missing = [
            one
            for one in releases
            if key_of(one) not in self.loaded
            and now_s - self._tried_at_s.get(key_of(one), -RETRY_EVERY_S) >= RETRY_EVERY_S
        ]
        if missing:
            self._under_way = missing
            self._tried_at_s |= dict.fromkeys(map(key_of, missing), now_s)
            self._background.start(self._load)
        return False

    def _load(self) -> None:
        found: list[Model | str] = []
        for one in self._under_way or ():
            try:
                found.append(load_release(one, self._models()))
            except ModelError as error:
                found.append(str(error))
            except Exception as error:  # noqa: BLE001 - a mistake of ours that a release brings about must not end every worker
                found.append(f"it raises {type(error).__name__}")
        self._found = found

    def _take(self) -> bool:
        releases, self._under_way = self._under_way or [], None
        for one, found in zip(releases, self._found, strict=True):
            key = key_of(one)
            if isinstance(found, str):
                self.refused[key] = found
            else:
                self.loaded[key] = found
                self.refused.pop(key, None)
        return True

    def keep(self, releases: Iterable[ModelRelease]) -> None:
        """Forget the models of all other releases."""
        kept = {key_of(one) for one in releases}
        for known in (self.loaded, self.refused, self._tried_at_s):
            for key in known.keys() - kept:
                del known[key]

    def close(self) -> None:
        """Release the thread."""
        self._background.close()
