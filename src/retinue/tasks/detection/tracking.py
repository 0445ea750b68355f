"""Numbers for things through the frames of a video: ByteTrack (Zhang et al., 2022).

A track is a box that moves at a constant speed, with a Kalman filter's doubt about both (Wojke et
al., 2017, "DeepSORT"). In each frame, tracks are first matched with the detections that are sure,
by overlap and score; what is left of them then with the unsure ones, which half-hidden things are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retinue.evaluation.boxes import iou_matrix
from retinue.sample import Result
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.results import Box, BoxResult
from retinue.tasks.task import Follower

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

SURE, BEGIN, LOW = 0.5, 0.6, 0.1
"""Scores from which a detection is sure, begins a new track, and may still be a known thing; see
`even`."""
FIRST, SECOND, NEW = 0.8, 0.5, 0.7
"""Greatest costs of a match, 1 − IoU · score or 1 − IoU: of tracks with sure detections, with
unsure ones, and of tracks that one frame has begun."""
PATIENCE = 30
"""Frames for which a thing that is not seen keeps its number."""
SAME = 0.15
"""Two tracks whose boxes differ by less, as 1 − IoU, are one."""


@dataclass(eq=False, slots=True)
class Track:
    """One thing, or what may become one."""

    mean: Array
    """(8,): centre x, centre y, width over height, height, and the speed of each, a frame."""
    covariance: Array
    """(8, 8)"""
    of: int
    number: int = 0
    """0 until a second frame has confirmed it."""
    began: int = 0
    seen: int = 0
    """The last frame with a detection of it."""
    lost: bool = False
    """Whether the filter alone says where it is."""


class ByteTrack:
    """Of one video. Numbers begin with 1 and are never given twice."""

    def __init__(self, *, patience: int = PATIENCE) -> None:
        self._tracks: list[Track] = []
        self._frame = 0
        self._given = 0
        self._patience = patience

    def update(self, found: Candidates, least: npt.NDArray[np.float32]) -> Places:
        """The number of each of the detections of the next frame, int64 (k,); 0: none yet, or of
        nothing known. `found` are after suppression, what is not sure among them; `least` (k,):
        from which score each is sure."""
        found = replace(found, score=even(found.score, least))
        self._frame += 1
        numbers = np.zeros(len(found), np.int64)
        self._foresee()
        sure, low = found.score >= SURE, found.score >= LOW
        certain, unsure = np.flatnonzero(sure), np.flatnonzero(low & ~sure)
        known = [track for track in self._tracks if track.number]
        fresh = [track for track in self._tracks if not track.number]

        rest, certain = self._match(known, found, certain, numbers, FIRST, by_score=True)
        going = [track for track in rest if not track.lost]
        missed, _ = self._match(going, found, unsure, numbers, SECOND)
        for track in missed:
            track.lost = True
        gone, certain = self._match(fresh, found, certain, numbers, NEW, by_score=True)

        kept = [
            track
            for track in self._tracks
            if track not in gone and self._frame - track.seen <= self._patience
        ]
        for k in certain[found.score[certain] >= BEGIN].tolist():
            kept.append(_begun(found.xyxy[k], int(found.of[k]), self._frame))
        self._tracks = _apart(kept, self._frame)
        return numbers

    def _foresee(self) -> None:
        """Where each should be in this frame."""
        for track in self._tracks:
            if track.lost:
                track.mean[7] = 0  # nobody sees it grow
        if self._tracks:
            mean = np.stack([track.mean for track in self._tracks])
            covariance = np.stack([track.covariance for track in self._tracks])
            mean, covariance = foreseen(mean, covariance)
            for k, track in enumerate(self._tracks):
                track.mean, track.covariance = mean[k], covariance[k]

    def _match(
        self,
        tracks: Sequence[Track],
        found: Candidates,
        places: Places,
        numbers: Places,
        most: float,
        *,
        by_score: bool = False,
    ) -> tuple[list[Track], Places]:
        """The tracks and the detections among `places` that find no partner; those that do are
        brought up to date, and `numbers` filled in."""
        if not tracks or not len(places):
            return list(tracks), places
        shared = iou_matrix(_boxes(tracks), found.xyxy[places]).astype(np.float64)
        if by_score:
            shared = shared * found.score[places]
        of = np.array([track.of for track in tracks])
        cost = np.where(of[:, None] == found.of[places], 1 - shared, np.inf)
        rows, columns = assigned(cost, most)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            place = int(places[column])
            track = tracks[row]
            measured = _measured(found.xyxy[place])
            track.mean, track.covariance = corrected(track.mean, track.covariance, measured)
            if not track.number:
                self._given += 1
                track.number = self._given
            track.seen, track.lost = self._frame, False
            numbers[place] = track.number
        alone = np.setdiff1d(np.arange(len(tracks)), rows)
        return [tracks[k] for k in alone.tolist()], np.delete(places, columns)


def even(score: npt.NDArray[np.float32], least: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores (k,) as they would be if each were sure from `SURE` on, in place of `least` (k,):
    0, `least` and 1 become 0, `SURE` and 1, and straight between. A model that is right from 0.2 on
    is followed as one that is from 0.5 on."""
    below = SURE * score / np.maximum(least, 1e-6)
    above = SURE + (1 - SURE) * (score - least) / np.maximum(1 - least, 1e-6)
    return np.where(score < least, below, np.minimum(above, 1)).astype(np.float32)


def assigned(cost: Array, most: float) -> tuple[Places, Places]:
    """The pairs (rows, columns) of the matching of least cost, where leaving two alone costs
    `most`: no pair costs more."""
    from scipy.optimize import linear_sum_assignment  # a third of a second, for videos alone

    capped = np.minimum(cost, most)
    rows, columns = linear_sum_assignment(capped)
    good = cost[rows, columns] <= most
    return rows[good].astype(np.int64), columns[good].astype(np.int64)


# --- the filter ----------------------------------------------------------------------------------

_PLACE, _SPEED = 1 / 20, 1 / 160
"""Doubt about place and speed, as shares of the height (Wojke et al.)."""
_MOVES = np.eye(8) + np.eye(8, k=4)


def _doubt(height: Array, place: float, speed: float, aspect: float, change: float) -> Array:
    """Variances (n, 8) for things of `height` (n,)."""
    one = np.ones_like(height)
    along = [place * height, place * height, aspect * one, place * height]
    speeds = [speed * height, speed * height, change * one, speed * height]
    return np.square(np.stack([*along, *speeds], axis=-1))


def begun(measured: Array) -> tuple[Array, Array]:
    """Mean (8,) and covariance (8, 8) of what was seen once at `measured` (4,): centre x, centre y,
    width over height, height."""
    mean = np.concatenate([measured, np.zeros(4)])
    variances = _doubt(measured[None, 3], 2 * _PLACE, 10 * _SPEED, 1e-2, 1e-5)[0]
    return mean, np.diag(variances)


def foreseen(mean: Array, covariance: Array) -> tuple[Array, Array]:
    """(n, 8) and (n, 8, 8), a frame later."""
    noise = _doubt(mean[:, 3], _PLACE, _SPEED, 1e-2, 1e-5)
    later = mean @ _MOVES.T
    return later, _MOVES @ covariance @ _MOVES.T + noise[:, :, None] * np.eye(8)


def corrected(mean: Array, covariance: Array, measured: Array) -> tuple[Array, Array]:
    """(8,) and (8, 8) after it was seen at `measured` (4,)."""
    noise = np.diag(_doubt(mean[None, 3], _PLACE, 0, 1e-1, 0)[0, :4])
    spread = covariance[:4, :4] + noise
    gain = np.linalg.solve(spread, covariance[:4]).T
    better = mean + gain @ (measured - mean[:4])
    return better, covariance - gain @ spread @ gain.T


def _measured(xyxy: npt.NDArray[np.float32]) -> Array:
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    height = max(y2 - y1, 1e-3)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / height, height])


def _begun(xyxy: npt.NDArray[np.float32], of: int, frame: int) -> Track:
    mean, covariance = begun(_measured(xyxy))
    return Track(mean, covariance, of, began=frame, seen=frame)


def _boxes(tracks: Sequence[Track]) -> npt.NDArray[np.float32]:
    """(n, 4) x1, y1, x2, y2 where the filter has them."""
    x, y, aspect, height = np.stack([track.mean[:4] for track in tracks]).T
    width, height = np.maximum(aspect * height, 0), np.maximum(height, 0)
    sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return np.stack(sides, axis=1).astype(np.float32)


def _apart(tracks: list[Track], frame: int) -> list[Track]:
    """Without the younger one where a track that is seen and one that is lost are the same."""
    seen = [track for track in tracks if track.number and not track.lost]
    lost = [track for track in tracks if track.lost]
    if not seen or not lost:
        return tracks
    same = (1 - iou_matrix(_boxes(seen), _boxes(lost))) < SAME
    dropped = set()
    for row, column in np.argwhere(same).tolist():
        one, other = seen[row], lost[column]
        if one.of == other.of:
            ages = (one.seen - one.began, other.seen - other.began)
            dropped.add(id(other if ages[0] > ages[1] else one))
    return [track for track in tracks if id(track) not in dropped]


# --- of a task -----------------------------------------------------------------------------------


class Following(Follower):
    """Results whose boxes have the numbers of things."""

    def __init__(
        self,
        classes: Sequence[str],
        confidence: float | Sequence[float],
        suppressed: Callable[[Candidates, Sequence[float]], Candidates],
        *,
        patience: int = PATIENCE,
    ) -> None:
        """`confidence`: the least score that counts, for all classes or for each; `suppressed`:
        the candidates of a least score, one for each class, that are left after suppression."""
        self._classes = tuple(classes)
        self._least = np.broadcast_to(np.asarray(confidence, np.float32), (len(self._classes),))
        self._suppressed = suppressed
        self._tracks = ByteTrack(patience=patience)

    def result(self, finding: Candidates, path: str) -> Result:
        """See `Follower`. What scores less than it should is there where it is a known thing."""
        found = self._suppressed(finding, (LOW / SURE * self._least).tolist())
        least = self._least[found.of]
        numbers = self._tracks.update(found, least)
        boxes = [
            Box(self._classes[of], score, tuple(at), number or None)
            for of, score, at, number, counts in zip(
                found.of.tolist(), found.score.tolist(), found.xyxy.tolist(), numbers.tolist(),
                (found.score >= least).tolist(), strict=True,
            )
            if counts or number
        ]  # fmt: skip
        return BoxResult(path, boxes, finding.size, tracked=True)
