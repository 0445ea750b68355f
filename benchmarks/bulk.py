"""`predict` alone and by Ray's actors on the same images: seconds, images a second, the most memory
that all processes had. Also a kill once two parts are done, and a resume.

    python benchmarks/bulk.py [--images 100] [--actors 2] [MODEL FOLDER]

Without a model and a folder: an untrained mobilenet_v2_035 and drawn pictures of 500 × 375 pixels.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def made(folder: Path, images: int) -> tuple[Path, Path]:
    from predictors import describe, randomise

    from retinue import modelfile
    from retinue.models.registry import create_model, find

    network = create_model("mobilenet_v2_035", num_classes=4)
    randomise(network)
    prepared = find("mobilenet_v2_035").preprocessing.as_dict()
    described = describe(
        network="mobilenet_v2_035", arguments={"num_classes": 4}, preprocessing=prepared
    )
    modelfile.write(folder / "m.safetensors", network.state_dict(), described)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for k in range(images):
        pixels = rng.integers(0, 255, (47, 63, 3), np.uint8)
        Image.fromarray(pixels).resize((500, 375)).save(folder / "photos" / f"{k:05d}.jpg")
    return folder / "m.safetensors", folder / "photos"


def run(*arguments: str, kill: Path | None = None) -> tuple[float, int]:
    """Seconds, and the most bytes; `kill` once two of the parts lie there."""
    from bulk_memory import family, memory

    command = [sys.executable, "-m", "retinue.cli", "predict", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    most = 0

    def watch() -> None:
        nonlocal most
        while process.poll() is None:
            most = max(most, memory(family(process.pid)))
            if kill is not None and len(list(kill.glob("part-*.jsonl"))) >= 2:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    code = process.wait()
    watching.join()
    assert code == 0 or kill is not None, code
    return time.perf_counter() - start, most


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("given", nargs="*")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--actors", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, photos = map(Path, asked.given) if asked.given else made(folder, asked.images)
        count = sum(1 for _ in photos.rglob("*.*"))
        common = [str(model), str(photos)]
        ray = ["--engine", "ray", "--actors", str(asked.actors), "--batch-size", "16"]
        alone, _ = run(*common, "--engine", "torch", "--out", f"{folder}/alone")
        by_ray, most = run(*common, *ray, "--out", f"{folder}/ray")
        out = folder / "killed"
        before, _ = run(*common, *ray, "--out", str(out), kill=out / ".bulk")
        after, again = run(*common, *ray, "--out", str(out))
    print(f"{count} images, {asked.actors} actors")
    print(f"predict alone        {alone:7.1f} s   {count / alone:7.1f} images a second")
    print(f"by Ray               {by_ray:7.1f} s   {count / by_ray:7.1f} images a second")
    print(f"ratio                {by_ray / alone:7.2f}")
    print(f"killed and resumed   {before + after:7.1f} s")
    print(f"most memory          {max(most, again) / 1e9:7.2f} GB")


if __name__ == "__main__":
    main()
