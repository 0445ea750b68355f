"""One class an image, or shares of several classes that add up to 1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from retinue.sample import Target

if TYPE_CHECKING:  # a label is read without torch, which batches of them need
    from torch import Tensor

UNKNOWN = -1
"""The label of an image of which nothing is known."""


@dataclass(frozen=True, slots=True)
class OneClass(Target):
    """The class `of`: its name, or, once the data set has settled an order, its index among
    `classes` of them. `shares`, where it is not None, are those of all the classes, in their order;
    `of` is then the one with the largest."""

    exclusive: ClassVar[bool] = True

    of: str | int
    classes: int = 0
    shares: tuple[float, ...] | None = None

    def names(self) -> tuple[str | int, ...]:
        """See `Target`; of shares, those above 0."""
        if self.shares is None:
            return (self.of,)
        return tuple(k for k, share in enumerate(self.shares) if share > 0)

    def remap(self, classes: Mapping[Any, int]) -> Self | None:
        """See `Target`. Shares of what falls away are divided among the others."""
        count = max(classes.values(), default=-1) + 1
        if self.shares is None:
            return type(self)(classes[self.of], count) if self.of in classes else None
        moved = np.zeros(count)
        for old, share in enumerate(self.shares):
            if old in classes:
                moved[classes[old]] += share
        return self._of_shares(moved / moved.sum()) if moved.sum() > 0 else None

    def fingerprint(self) -> str:
        """See `Target`."""
        text = f"{self.of!r}/{self.classes}"
        if self.shares is None:
            return text
        digest = hashlib.blake2b(repr(self.shares).encode(), digest_size=8)
        return f"{text} {digest.hexdigest()}"

    def stratum(self) -> str:
        """See `Target`: the class."""
        return str(self.of)

    @classmethod
    def mix(cls, parts: Sequence[tuple[Self, float]]) -> Self:
        """See `Target`: the shares of the canvas become shares of the classes."""
        there = [(target, share) for target, share in parts if share > 0]
        first = there[0][0]
        if all(target == first for target, _ in there):
            return first
        mixed = sum(share * target._dense() for target, share in there)
        return cls._of_shares(np.asarray(mixed))

    @classmethod
    def collate(cls, targets: Sequence[Self | None]) -> dict[str, Tensor]:
        """`label`: int64 (n,), −1 where nothing is known; or, if any has shares, float32
        (n, classes) with rows of zeros there."""
        import torch

        if any(target is not None and target.shares is not None for target in targets):
            classes = max(target.classes for target in targets if target is not None)
            rows = [t._dense() if t is not None else np.zeros(classes) for t in targets]
            return {"label": torch.from_numpy(np.stack(rows)).float()}
        labels = [int(target.of) if target is not None else UNKNOWN for target in targets]
        return {"label": torch.tensor(labels, dtype=torch.int64)}

    @classmethod
    def mix_batch(
        cls, targets: dict[str, Tensor], partner: Tensor, share: Tensor
    ) -> dict[str, Tensor]:
        """See `Target`. Shares are mixed; a label gets beside it `other`, the partner's, and
        `share`, its own part: a loss that is linear in the label needs no row of all classes."""
        label = targets["label"]
        if label.is_floating_point():
            own = share[:, None]
            return {**targets, "label": label * own + label[partner] * (1 - own)}
        return {**targets, "other": label[partner], "share": share}

    def as_dict(self) -> dict[str, Any]:
        """See `Target`."""
        plain: dict[str, Any] = {"class": self.of, "classes": self.classes}
        return plain if self.shares is None else {**plain, "shares": list(self.shares)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `Target`."""
        shares = values.get("shares")
        return cls(values["class"], values["classes"], None if shares is None else tuple(shares))

    def _dense(self) -> npt.NDArray[np.float64]:
        if self.shares is not None:
            return np.array(self.shares)
        dense = np.zeros(self.classes)
        dense[int(self.of)] = 1
        return dense

    @classmethod
    def _of_shares(cls, shares: npt.NDArray[np.float64]) -> Self:
        return cls(int(shares.argmax()), len(shares), tuple(shares.tolist()))
