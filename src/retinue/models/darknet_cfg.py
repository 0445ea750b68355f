"""Darknet's `.cfg`: sections in brackets, a layer each, with `key=value` lines.

A key that changes what the network computes is understood or refused; those that only tell how it
was trained are passed over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from retinue.errors import RetinueError, UsageError, some, suggest
from retinue.files import expanded, nearest, read_text
from retinue.text import first_line, shorten

MOST_CHARACTERS = 1_000_000
MOST_SECTIONS = 2_000
LARGEST = 1 << 16
"""Any size, number of filters or of classes."""
SMALLEST = 1e-3
"""Width or height of an anchor, in pixels."""

_ALIASES = {"conv": "convolutional", "max": "maxpool", "network": "net"}

# Keys by section: those that are read, and those that are only for training or for drawing.
_READ = {
    "net": "width height channels",
    "convolutional": "filters size stride pad padding groups dilation batch_normalize activation",
    "maxpool": "size stride padding",
    "route": "layers groups group_id",
    "shortcut": "from activation",
    "upsample": "stride",
    "dropout": "probability",
    "yolo": "mask anchors classes num scale_x_y",
}
_PASSED_OVER = {
    "convolutional": "stopbackward flipped learning_rate_scale",
    "dropout": "dropblock dropblock_size_rel dropblock_size_abs",
    "yolo": "jitter ignore_thresh truth_thresh random iou_thresh iou_normalizer cls_normalizer"
    " obj_normalizer delta_normalizer iou_loss nms_kind beta_nms resize max_delta label_smooth_eps"
    " focal_loss counters_per_class thresh max max_boxes map track_history_size sim_thresh"
    " dets_for_show dets_for_track track_ciou_norm embedding_layer",
}
# Whose default is what a network here always is, and any other value changes what it computes.
_ONLY = {
    "convolutional": {"binary": "0", "xnor": "0", "antialiasing": "0", "sway": "0", "rotate": "0",
                      "share_index": "", "deform": "0", "coordconv": "0"},
    "maxpool": {"antialiasing": "0", "maxpool_depth": "0", "out_channels": "1"},
    "route": {"stopbackward": "0"},
    "shortcut": {"weights_type": "none", "weights_normalization": "none"},
    "upsample": {"scale": "1"},
    "yolo": {"new_coords": "0"},
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A layer as the file has it."""

    kind: str
    line: int
    where: str
    """The file, for errors."""
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    """key → (value, line)."""

    def refused(self, what: str, key: str | None = None, mend: str | None = None) -> RetinueError:
        """The error that says `what`, at the key's line."""
        line = self.values[key][1] if key in self.values else self.line
        return RetinueError(what, where=f"{self.where} line {line}, [{self.kind}]", mend=mend)

    def word(self, key: str, default: str) -> str:
        """A value as it stands."""
        return self.values[key][0] if key in self.values else default

    def whole(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number from `least` to `LARGEST`; without a default it must be there."""
        if key not in self.values:
            if default is None:
                raise self.refused(f"there is no {key}", mend=f"write {key}=…")
            return default
        return self._whole(key, self.values[key][0], least)

    def wholes(self, key: str) -> list[int]:
        """Whole numbers with commas between them, also negative ones; there must be some."""
        if key not in self.values:
            raise self.refused(f"there is no {key}", mend=f"write {key}=…")
        return [self._whole(key, text, -LARGEST) for text in _listed(self.values[key][0])]

    def number(self, key: str, default: float, *, least: float, most: float) -> float:
        """A number from `least` to `most`."""
        return self._number(key, self.word(key, str(default)), least, most)

    def numbers(self, key: str) -> list[float]:
        """Sides of something, from `SMALLEST` on, with commas between them; there must be some."""
        if key not in self.values:
            raise self.refused(f"there is no {key}", mend=f"write {key}=…")
        return [self._number(key, text, SMALLEST, LARGEST) for text in _listed(self.values[key][0])]

    def _whole(self, key: str, text: str, least: int) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= LARGEST:
            between = f"from {least} to {LARGEST}"
            raise self.refused(f"{key} is a whole number {between}, not {shorten(text, 40)!r}", key)
        return value

    def _number(self, key: str, text: str, least: float, most: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:  # NaN, neither
            said = shorten(text, 40)
            raise self.refused(f"{key} is a number from {least:g} to {most:g}, not {said!r}", key)
        return value


def _listed(text: str) -> list[str]:
    return text.rstrip(",").split(",")


def text_of(cfg: str) -> tuple[str, str]:
    """(the text of a cfg, where it stands for errors): `cfg` is that text, or the path of a file.

    Raises:
        UsageError: no such file.
        RetinueError: not text, or implausibly long.
    """
    if "\n" in cfg:
        return cfg, "cfg"
    path = expanded(cfg)
    try:
        if not path.is_file():
            raise UsageError("no such file", where=cfg, mend=nearest(path))
        if path.stat().st_size > 4 * MOST_CHARACTERS:
            raise RetinueError("too long for a network's description", where=cfg)
        text = read_text(path)
    except UnicodeDecodeError:
        mend = "save it as UTF-8"
        raise RetinueError("neither UTF-8 nor UTF-16", where=cfg, mend=mend) from None
    except (OSError, ValueError) as error:
        raise RetinueError(f"unreadable: {first_line(error)}", where=cfg) from error
    return text, cfg


def parse(text: str, where: str = "cfg") -> list[Section]:
    """The sections of a `.cfg`, `[net]` first.

    Raises:
        RetinueError: what is no such text, or a key or section that is not understood; with its
            line.
    """
    if len(text) > MOST_CHARACTERS:
        raise RetinueError("too long for a network's description", where=where)
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        # Darknet takes out all blanks, those within a line, too
        plain = "".join(line.split("#")[0].split(";")[0].split()).lstrip("\ufeff")
        if not plain:
            continue
        if plain.startswith("[") and plain.endswith("]"):
            kind = plain[1:-1].lower()
            sections.append(Section(_ALIASES.get(kind, kind), number, where))
            _check_section(sections)
            continue
        key, equals, value = plain.partition("=")
        if not equals or not key or not sections:
            what = f"neither a section nor key=value: {line.strip()[:60]!r}"
            raise RetinueError(what, where=f"{where} line {number}")
        _take(sections[-1], key, value, number)
    if not sections:
        raise RetinueError("no sections in it, and so no network", where=where)
    if len(sections) == 1:
        raise sections[0].refused("there are no layers")
    return sections


def _check_section(sections: list[Section]) -> None:
    last = sections[-1]
    if last.kind not in _READ:
        known = [kind for kind in _READ if kind != "net"]
        mend = suggest(last.kind, known) or f"there are {', '.join(known)}"
        raise last.refused(f"the layer [{last.kind}] is not known", mend=mend)
    if (last.kind == "net") != (len(sections) == 1):
        raise last.refused("[net] stands first, and only there")
    if len(sections) > MOST_SECTIONS:
        raise last.refused(f"there are more than {MOST_SECTIONS:,} layers")


def _take(section: Section, key: str, value: str, line: int) -> None:
    """Note a key of a section; refuse what is not understood, and what contradicts itself."""
    before = section.values.get(key)
    section.values[key] = (value, line)
    if before is not None and before[0] != value:
        raise section.refused(
            f"{key} is {before[0]} in line {before[1]}, and {value} here", key, "leave one of them"
        )
    if section.kind == "net" or key in _named(_PASSED_OVER, section.kind):
        return
    only = _ONLY.get(section.kind, {})
    if key in only:
        if value not in (only[key], ""):
            raise section.refused(f"{key}={value} is not supported", key)
    elif key not in _named(_READ, section.kind):
        known = sorted(_named(_READ, section.kind))
        mend = suggest(key, known) or f"it takes {some(known, between=', ')}"
        raise section.refused(f"[{section.kind}] has no key {key!r}", key, mend)


def _named(table: dict[str, str], kind: str) -> Collection[str]:
    return table.get(kind, "").split()
