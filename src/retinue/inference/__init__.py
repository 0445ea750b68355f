"""Models asked: engines, exported files, predictors and evaluators."""

from __future__ import annotations

import sys

# OpenVINO's converter reports its use to its makers, from a process that it forks: nothing is sent
# from here without being asked for, and a fork beside torch's threads can hang. It does without
# that package where it is not found.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
