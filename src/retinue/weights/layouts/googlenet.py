"""GoogLeNet's checkpoints."""

from __future__ import annotations

from dataclasses import replace

from retinue.weights.layout import Layout, Origin, Shapes, rename

BRANCHES = {
    "conv1": "branch1",
    "conv3_reduce": "branch2.0",
    "conv3": "branch2.1",
    "conv5_reduce": "branch3.0",
    "conv5": "branch3.1",
    "pool_proj": "branch4.1",
}


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """`conv1…3`, `inception3a…5b` with branches by position, `aux1` and `aux2`."""
    places = [(r"stem\.", "conv1."), (r"stages\.0\.0\.", "conv2."), (r"stages\.0\.1\.", "conv3.")]
    for stage, letters in enumerate(("ab", "abcde", "ab"), start=1):
        for i, letter in enumerate(letters):
            for ours, theirs in BRANCHES.items():
                block = f"inception{stage + 2}{letter}"
                places.append((rf"stages\.{stage}\.{i}\.{ours}\.", f"{block}.{theirs}."))
    places += [(rf"head\.auxiliary\.{i}\.conv\.", f"aux{i + 1}.conv.") for i in (0, 1)]
    rules = [(at + r"norm\.", theirs + "bn.") for at, theirs in places]
    rules += [(at + r"conv\.", theirs + "conv.") for at, theirs in places]
    rules += [(rf"head\.auxiliary\.{i}\.fc", f"aux{i + 1}.fc") for i in (0, 1)]
    rules.append((r"head\.fc\.", "fc."))
    origins = rename(shapes, rules)
    if "stem.norm.weight" not in shapes:  # torchvision lacks the form without these
        return {key: replace(origin, split=None) for key, origin in origins.items()}
    return origins


LAYOUTS = (
    Layout(
        source="torchvision",
        family="googlenet",
        marks=("conv1.conv.weight", "conv3.bn.weight", "inception3a.branch2.0.conv.weight"),
        origins=torchvision,
        # A network with auxiliary classifiers takes theirs, one without has no use for them. In
        # the published file they are there, but untrained. A file without them, and a network
        # with them, do not fit.
        ignored=(r"aux[12]\.",),
        # torchvision builds the network of the published file so that it takes images normalised
        # the usual way and shifts them to this.
        preprocessing={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    ),
)
