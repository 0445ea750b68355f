"""Objects by their boxes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from retinue.data import geometry
from retinue.errors import UsageError
from retinue.sample import Matrix, Polygon, Rectangle, Size, Target

if TYPE_CHECKING:  # a label is read without torch, which batches of them need
    from torch import Tensor

MIN_VISIBLE = 0.1
"""A box of which less than this share of the area is left on the canvas is dropped."""

_APART = 0.25
"""Of an object's longer side: how far apart the corners of two boxes around it may be."""

Numbers = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes(Target):
    """Objects of one image. Arrays have a row an object and are never written to.

    `difficult` ones are no mistake to miss (PASCAL VOC); `crowd` ones are regions of many objects
    in which a detection is no mistake either (COCO), and nothing is to be learnt. The image is not
    exhaustively labelled for the classes in `not_exhaustive` (LVIS): what is found of them beyond
    the boxes may be right.
    """

    places: ClassVar[bool] = True

    xyxy: Numbers
    """float32 (n, 4): x1, y1, x2, y2 in pixels."""
    of: tuple[str | int, ...]
    """The class of each: its name, or its index."""
    difficult: Flags
    crowd: Flags
    not_exhaustive: tuple[str | int, ...] = ()
    area: npt.NDArray[np.float64] | None = None
    """float64 (n,) square pixels of the objects themselves, where the data has them: they tell
    small from large ones (COCO). None: not known, as on every canvas."""

    @classmethod
    def made(
        cls,
        xyxy: Any,
        of: Sequence[str | int],
        *,
        difficult: Any = None,
        crowd: Any = None,
        not_exhaustive: Sequence[str | int] = (),
        area: Any = None,
    ) -> Self:
        """From anything that NumPy takes. Raises ValueError for lengths that differ, and for
        coordinates that are not finite."""
        array = np.array(xyxy, dtype=np.float32).reshape(-1, 4)
        flags = [
            np.zeros(len(array), bool) if given is None else np.array(given, bool)
            for given in (difficult, crowd)
        ]
        areas = None if area is None else np.array(area, np.float64)
        columns: list[Sequence[Any] | npt.NDArray[Any]] = [of, *flags]
        columns += [] if areas is None else [areas]
        if any(len(column) != len(array) for column in columns):
            raise ValueError(f"{len(array)} boxes with {len(of)} classes")
        if not np.isfinite(array).all():
            raise ValueError("the coordinates of a box are not finite")
        for part in (array, *flags, *([] if areas is None else [areas])):
            part.setflags(write=False)
        return cls(array, tuple(of), flags[0], flags[1], tuple(not_exhaustive), areas)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boxes) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def names(self) -> tuple[str | int, ...]:
        """See `Target`."""
        return tuple(dict.fromkeys(self.of))

    def mentioned(self) -> tuple[str | int, ...]:
        """See `Target`: those that are not exhaustively labelled, too."""
        return tuple(dict.fromkeys((*self.of, *self.not_exhaustive)))

    def marks(self) -> Sequence[tuple[str | int, tuple[float, float, float, float], bool]]:
        """See `Target`: difficult objects and crowds are hints."""
        hints = (self.difficult | self.crowd).tolist()
        rows = zip(self.of, self.xyxy.tolist(), hints, strict=True)
        return [(name, (x1, y1, x2, y2), hint) for name, (x1, y1, x2, y2), hint in rows]

    def remap(self, classes: Mapping[Any, int]) -> Self | None:
        """See `Target`. An image without objects has something to teach, too."""
        there = [name in classes for name in self.of]
        kept = self if all(there) else self.kept(np.array(there, dtype=bool))
        # Of a hundred thousand images; `replace` would take most of the time.
        return type(self)(
            kept.xyxy,
            tuple([classes[name] for name in kept.of]),
            kept.difficult,
            kept.crowd,
            tuple([classes[name] for name in self.not_exhaustive if name in classes]),
            kept.area,
        )

    def through(
        self,
        matrix: Matrix,
        size: Size,
        region: Rectangle | Polygon | None = None,
        covered: Sequence[Rectangle | Polygon] = (),
    ) -> Self:
        """See `Target`: the upright rectangles around what is left of the boxes on the canvas and
        within the region. One of which less than a tenth is left, or shows, is dropped; one that is
        covered in part keeps its outline."""
        corners = self.xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        quads = geometry.apply(matrix, corners).reshape(-1, 4, 2)
        low, high = quads.min(axis=1), quads.max(axis=1)
        upright = not (matrix[0, 1] or matrix[1, 0] or matrix[2, :2].any())
        if upright and not covered and not isinstance(region, np.ndarray):
            return self._cut(low, high, size, region)
        # Most lie on the canvas as a whole.
        within = (low >= 0).all(axis=1) & (high <= (size[1], size[0])).all(axis=1)
        shown, kept = np.concatenate([low, high], axis=1), np.zeros(len(quads), bool)
        for k, quad in enumerate(quads):
            left = quad if within[k] else geometry.clip(quad, size)
            left = left if region is None else geometry.common(left, region)
            seen = geometry.visible_area(left, covered)
            kept[k] = seen > MIN_VISIBLE * geometry.area(quad)
            if kept[k]:
                shown[k] = *left.min(axis=0), *left.max(axis=0)
        return replace(self, xyxy=shown.astype(np.float32), area=None).kept(kept)

    def _cut(
        self,
        low: npt.NDArray[np.float64],
        high: npt.NDArray[np.float64],
        size: Size,
        region: Rectangle | None,
    ) -> Self:
        """`through` of boxes that stay upright, all at once: from (n, 2) corners on the canvas."""
        x1, y1, x2, y2 = region or (0, 0, size[1], size[0])
        left = np.clip(low, (max(x1, 0), max(y1, 0)), None)
        right = np.clip(high, None, (min(x2, size[1]), min(y2, size[0])))
        seen = (right - left).clip(min=0).prod(axis=1)
        xyxy = np.concatenate([left, right], axis=1).astype(np.float32)
        return replace(self, xyxy=xyxy, area=None).kept(
            seen > MIN_VISIBLE * (high - low).prod(axis=1)
        )

    def fingerprint(self) -> str:
        """See `Target`."""
        digest = hashlib.blake2b(digest_size=8)
        # −0 is 0.
        for array in (self.xyxy + np.float32(0), self.difficult, self.crowd):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr((self.of, self.not_exhaustive)).encode())
        if self.area is not None:
            digest.update(np.ascontiguousarray(self.area).tobytes())
        return digest.hexdigest()

    def agrees(self, other: Target) -> bool:
        """See `Target`: the same objects, none drawn further apart than two people would."""
        if not isinstance(other, Boxes) or Counter(self.of) != Counter(other.of):
            return False
        free = np.ones(len(other.of), bool)
        classes = np.array(list(map(str, other.of)), np.str_)
        for name, box in zip(self.of, self.xyxy, strict=True):
            apart = np.abs(other.xyxy - box).max(axis=1, initial=0)
            apart[~free | (classes != str(name))] = np.inf
            nearest = int(apart.argmin())
            if not apart[nearest] <= _APART * (box[2:] - box[:2]).max():
                return False
            free[nearest] = False
        return True

    def stratum(self) -> str:
        """See `Target`: the class of most of the boxes."""
        if len(set(self.of)) == 1:
            return str(self.of[0])
        counts = Counter(map(str, self.of))
        return min(counts, key=lambda name: (-counts[name], name)) if counts else ""

    @classmethod
    def mix(cls, parts: Sequence[tuple[Self, float]]) -> Self:
        """See `Target`: all boxes that show on the canvas."""
        there = [target for target, share in parts if share > 0]
        return cls(
            np.concatenate([target.xyxy for target in there]),
            tuple(name for target in there for name in target.of),
            np.concatenate([target.difficult for target in there]),
            np.concatenate([target.crowd for target in there]),
            tuple(dict.fromkeys(name for target in there for name in target.not_exhaustive)),
        )

    @classmethod
    def collate(cls, targets: Sequence[Self | None]) -> dict[str, Tensor]:
        """Padded to the most of the batch: `xyxy` float32 (n, most, 4), `of` int64 (n, most),
        `present`, `difficult` and `crowd` bool (n, most); and `not_exhaustive` int64 (n, k), the
        classes of each image, with −1 behind them; and `known` bool (n,): False where nothing is
        known of an image, other than that there is no object in it."""
        import torch

        most = max((len(target.of) for target in targets if target is not None), default=0)
        known = [() if target is None else target.not_exhaustive for target in targets]
        widest = max(map(len, known), default=0)
        n = len(targets)
        collated = {
            "xyxy": torch.zeros(n, most, 4),
            "of": torch.zeros(n, most, dtype=torch.int64),
            **{name: torch.zeros(n, most, dtype=torch.bool) for name in _FLAGS},
            "not_exhaustive": torch.full((n, widest), -1, dtype=torch.int64),
            "known": torch.tensor([target is not None for target in targets], dtype=torch.bool),
        }
        for row, names in enumerate(known):
            collated["not_exhaustive"][row, : len(names)] = torch.tensor([int(k) for k in names])
        for row, target in enumerate(targets):
            if target is None or not target.of:
                continue
            k = len(target.of)
            collated["xyxy"][row, :k] = torch.from_numpy(target.xyxy.copy())
            collated["of"][row, :k] = torch.tensor([int(name) for name in target.of])
            collated["present"][row, :k] = True
            collated["difficult"][row, :k] = torch.from_numpy(target.difficult.copy())
            collated["crowd"][row, :k] = torch.from_numpy(target.crowd.copy())
        return collated

    @classmethod
    def mix_batch(
        cls, targets: dict[str, Tensor], partner: Tensor, share: Tensor
    ) -> dict[str, Tensor]:
        """Raises UsageError: a box does not show by shares."""
        raise UsageError(
            "boxes cannot be mixed on finished images",
            where="key augment.mixing",
            mend="use augment.blend, augment.mosaic or augment.copy_paste",
        )

    def as_dict(self) -> dict[str, Any]:
        """See `Target`."""
        return {
            "xyxy": self.xyxy.tolist(),
            "of": list(self.of),
            "difficult": self.difficult.tolist(),
            "crowd": self.crowd.tolist(),
            "not_exhaustive": list(self.not_exhaustive),
            **({} if self.area is None else {"area": self.area.tolist()}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `Target`."""
        return cls.made(**values)

    def kept(self, kept: Flags) -> Self:
        """Those of the boxes that are `kept` (n,)."""
        return replace(
            self,
            xyxy=self.xyxy[kept],
            of=tuple(name for name, keep in zip(self.of, kept.tolist(), strict=True) if keep),
            difficult=self.difficult[kept],
            crowd=self.crowd[kept],
            area=None if self.area is None else self.area[kept],
        )


_FLAGS = ("present", "difficult", "crowd")
