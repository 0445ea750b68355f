"""What retinue does, from Python. The command line is a thin layer over these functions."""

from retinue.api.data import check_data, convert_data, fit_anchors
from retinue.api.exchange import benchmark, export, import_model
from retinue.api.explaining import explain
from retinue.api.hubs import model_card, pull, push
from retinue.api.looking import compare_runs, drift, view_data
from retinue.api.names import EngineName
from retinue.api.predicting import Predictions, load, predict, speed
from retinue.api.serving import serve
from retinue.api.training import checks, clean, evaluate, train, write_report

__all__ = [
    "EngineName",
    "Predictions",
    "benchmark",
    "check_data",
    "checks",
    "clean",
    "compare_runs",
    "convert_data",
    "drift",
    "evaluate",
    "explain",
    "export",
    "fit_anchors",
    "import_model",
    "load",
    "model_card",
    "predict",
    "pull",
    "push",
    "serve",
    "speed",
    "train",
    "view_data",
    "write_report",
]
