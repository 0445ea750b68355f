"""What thresholds are worth that were chosen on few images, or on many: drawn scores, no network.

    python benchmarks/thresholds.py [DRAWS]

Five classes, each in about one of six images, with scores of a classifier that tells them apart
well. Thresholds are chosen on so many images of validation, and judged on 2,000 others: the mean F1
of the classes at 0.5, as chosen, and held back.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from retinue.evaluation.multilabel import Labelled, best_thresholds, held_back

CLASSES, RATE, APART = 5, 0.15, 2.5
ANSWERS = {
    "calibrated": (0.0, 1.0),
    "logits 2 too low": (-2.0, 1.0),
    "logits 1.5 too high": (1.5, 1.0),
    "too timid (logits × 0.5)": (0.0, 0.5),
    "too bold (logits × 2)": (0.0, 2.0),
}
"""Added to every logit, and by what it is multiplied."""
Numbers = npt.NDArray[np.float64]


def draw(
    rng: np.random.Generator, images: int, classes: tuple[Numbers, Numbers, Numbers], gain: float
) -> Labelled:
    """Images with the labels and scores of `classes`: how frequent, how far apart, what is added to
    the logits."""
    rates, apart, shift = classes
    labels = rng.random((images, len(rates))) < rates
    seen = rng.normal(0, 1, labels.shape) + apart * labels
    logits = apart * seen - apart**2 / 2 + np.log(rates / (1 - rates))
    return Labelled(labels, np.ones_like(labels), 1 / (1 + np.exp(-gain * logits - shift)))


def f1(told: Labelled, thresholds: list[float]) -> float:
    """The mean of the classes'."""
    given = told.scores >= np.array(thresholds)
    there = np.maximum(given.sum(axis=0) + told.labels.sum(axis=0), 1)
    return float((2 * (given & told.labels).sum(axis=0) / there).mean())


def main(draws: int) -> None:
    """Print a line for each kind of answers and number of images."""
    rng = np.random.default_rng(0)
    for name, (shift, gain) in ANSWERS.items():
        for images in (6, 20, 60, 200, 1000):
            rows = []
            for _ in range(draws):
                rates = np.exp(rng.normal(np.log(RATE), 0.7, CLASSES)).clip(0.002, 0.7)
                apart = APART * rng.uniform(0.6, 1.4, CLASSES)
                classes = rates, apart, shift + rng.normal(0, 0.5, CLASSES)
                own, others = (draw(rng, n, classes, gain) for n in (images, 2_000))
                plain = [0.5] * CLASSES
                best = best_thresholds(own) or plain
                rows.append([f1(others, t) for t in (plain, best, held_back(best, own, 0.5))])
            fixed, chosen, held = np.mean(rows, axis=0)
            print(
                f"{name:26} {images:5,} images: at 0.5 {fixed:.3f}, as chosen {chosen:.3f},"
                f" held back {held:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
