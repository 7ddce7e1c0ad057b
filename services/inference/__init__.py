"""Models: load, verify, predict, explain. The only place that imports xgboost at run time."""

from services.inference.base import Anomaly as Anomaly
from services.inference.base import Model as Model
from services.inference.base import ModelError as ModelError
from services.inference.base import Predictor as Predictor
