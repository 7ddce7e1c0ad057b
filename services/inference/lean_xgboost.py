"""XGBoost without scikit-learn: where that is installed, importing XGBoost imports it, which doubles the start of a scorer."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def _import_lean() -> ModuleType:
    """Import xgboost as if there were no scikit-learn; whoever wants that imports it afterwards as ever."""
    hidden = "sklearn" not in sys.modules
    if hidden:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # how Python learns that there is no such module
    try:
        return importlib.import_module("xgboost")
    finally:
        if hidden:
            del sys.modules["sklearn"]


xgboost = _import_lean()
