r"""The tables of docs/zoo.md: what every network is and costs, and what real weights recognise.

    python benchmarks/zoo.py --write docs/zoo.md
    python benchmarks/zoo.py --measure PHOTOGRAPHS --write docs/zoo.md \
        [--weights NETWORK[:TAG]=FILE …]

The first command writes the table of the zoo anew, from the registry and the catalogue. With
`--measure` every network whose weights an installed package brings, and every one named with
`--weights`, classifies the photographs: a folder with `labels.csv` (columns `file` and
`class_index`, ImageNet's 1,000 classes in their usual order) and the files below `images/`. What
is published of a file is told if TAG says which set of the catalogue it holds.
Without `--write` the tables are printed.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from retinue.data.colour import Colour
from retinue.data.loader import Loader, in_order
from retinue.data.targets.one_class import OneClass
from retinue.data.views import EvalView
from retinue.figures import wilson
from retinue.models.network import Network
from retinue.models.registry import NetworkEntry, create_model, find, list_models
from retinue.sample import Sample
from retinue.weights import catalogue
from retinue.weights.catalogue import Wheel
from retinue.weights.resolution import in_wheel

BATCH = 20
IMAGENET = 1000


def zoo() -> str:
    """A Markdown table of all networks, family by family."""
    rows = ["| network | parameters | MACs | input | published top-1 | weights |",
            "|---|---:|---:|---:|---:|---|"]  # fmt: skip
    for entry in sorted(map(find, list_models()), key=lambda e: (e.family, e.macs, e.name)):
        rows.append(f"| {' | '.join(_cells(entry))} |")
    return "\n".join(rows)


def _cells(entry: NetworkEntry) -> Iterator[str]:
    sets = list(catalogue.entries(entry.name))
    best = max((w for w in sets if w.top1 is not None), key=lambda w: w.top1 or 0, default=None)
    yield f"`{entry.name}`"
    yield f"{entry.parameters:,}"
    yield f"{entry.macs / 1e9:.3f} G"
    yield f"{entry.preprocessing.size[0]}"
    yield f"{100 * (best.top1 or 0):.1f} % ({best.tag})" if best else "–"
    yield ", ".join(w.tag for w in sets) or "–"


def installed() -> list[str]:
    """The networks whose weights lie in an installed package."""
    return [
        entry.network
        for entry in catalogue.entries()
        for place in entry.places
        if isinstance(place, Wheel)
        and in_wheel(place) is not None
        and find(entry.network).kind == "classifier"
    ]


def measured(
    samples: Sequence[Sample], networks: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[str, ...]]:
    """A row of cells for each (network, tag or file of weights, tag of what they are)."""
    for name, weights, tag in networks:
        network = create_model(name, weights=weights).eval()
        top1, top5 = accuracy(network, samples)
        low, high = wilson(round(top1 * len(samples)), len(samples))
        published = catalogue.find(name, tag) if tag else None
        stated = [_percent(published.top1), _percent(published.top5)] if published else ["–", "–"]
        yield (
            f"`{name}`",
            *stated,
            f"{_percent(top1)} ({100 * low:.1f}–{100 * high:.1f})",
            _percent(top5),
        )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


@torch.inference_mode()
def accuracy(network: Network, samples: Sequence[Sample]) -> tuple[float, float]:
    """Top-1 and top-5 of `samples`, prepared as the weights want it."""
    preprocessing = network.preprocessing
    colour = Colour(preprocessing)
    loader = Loader(EvalView(preprocessing), samples, workers=0)
    hits = torch.zeros(2)
    for batch in loader.batches(in_order(samples, BATCH, preprocessing.size)):
        best = network(colour.normalised(batch.images)).topk(5).indices
        right = best == batch.targets["label"][:, None]
        hits += torch.stack([right[:, 0].sum(), right.any(1).sum()])
    top1, top5 = (hits / len(samples)).tolist()
    return top1, top5


def photographs(folder: Path) -> list[Sample]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return [
            Sample(
                str(folder / "images" / row["file"]),
                target=OneClass(int(row["class_index"]), IMAGENET),
            )
            for row in csv.DictReader(file)
        ]


def replace_section(page: str, name: str, text: str) -> str:
    """`page` with `text` between the comments `name` and `/name`."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    changed, count = pattern.subn(lambda m: f"{m[1]}{text}\n{m[2]}", page)
    if count != 1:
        raise SystemExit(f"the page has no section {name}")
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", type=Path, metavar="PHOTOGRAPHS")
    parser.add_argument("--weights", action="append", default=[], metavar="NETWORK[:TAG]=FILE")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    sections = {"zoo": zoo()}
    if arguments.measure:
        samples = photographs(arguments.measure)
        networks = [(name, "imagenet", "imagenet") for name in installed()]
        for which, _, file in (given.partition("=") for given in arguments.weights):
            name, _, tag = which.partition(":")
            networks.append((name, file, tag))
        rows = ["| network | published top-1 | top-5 | measured top-1 (95 % interval) | top-5 |",
                "|---|---:|---:|---:|---:|"]  # fmt: skip
        for cells in measured(samples, networks):
            rows.append(f"| {' | '.join(cells)} |")
            print(rows[-1], flush=True)
        sections["measured"] = "\n".join(rows)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        for name, text in sections.items():
            page = replace_section(page, name, text)
        arguments.write.write_text(page, encoding="utf-8")
    else:
        print("\n\n".join(sections.values()))


if __name__ == "__main__":
    main()
