"""A training step of our detector against the same network and loss in plain eager float32.

    python benchmarks/detection_step.py [--backbone NAME] [--batch N] [--rounds N] [--json]

YOLOv3 on EfficientNet at 416×416, 20 classes, the published loss of the Keras version: forward,
targets, loss, backward and SGD with momentum, on the same images and boxes. The plain side is what
one writes first: timm's backbone, a neck of nine lines, targets set object by object, the ignored
found image by image; contiguous, float32. Ours is channels-last, under bfloat16 autocast where
trial steps are faster with it. Both sides' losses are compared on the same maps first. The two
alternate; the figure is the median over rounds of the plain time through ours, with a bootstrap
interval of 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinue.models.registry import create_model
from retinue.models.timm import library
from retinue.processor import cpu_features
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.objective import DetectionObjective, LossOptions
from retinue.training.losses import portion_loss
from retinue.training.mixed import on_cpu
from retinue.turns import timed
from training_step import alternated, bootstrap

SIDE, CLASSES, STRIDES = 416, 20, (8, 16, 32)
ANCHORS = torch.tensor([pair for level in PUBLISHED for pair in level])
OBJECTS = 8
"""An image, a usual number in PASCAL VOC with mosaics."""

Box = tuple[float, float, float, float, int]


def conv(inside: int, outside: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outside, eps=1e-3),
        nn.LeakyReLU(0.1),
    )


def five(inside: int, width: int) -> nn.Sequential:
    sides = [(inside, width, 1), (width, 2 * width, 3), (2 * width, width, 1)]
    return nn.Sequential(*(conv(*s) for s in [*sides, *sides[1:]]))


class Plain(nn.Module):
    """The published network, on timm's backbone."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = library().create_model(backbone, features_only=True, out_indices=(2, 3, 4))
        c3, c4, c5 = self.backbone.feature_info.channels()
        out = 3 * (5 + CLASSES)
        self.five5, self.five4, self.five3 = five(c5, c5), five(2 * c4, c4), five(2 * c3, c3)
        self.narrow5, self.narrow4 = conv(c5, c4, 1), conv(c4, c3, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(conv(c, 2 * c, 3), nn.Conv2d(2 * c, out, 1)) for c in (c3, c4, c5)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        c3, c4, c5 = self.backbone(x)
        p5 = self.five5(c5)
        p4 = self.five4(torch.cat([F.interpolate(self.narrow5(p5), scale_factor=2), c4], 1))
        p3 = self.five3(torch.cat([F.interpolate(self.narrow4(p4), scale_factor=2), c3], 1))
        return [head(p) for head, p in zip(self.heads, (p3, p4, p5), strict=True)]


def plain_targets(images: Sequence[Sequence[Box]]) -> list[dict[str, Tensor]]:
    """Object by object; each level's grid filled in."""
    levels = []
    for stride in STRIDES:
        shape = (len(images), 3, SIDE // stride, SIDE // stride)
        levels.append(
            {
                "there": torch.zeros(shape),
                "box": torch.zeros(*shape, 4),
                "of": torch.zeros(*shape, CLASSES),
            }
        )
    for n, objects in enumerate(images):
        for x1, y1, x2, y2, of in objects:
            wide, high = x2 - x1, y2 - y1
            shared = [min(wide, w) * min(high, h) for w, h in ANCHORS.tolist()]
            agree = [
                s / (wide * high + w * h - s)
                for s, (w, h) in zip(shared, ANCHORS.tolist(), strict=True)
            ]
            level, anchor = divmod(agree.index(max(agree)), 3)
            column = int((x1 + x2) / 2 / STRIDES[level])
            row = int((y1 + y2) / 2 / STRIDES[level])
            at = (n, anchor, row, column)
            levels[level]["there"][at] = 1
            levels[level]["box"][at] = torch.tensor([x1, y1, x2, y2])
            levels[level]["of"][at] = F.one_hot(torch.tensor(of), CLASSES).float()
    return levels


def ciou(a: Tensor, b: Tensor) -> Tensor:
    top, low = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inner = (low - top).clamp(min=0).prod(-1)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    shared = inner / (size_a.prod(-1) + size_b.prod(-1) - inner + 1e-7)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).pow(2).sum(-1)
    turn = torch.atan(size_a[..., 0] / size_a[..., 1]) - torch.atan(size_b[..., 0] / size_b[..., 1])
    v = 4 / math.pi**2 * turn**2
    alpha = v / (1 - shared + v + 1e-7)
    return shared - apart / (hull.pow(2).sum(-1) + 1e-7) - alpha.detach() * v


def iou_of_all(a: Tensor, b: Tensor) -> Tensor:
    top, low = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    inner = (low - top).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return inner / (areas[0][:, None] + areas[1] - inner)


def plain_loss(maps: Sequence[Tensor], images: Sequence[Sequence[Box]]) -> Tensor:
    """As the Keras version has it."""
    total = torch.zeros(())
    balance = (4.0, 1.0, 0.4)
    for level, (out, wanted) in enumerate(zip(maps, plain_targets(images), strict=True)):
        n, _, high, wide = out.shape
        y = out.view(n, 3, 5 + CLASSES, high, wide).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        stride = STRIDES[level]
        anchors = ANCHORS[3 * level : 3 * level + 3].view(1, 3, 1, 1, 2)
        centre = (y[..., :2].sigmoid() + torch.stack([columns, rows], -1)) * stride
        half = y[..., 2:4].exp() * anchors / 2
        boxes = torch.cat([centre - half, centre + half], -1)
        there = wanted["there"] > 0
        positives = max(int(there.sum()), 1)
        box = (1 - ciou(boxes[there], wanted["box"][there])).sum()
        of = F.binary_cross_entropy_with_logits(
            y[..., 5:][there], wanted["of"][there], reduction="sum"
        )
        taught = torch.ones_like(there)
        with torch.no_grad():
            for k in range(n):
                own = wanted["box"][k][there[k]]
                if len(own):
                    best = iou_of_all(boxes[k].reshape(-1, 4), own).amax(1)
                    taught[k] = (best < 0.5).view(3, high, wide) | there[k]
        sure = F.binary_cross_entropy_with_logits(y[..., 4], wanted["there"], reduction="none")
        total = total + 0.05 * box / positives
        total = total + 5 * balance[level] * sure[taught].sum() / taught.sum()
        total = total + CLASSES / 80 * of / (positives * CLASSES)
    return total


def scene(batch: int) -> tuple[Tensor, list[list[Box]], dict[str, Tensor]]:
    """Images float32 (n, 3, 416, 416), and their boxes as a list and as a batch's targets."""
    images = torch.rand(batch, 3, SIDE, SIDE)
    corner = torch.rand(batch, OBJECTS, 2) * 250
    xyxy = torch.cat([corner, corner + 8 + torch.rand(batch, OBJECTS, 2) ** 2 * 157], 2)
    of = torch.randint(CLASSES, (batch, OBJECTS))
    none = torch.zeros(batch, OBJECTS, dtype=torch.bool)
    listed: list[list[Box]] = [
        [(*box, int(k)) for box, k in zip(boxes.tolist(), kinds, strict=True)]
        for boxes, kinds in zip(xyxy, of, strict=True)
    ]
    targets = {"xyxy": xyxy, "of": of, "present": ~none, "difficult": none, "crowd": none}
    return images, listed, targets


def own_loss(objective: DetectionObjective, maps: Any, targets: Any, batch: int) -> Tensor:
    losses = objective({"levels": maps}, targets)
    loss, _ = portion_loss(
        losses, torch.ones(batch), batch, portions=1, processes=1, over_all=lambda value: value
    )
    return loss


def stepper(
    network: nn.Module, loss_of: Callable[[], Tensor], *, bfloat16: bool
) -> Callable[[], float]:
    """A function that takes one training step and gives its seconds; `loss_of` does the forward
    pass, too."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    network.train()

    def step() -> None:
        with on_cpu("bf16" if bfloat16 else "fp32"):
            loss = loss_of()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return timed(step)


def measure(backbone: str, *, batch: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    images, listed, targets = scene(batch)
    plain = Plain(backbone)
    network = create_model("yolov3", backbone=backbone, num_classes=CLASSES)
    counts = [sum(p.numel() for p in own.parameters()) for own in (plain, network)]
    if counts[0] != counts[1]:
        raise SystemExit(f"not the same network: {counts[0]:,} and {counts[1]:,} parameters")
    objective = DetectionObjective(
        anchors=PUBLISHED,
        strides=STRIDES,
        classes=CLASSES,
        options=LossOptions(ignore_by="level"),
    )
    with torch.no_grad():
        maps = plain(images[:2])
        few = {name: value[:2] for name, value in targets.items()}
        theirs, mine = plain_loss(maps, listed[:2]), own_loss(objective, maps, few, 2)
    if abs(float(theirs - mine)) > 1e-4 * float(mine):
        raise SystemExit(f"not the same loss: {float(theirs)} and {float(mine)}")
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = images.to(memory_format=torch.channels_last)

    def own() -> Tensor:
        return own_loss(objective, network(last)["levels"], targets, batch)

    first = stepper(plain, lambda: plain_loss(plain(images), listed), bfloat16=False)
    ours, precision = stepper(network, own, bfloat16=False), "float32"
    first(), ours()
    faster = stepper(network, own, bfloat16=True)
    if faster() < 3 * ours() and min(faster() for _ in range(2)) < min(ours() for _ in range(2)):
        ours, precision = faster, "bfloat16"
    pairs = alternated(first, ours, rounds)
    ratios = [a / b for a, b in pairs]
    low, high = bootstrap(ratios)
    return {
        "network": f"yolov3 on {backbone}",
        "ratio": round(statistics.median(ratios), 2),
        "low": round(low, 2),
        "high": round(high, 2),
        "precision": precision,
        "plain_ms": round(1000 * statistics.median(a for a, _ in pairs)),
        "retinue_ms": round(1000 * statistics.median(b for _, b in pairs)),
        "batch": batch,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "amx": "amx_bf16" in cpu_features(),
    }


def main() -> None:
    """Prints a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_b0")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.backbone, batch=options.batch, rounds=options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"training step, {figures['network']}: {figures['ratio']:.2f}× the plain network's speed "
        f"[{figures['low']:.2f}, {figures['high']:.2f}] ({figures['precision']}, "
        f"{figures['retinue_ms']:,} against {figures['plain_ms']:,} ms, batch {figures['batch']}, "
        f"{figures['threads']} threads, AMX: {'yes' if figures['amx'] else 'no'})"
    )


if __name__ == "__main__":
    main()
