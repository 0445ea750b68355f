"""Every benchmark, one after the other: `make benchmarks`. Each prints a ratio a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "input_pipeline.py",
    "training_step.py",
    "engines.py",
    "predict.py",
    "cached_features.py",
    "scale.py",
    "shards.py",
    "detection.py",
    "detection_data.py",
    "detection_step.py",
)


def main() -> None:
    here = Path(__file__).parent
    failed = []
    for script in SCRIPTS:
        print(f"# {script}", flush=True)
        if subprocess.run([sys.executable, str(here / script)]).returncode:
            failed.append(script)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
