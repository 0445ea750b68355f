"""Detections as other tools' files have them: VOC XML and YOLO txt an image, COCO JSON of all."""

from __future__ import annotations

import io
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from retinue.data.written_boxes import Written, coco_entry, told_by_pixels, voc_xml, yolo_row
from retinue.documents import json_text, read_json, yaml_text
from retinue.errors import RetinueError, UsageError
from retinue.files import write_text
from retinue.sample import ImageSize, Result
from retinue.tasks.forms import Form, Outlet
from retinue.tasks.results import BoxResult, FrameResult, of_image
from retinue.text import counted, few, utf8

FORMS = {name: f"{__name__}:{kind}" for name, kind in (
    ("voc", "VocXml"), ("coco", "CocoJson"), ("yolo", "YoloTxt"))}  # fmt: skip
"""For `Task.forms`."""


def _boxes(result: Result) -> tuple[BoxResult, ImageSize]:
    """The result as one of boxes, and its image's width and height."""
    found = of_image(result)
    if not isinstance(found, BoxResult) or found.size is None:
        raise TypeError(f"{found!r} has no boxes in an image of known size")
    return found, found.size


class VocXml(Form):
    """An XML file an image, in `Annotations/`."""

    lists = ()
    folder = "Annotations"
    _tiny = 0

    def write(self, result: Result) -> None:
        """See `Form`."""
        found, size = _boxes(result)
        place = self.outlet.beside(self.folder, result, ".xml")
        told = told_by_pixels(np.array([box.xyxy for box in found.boxes]).reshape(-1, 4))
        boxes = [box for box, whole in zip(found.boxes, told, strict=True) if whole]
        self._tiny += len(found.boxes) - len(boxes)
        objects = [Written(box.name, box.xyxy, score=box.score) for box in boxes]
        write_text(place, voc_xml(result.path, size, objects))

    def close(self) -> None:
        """See `Form`."""
        if self._tiny:
            objects = counted(self._tiny, "object")
            self.outlet.say(f"{objects} of a pixel or less left out: VOC has no numbers for them")

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return False


class YoloTxt(Form):
    """A text an image, in `labels/`, with a row an object, and `data.yaml` with the classes' names.

    Without scores: what reads labels takes a sixth number for something else.
    """

    names: ClassVar[str] = "data.yaml"
    lists = (names,)
    folder = "labels"
    _head: ClassVar[str] = "# classes of predictions by retinue\n"

    def write(self, result: Result) -> None:
        """See `Form`."""
        found, size = _boxes(result)
        numbers = {name: number for number, name in enumerate(self.classes)}
        rows = [yolo_row(numbers[box.name], box.xyxy, size) + "\n" for box in found.boxes]
        write_text(self.outlet.beside(self.folder, result, ".txt"), "".join(rows))

    def close(self) -> None:
        """See `Form`."""
        names = {number: utf8(name) for number, name in enumerate(self.classes)}
        text = self._head + yaml_text({"nc": len(names), "names": names})
        self.outlet.listed(self.names).write_text(text, encoding="utf-8", newline="")

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line == cls._head


class CocoJson(Form):
    """One `predictions.json`: `images` (all of them, with detections or without), `annotations`
    with a `score` each (a list that COCO's tools take as results, too) and `categories`.

    Ids are those of a reference file, if there is one, else counted from 1; never read off names.
    An image is found in the reference by its path's end: `val/a.jpg` is `a.jpg` there if no other
    image is called so. What the reference lacks gets ids of its own, beyond the greatest there.
    """

    lists = ("predictions.json",)
    _head: ClassVar[str] = '{"info": {"description": "predictions by retinue"},\n"annotations": ['

    def __init__(
        self, outlet: Outlet, classes: Sequence[str], *, reference: Path | None = None
    ) -> None:
        super().__init__(outlet, classes, reference=reference)
        known = Reference() if reference is None else Reference.read(reference)
        self._given = reference is not None
        self._reference = known
        self._categories, others = known.numbered(classes)
        if others and self._given:
            self.outlet.say(
                f"{counted(len(others), 'class is', 'classes are')} not in {str(reference)!r}"
                f" and got ids of their own: {few(others)}"
            )
        self._images = known.free_images()
        self._numbers = count(1)
        self._strange = 0
        self._rows: io.TextIOBase = open(  # noqa: SIM115 - closed by `leave`
            outlet.listed(self.lists[0]), "w", encoding="utf-8", newline=""
        )
        # Beside the annotations: a million images need no memory.
        self._table = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115
        self._rows.write(self._head)
        self._between = "\n"
        self._first = "\n"

    def write(self, result: Result) -> None:
        """See `Form`."""
        found, (width, height) = _boxes(result)
        frame = {} if not isinstance(result, FrameResult) else {
            "frame": result.frame, "time": result.time}  # fmt: skip
        row = None if frame else self._reference.of(result.path)
        if row is None:
            self._strange += 1
            row = {"id": next(self._images), "file_name": utf8(result.path), **frame}
        image = {**row, "width": width, "height": height}
        self._table.write(f"{self._first}{json_text(image)}")
        self._first = ",\n"
        for box in found.boxes:
            entry = coco_entry(
                next(self._numbers), image["id"], self._categories[box.name], box.xyxy,
                score=box.score,
            )  # fmt: skip
            track = {} if box.track is None else {"track_id": box.track}
            self._rows.write(f"{self._between}{json_text(entry | track)}")
            self._between = ",\n"

    def close(self) -> None:
        """See `Form`."""
        if self._given and self._strange:
            logging.getLogger("retinue").warning(
                f"{counted(self._strange, 'image is', 'images are')} not in the reference"
                " and got ids of their own"
            )
        self._rows.write('\n],\n"images": [')
        self._table.seek(0)
        while block := self._table.read(1 << 20):
            self._rows.write(block)
        categories = [
            json_text({"id": number, "name": utf8(name)})
            for name, number in self._categories.items()
        ]
        self._rows.write('\n],\n"categories": [\n' + ",\n".join(categories) + "\n]}\n")
        self._rows.close()

    def leave(self) -> None:
        """See `Form`."""
        self._rows.close()
        self._table.close()

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line == cls._head.split("\n")[0] + "\n"

    @classmethod
    def keeps_numbers(cls) -> bool:
        """See `Form`."""
        return True


_REFERENCE = "give one with images, annotations and categories"


class Reference:
    """The ids of images and categories of a COCO file, whatever they are: numbers or texts."""

    def __init__(
        self, images: Sequence[dict[str, Any]] = (), categories: Sequence[dict[str, Any]] = ()
    ) -> None:
        self._images = [{k: row[k] for k in ("id", "file_name")} for row in images]
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for k, row in enumerate(self._images):
            self._by_name[_last(str(row["file_name"]))].append(k)
        self._categories = [(str(row["name"]), row["id"]) for row in categories]

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Raises UsageError where it is not there, RetinueError where it is no COCO file."""
        try:
            found = read_json(path)
        except OSError as error:
            raise UsageError(
                f"the reference cannot be read: {error.strerror or error}", where=str(path)
            ) from None
        except RetinueError as error:
            error.mend = _REFERENCE
            raise
        for table, keys in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
            rows = found.get(table) if isinstance(found, dict) else None
            if not isinstance(rows, list):
                raise RetinueError(
                    f"this is no COCO file: it has no list {table!r}",
                    where=str(path),
                    mend=_REFERENCE,
                )
            seen = set()
            for number, row in enumerate(rows):
                place = f"{path}, {table}[{number}]"
                if not isinstance(row, dict) or any(key not in row for key in keys):
                    raise RetinueError(f"it lacks {' or '.join(keys)}", where=place)
                if not isinstance(row["id"], int | str) or row["id"] in seen:
                    raise RetinueError(
                        f"the id {row['id']!r} is neither number nor text, or there twice",
                        where=place,
                    )
                seen.add(row["id"])
        return cls(found["images"], found["categories"])

    def of(self, path: str) -> dict[str, Any] | None:
        """`id` and `file_name` of the image at `path`; None if it is not there. RetinueError where
        several might be it."""
        best: list[int] = []
        most = 0
        parts = _parts(path)
        for k in self._by_name.get(_last(path), ()):
            theirs = _parts(str(self._images[k]["file_name"]))
            same = min(len(parts), len(theirs))
            if parts[-same:] != theirs[-same:]:
                continue  # of another folder
            if same > most:
                best, most = [], same
            if same == most:
                best.append(k)
        if len(best) > 1:
            names = [str(self._images[k]["file_name"]) for k in best]
            raise RetinueError(
                f"several images of the reference may be this one: {few(names)}",
                where=repr(path),
                mend="give paths whose folders tell them apart",
            )
        return self._images[best[0]] if best else None

    def numbered(self, classes: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The id of every category of the reference and of every class; and the classes that the
        reference lacks."""
        known = dict(self._categories)
        free = count(1 + max((n for _, n in self._categories if isinstance(n, int)), default=0))
        others = [name for name in classes if name not in known]
        return known | {name: next(free) for name in others}, others

    def free_images(self) -> count[int]:
        """Numbers for further images."""
        numbers = [row["id"] for row in self._images if isinstance(row["id"], int)]
        return count(1 + max(numbers, default=0))


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _last(path: str) -> str:
    return (_parts(path) or [""])[-1]
