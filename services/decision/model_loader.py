"""The model that the settings name: loaded and verified, or as much of it as can be used, and tried again until all of it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.inference import Model, ModelError
from services.inference.artifact import load_manifest, load_model, load_small
from services.inference.released import live_model, models_folder
from services.runtime.clock import Clock
from services.runtime.logs import fields
from services.runtime.settings import ConfigError, Settings

log = logging.getLogger("proact.model")

RETRY_EVERY_S: Final = 10.0
"""How often a model that could not be used is tried again: that takes up to a second, in which nothing is decided."""


def released_folder(settings: Settings) -> Path:
    """Return the folder of the model that the settings name, or of the live one. Raises ModelError."""
    return Path(settings.model_path) if settings.model_path else live_model()


def models_root(settings: Settings) -> Path:
    """Return the folder of all models that the settings name, or the one that travels with this code. Raises ModelError."""
    return Path(settings.models_path) if settings.models_path else models_folder()


def check_model(settings: Settings) -> None:
    """Tell a person at once of a model that cannot be used; a service that runs would are made on a lower fallback tier. Raises ConfigError."""
    try:
        load_manifest(released_folder(settings))
    except ModelError as error:
        raise ConfigError(str(error)) from None


def usable_model(settings: Settings) -> Model | None:
    """Return the released model, its small booster alone, or nothing: whatever can be used."""
    try:
        return load_model(released_folder(settings))
    except ModelError as error:
        log.error("the released model cannot be used", extra=fields(error=str(error)))  # noqa: TRY400 - said in one line
    try:
        return load_small(released_folder(settings))
    except ModelError as error:
        log.error("nor can its small booster", extra=fields(error=str(error)))  # noqa: TRY400
        return None


class ModelLoader:
    """Keeps the model of one worker's settings, which decides while no release is announced as live."""

    def __init__(self, settings: Settings, clock: Clock, adopt: Callable[[Model | None], None]) -> None:
        self._settings, self._clock, self._adopt = settings, clock, adopt
        self._complete, self._tried_at_s = False, 0.0

    def load(self) -> None:
        """Adopt what can be used."""
        model = usable_model(self._settings)
        self._adopt(model)
        self._complete = model is not None and model.champion is not None
        self._tried_at_s = self._clock.monotonic_s()

    def turn(self) -> None:
        """Try again, when it is time, what could not be used as a whole."""
        if not self._complete and self._clock.monotonic_s() - self._tried_at_s > RETRY_EVERY_S:
            self.load()
