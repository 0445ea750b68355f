"""Real images that an export is made and proven with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retinue.sample import Sample


@dataclass(frozen=True)
class Material:
    """Samples for each purpose; all may be the same."""

    proof: Sequence[Sample]
    """Both answer these."""
    calibration: Sequence[Sample]
    """By these, ranges of numbers are chosen."""
    judged: Sequence[Sample] = field(default=())
    """With targets, in the order of the model's classes: on these, what it costs is measured.
    Empty: nothing is known of any image."""
    split: str = ""
    """What the judged ones are called."""

    @classmethod
    def of_images(cls, samples: Sequence[Sample]) -> Material:
        """Images of which nothing is known."""
        return cls(samples, samples)
