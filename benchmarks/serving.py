"""Serving under load: how fast, how late, and what it outlives.

    python benchmarks/serving.py                      everything
    python benchmarks/serving.py throughput --rounds 5
    python benchmarks/serving.py rates overload hostile sigterm

`throughput`: images a second that `retinue serve` answers, the load generator on the same
processors included, against offline `predict` at batch 16 and against a plain FastAPI and torch
server, all three alternately in one run, the same photographs and network. `rates`: p50 and p99 at
shares of that. `overload`: three times as much as it can. `hostile`: 10,000 requests that are
broken in every way. `sigterm`: the end under load. Each exits with 1 where it is not as it should
be.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from serving_load import Connection, assault, at, closed_loop, ended, form, open_loop, request

HERE = Path(__file__).resolve()
NETWORK = "tf_efficientnet_lite0"


# --- what is measured ----------------------------------------------------------------------------


def model_file(folder: Path) -> Path:
    """A classifier of 1,000 classes for 224×224 pixels; its weights do not matter here."""
    from retinue import modelfile
    from retinue.models.registry import create_model

    network = create_model(NETWORK)
    path = folder / "model.safetensors"
    description = modelfile.ModelDescription(
        task="classification", classes=[f"class {k}" for k in range(1000)], network=NETWORK,
        arguments=dict(network.arguments), preprocessing=network.preprocessing.as_dict(),
    )  # fmt: skip
    modelfile.write(path, network.state_dict(), description)
    return path


def photographs(given: Path | None) -> list[bytes]:
    """Those of a folder, else made-up ones of 500×375 pixels."""
    import numpy as np
    from PIL import Image

    if given is not None:
        files = sorted(p for p in given.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        return [file.read_bytes() for file in files[:64]]
    made = []
    for k in range(32):
        rng = np.random.default_rng(k)
        small = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 6, (375, 500, 3))
        out = io.BytesIO()
        Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(
            out, "JPEG", quality=88
        )
        made.append(out.getvalue())
    return made


def offline(model: Path, photos: Path) -> None:
    """A child: for each number that is read, that many images by `predict`; tells images/s."""
    from retinue.inference.predictor import load

    images = [file.read_bytes() for file in sorted(photos.iterdir())]
    predictor = load(model)
    repeated = [images[k % len(images)] for k in range(160)]
    list(predictor.predict(repeated, batch_size=16))  # long enough for `auto` to compile
    print(f"ready {predictor.engine}", flush=True)
    for line in sys.stdin:
        count = int(line)
        many = (images[k % len(images)] for k in range(count))
        start = time.perf_counter()
        done = sum(1 for _ in predictor.predict(many, batch_size=16))
        print(done / (time.perf_counter() - start), flush=True)


def plain(model: Path, port: int) -> None:
    """A child: the server that one writes first."""
    import numpy as np
    import torch
    import uvicorn
    from fastapi import FastAPI, UploadFile
    from PIL import Image

    from retinue.inference.predictor import load

    network = load(model, engine="torch", device="cpu").network
    app = FastAPI()

    def predict(image: Any) -> Any:
        photo = Image.open(image.file).convert("RGB")
        scale = 256 / min(photo.size)
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        photo = photo.crop((left, top, left + 224, top + 224))
        x = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)[None]
        with torch.inference_mode():
            scores = network((x - 0.5) / 0.5).softmax(1)[0]
        best = scores.topk(5)
        return {"classes": [{"name": int(k), "score": float(s)}
                            for s, k in zip(*best, strict=True)]}  # fmt: skip

    predict.__annotations__["image"] = UploadFile  # of this function's own scope
    app.post("/v1/predict")(predict)

    @app.get("/readyz")
    def ready() -> Any:
        return {}

    uvicorn.run(app, port=port, log_level="critical")


class Child:
    """A process of this script or of retinue."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, text: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self.line()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        self.stop()
        return self.process.wait(60)

    @property
    def memory(self) -> float:
        """Resident, in MiB, with its own children."""
        pids = [self.process.pid]
        text = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text()
        total = 0
        for pid in [*pids, *map(int, text.split())]:
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
        return total / 1024


def served(model: Path, *more: object) -> tuple[Child, int]:
    child = Child(
        "-m", "retinue.cli", "serve", f"model={model}", "--port", 0, "--log", "json", *more
    )
    found = re.search(r":(\d+)$", child.line())
    if found is None:
        raise SystemExit("the server did not start")
    return child, int(found[1])


# --- what is shown -------------------------------------------------------------------------------


class Bench:
    """Of one run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.model: Path = options.model or model_file(folder)
        photos = photographs(options.photos)
        self.folder = folder / "photos"
        self.folder.mkdir()
        for k, photo in enumerate(photos):
            (self.folder / f"{k:03}.jpg").write_bytes(photo)
        self.sent = [request(form(photo)) for photo in photos]
        self.failed: list[str] = []
        self.most: float | None = None

    def hold(self, true: bool, what: str) -> None:
        print(f"  {'ok  ' if true else 'FAIL'} {what}", flush=True)
        if not true:
            self.failed.append(what)

    def throughput(self) -> None:
        """Against `predict`, and against the plain server."""
        options = self.options
        away = Child(HERE, "--offline", self.model, "--photos", self.folder)
        print(f"throughput: offline by {away.line().split()[-1]}", flush=True)
        ours, port = served(self.model)
        other_port = port + 1
        other = Child(HERE, "--plain", self.model, "--port", other_port)
        loop = asyncio.run
        _wait(other_port)
        for one in (port, other_port):
            loop(closed_loop(one, self.sent, 4, 2))
        rounds = []
        for _ in range(options.rounds):
            predicted = float(away.ask(str(options.images)))
            mine = loop(closed_loop(port, self.sent, options.clients, options.seconds))
            theirs = loop(closed_loop(other_port, self.sent, options.clients, options.seconds))
            rounds.append((predicted, mine, theirs))
            print(f"  predict {predicted:.1f}, served {mine:.1f}, plain {theirs:.1f} images/s",
                  flush=True)  # fmt: skip
        for child in (ours, other):
            child.end()
        away.process.kill()
        self.most = median(mine for _, mine, _ in rounds)
        for name, least, ratios in (
            ("served / predict", 0.6, [mine / predicted for predicted, mine, _ in rounds]),
            ("served / plain", 2.0, [mine / theirs for _, mine, theirs in rounds]),
        ):
            told = (
                f"{name} {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}), target {least}"
            )
            self.hold(median(ratios) >= least, told)

    def _most(self, port: int) -> float:
        if self.most is None:
            seconds = self.options.seconds
            self.most = asyncio.run(closed_loop(port, self.sent, self.options.clients, seconds))
        return self.most

    def rates(self) -> None:
        """How late answers are at shares of what it can."""
        child, port = served(self.model)
        asyncio.run(closed_loop(port, self.sent, 4, 2))
        most = self._most(port)
        print(f"latency, at shares of {most:.0f} images/s (Poisson arrivals)", flush=True)
        for share in (0.2, 0.5, 0.8):
            latencies, statuses = asyncio.run(
                open_loop(port, self.sent, share * most, self.options.seconds)
            )
            print(f"  {share * most:6.1f}/s  p50 {at(latencies, 0.5):7.1f} ms"
                  f"  p99 {at(latencies, 0.99):7.1f} ms  {dict(statuses)}", flush=True)  # fmt: skip
            if share < 0.8:
                self.hold(set(statuses) == {200}, f"all are answered at {share:.0%}")
        child.end()

    def overload(self) -> None:
        """Three times what it can."""
        child, port = served(self.model)
        most = self._most(port)
        asyncio.run(open_loop(port, self.sent, 3 * most, self.options.seconds))
        before = child.memory
        latencies, statuses = asyncio.run(
            open_loop(port, self.sent, 3 * most, 2 * self.options.seconds)
        )
        after = child.memory
        late = at(latencies, 0.99)
        print(f"overload: {3 * most:.0f}/s, {dict(statuses)}, p99 of the answered {late:.0f} ms,"
              f" {before:.0f} → {after:.0f} MiB", flush=True)  # fmt: skip
        self.hold(set(statuses) <= {200, 429}, "it is 200 or 429")
        self.hold(statuses[429] > 0, "some are 429")
        self.hold(after < 1.1 * before + 50, "memory stays")
        self.hold(asyncio.run(Connection(port).status(self.sent[0])) == 200, "it goes on")
        child.end()

    def hostile(self) -> None:
        """Requests that are broken in every way."""
        child, port = served(self.model)
        asyncio.run(closed_loop(port, self.sent, 4, 2))
        before = child.memory
        start = time.perf_counter()
        statuses, slowest = asyncio.run(assault(port, self.sent[0], self.options.hostile))
        took = time.perf_counter() - start
        files = len(os.listdir(f"/proc/{child.process.pid}/fd"))
        print(f"hostile: {self.options.hostile:,} in {took:.0f} s, {dict(statuses)}, slowest"
              f" /healthz {1000 * slowest:.0f} ms, {before:.0f} → {child.memory:.0f} MiB,"
              f" {files} descriptors", flush=True)  # fmt: skip
        self.hold(not any(isinstance(s, int) and s >= 500 for s in statuses), "no 5xx")
        self.hold(asyncio.run(Connection(port).status(self.sent[0])) == 200, "it goes on")
        self.hold(child.memory < 1.5 * before + 100, "memory stays")
        self.hold(files < 100, "descriptors come back")
        self.hold(slowest < 1, "/healthz answers meanwhile")
        self.hold(child.end() == 0, "it ends in good order")

    def sigterm(self) -> None:
        """Under load, from clients that keep their connection and such that do not."""
        child, port = served(self.model)
        asyncio.run(closed_loop(port, self.sent, 4, 2))
        statuses = asyncio.run(ended(child.stop, port, self.sent, self.options.clients))
        print(f"sigterm: {dict(statuses)}, exit code {child.process.wait(60)}", flush=True)
        self.hold(set(statuses) <= {200, 429, "not let in"}, "no request that was taken is lost")
        self.hold(child.process.returncode == 0, "it ends in good order")


def _wait(port: int) -> None:
    import urllib.request

    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the server did not start")


PARTS = ("throughput", "rates", "overload", "hostile", "sigterm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="each measurement takes")
    parser.add_argument("--images", type=int, default=640, help="of a round of predict")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--hostile", type=int, default=10_000, metavar="N")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs")
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offline:
        offline(options.offline, options.photos)
    elif options.plain:
        plain(options.plain, options.port)
    else:
        if unknown := set(options.parts) - set(PARTS):
            parser.error(f"there is no {sorted(unknown)[0]}")
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(options, Path(folder))
            for part in options.parts or PARTS:
                getattr(bench, part)()
        sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
