"""A folder of images to JSONL in the way of timm's own `inference.py`: the peer of `predict.py`.

    python benchmarks/timm_inference.py NETWORK WEIGHTS FOLDER OUT [--batch-size 256] [--workers 2]

timm's data set, its loader with two worker processes and 256 images a batch, as its script has
them by default; the network eager, in float32 and channels-last (`--contiguous`: not, which is its
default), softmax, the five best classes. Nothing of retinue is imported.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch


def library() -> tuple[Any, Any]:
    """timm, also beside a CPU-only torch, for which torchvision's operators are declared; and what
    has to be kept as long."""
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    return timm, declared


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", help="timm's name of it")
    parser.add_argument("weights", help="a safetensors file with its state dict")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--contiguous", action="store_true", help="not channels-last")
    options = parser.parse_args()
    timm, _declared = library()
    from timm.data import create_dataset, create_loader, resolve_data_config

    network = timm.create_model(options.network, checkpoint_path=options.weights).eval()
    if not options.contiguous:
        network = network.to(memory_format=torch.channels_last)
    config = resolve_data_config({}, model=network)
    dataset = create_dataset(root=str(options.folder), name="")
    loader = create_loader(
        dataset,
        batch_size=options.batch_size,
        use_prefetcher=True,
        num_workers=options.workers,
        device=torch.device("cpu"),
        **config,
    )
    scores, indices = [], []
    with torch.inference_mode():
        for images, _ in loader:
            if not options.contiguous:
                images = images.contiguous(memory_format=torch.channels_last)
            best = network(images).softmax(-1).topk(options.top_k)
            scores.append(best.values)
            indices.append(best.indices)
    names = loader.dataset.filenames(basename=False)
    rows = zip(names, torch.cat(scores).tolist(), torch.cat(indices).tolist(), strict=True)
    with open(options.out, "w", encoding="utf-8") as file:
        for name, probabilities, numbers in rows:
            row = {"filename": name, "index": numbers, "prob": probabilities}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
