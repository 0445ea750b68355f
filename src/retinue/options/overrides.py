"""`key=value`: which field a key means, and putting the value there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import NoneType
from typing import Any

from ruamel.yaml.error import YAMLError

from retinue.errors import UsageError, suggest
from retinue.options.base import Options
from retinue.options.typed import Scalar, Unread, chosen, kinds, meant, places, read_yaml
from retinue.options.wording import Location, at, shown

OTHER_WORDS: Mapping[str, str] = {
    "a": "model.name",
    "arch": "model.name",
    "backbone": "model.name",
    "net": "model.name",
    "network": "model.name",
    "imgsz": "input.size",
    "img_size": "input.size",
    "image_size": "input.size",
    "input_size": "input.size",
    "img": "input.size",
    "b": "batch_size",
    "batch": "batch_size",
    "bs": "batch_size",
    "e": "epochs",
    "epoch": "epochs",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "learning_rate": "optimizer.lr",
    "lr0": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "opt": "optimizer.name",
    "sched": "schedule.name",
    "scheduler": "schedule.name",
    "lr_scheduler": "schedule.name",
    "lr_warmup_epochs": "schedule.warmup_epochs",
    "warmup": "schedule.warmup_epochs",
    "num_warmup_steps": "schedule.warmup_steps",
    "fliplr": "augment.horizontal_flip",
    "hflip": "augment.horizontal_flip",
    "flipud": "augment.vertical_flip",
    "vflip": "augment.vertical_flip",
    "degrees": "augment.rotation",
    "scale": "augment.crop_scale",
    "ratio": "augment.crop_ratio",
    "auto_augment": "augment.policy",
    "reprob": "augment.erasing.probability",
    "random_erasing": "augment.erasing.probability",
    "drop": "model.dropout",
    "drop_rate": "model.dropout",
    "drop_path_rate": "model.drop_path",
    "smoothing": "task_options.label_smoothing",
    "clip_grad": "clip_norm",
    "clip_grad_norm": "clip_norm",
    "gradient_clip_val": "clip_norm",
    "accumulate_grad_batches": "accumulate",
    "grad_accum_steps": "accumulate",
    "model_ema_decay": "ema.decay",
    "num_workers": "data.workers",
    "j": "data.workers",
    "data_path": "data.path",
    "data_dir": "data.path",
    "valid_pct": "data.split.val",
    "validation_split": "data.split.val",
    "val_split": "data.split.val",
    "monitor": "evaluation.metric",
    "random_state": "seed",
    "random_seed": "seed",
}
"""What Ultralytics, timm, torchvision, Keras, fastai and Lightning call a field of ours, where the
values mean the same."""

ADVICE: Mapping[str, str] = {
    "pretrained": "model.weights names them: model.weights=imagenet, or null for fresh ones",
    "amp": "precision says it: precision=bf16 or fp32",
    "fp16": "precision says it: precision=fp16",
    "freeze": "stages.N.trainable says what learns: head, all, a number of units or a unit's name",
    "num_classes": "they are the data's; data.classes chooses among them",
    "nc": "they are the data's; data.classes chooses among them",
    "cos_lr": "schedule says it: schedule=cosine",
    "mode": "it is the command: retinue train, evaluate, predict or export",
    "gpu": "device says it: device=cuda:0",
    "project": "--out RUN names the run folder",
    "name": "--out RUN names the run folder",
    "output": "--out RUN names the run folder",
    "output_dir": "--out RUN names the run folder",
    "save_dir": "--out RUN names the run folder",
    "exist_ok": "a run folder is never overwritten: the next one gets a number",
    "gpus": "device=cuda:0 chooses one; several: torchrun -m retinue.cli train …",
    "test_size": "data.split says the shares: data.split.train, .val and .test",
    "train_dir": "data=FOLDER holds train/, val/ and test/",
    "val_dir": "data=FOLDER holds train/, val/ and test/",
}
"""What other tools have, and ours says otherwise."""

Said = Callable[[str], None]


def parse_overrides(texts: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Several `key=value`, each key once, with or without the `prefix`. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        key, value = parse_override(text)
        key = key.removeprefix(prefix)
        if key in found:
            raise UsageError(f"{key} is given twice", where=f"key {key}", mend="give it once")
        found[key] = value
    return found


def parse_override(text: str) -> tuple[str, Any]:
    """`stages.1.epochs=5` to its key and value, which is text until its field is known."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"an override must look like key=value, got {text!r}", mend="for example seed=1"
        )
    return key.strip(), Unread(value)


def put_all(
    schema: Any, values: Any, overrides: Mapping[str, Any], say: Said = lambda _: None
) -> list[Location]:
    """Put every override where it belongs in the nested `values`; gives these places. `say` is told
    where a key was taken for another.

    Raises:
        UsageError: a key that means nothing, or may mean several fields.
    """
    given: list[Location] = []
    for key, value in overrides.items():
        found = meaning(schema, values, key)
        if [dotted(each) for each in found] != [key]:
            say(f"{key} means {', '.join(map(dotted, found))}")
        for location in found:
            given.append(_put(schema, values, location, value))
    return given


def meaning(schema: Any, values: Any, key: str) -> list[Location]:
    """The places in `values` that `key` means: itself, or what its end or another tool's word for
    it names, where that is one field, or the same one of all stages that agree about it today.

    `stages.*.epochs` means that of every stage.

    Raises:
        UsageError: none, or several.
    """
    before, every, after = key.partition(".*.")
    if every:
        count = len(_inside(values, tuple(before.split("."))) or ())
        each = [meaning(schema, values, f"{before}.{k}.{after}") for k in range(count)]
        return [location for found in each for location in found]
    location = tuple(int(p) if _is_index(p) else p for p in key.split("."))
    if location[0] in _names(schema):
        known = location
    else:
        known = tuple(p if isinstance(p, int) else _spelt(p) for p in location)
    if known[0] in _names(schema) and not _strays(schema, values, known):
        return [known]
    everything = list(places(schema, values))
    word = ".".join(map(str, known))
    for wanted in (word, OTHER_WORDS.get(word, "")):
        ending = tuple(int(p) if _is_index(p) else p for p in wanted.split(".") if p)
        if ending and (found := _ending(everything, ending)):
            return _decided(schema, values, key, found)
    if known[0] in _names(schema):
        return [known]  # what holds it is known: the schema says what is wrong with it
    raise unknown(schema, values, key)


def unknown(schema: Any, values: Any, key: str) -> UsageError:
    """That there is no `key`, with the nearest of all that there are."""
    where = f"given as an override, key {key}"
    mend = ADVICE.get(_spelt(key)) or nearest(schema, values, key)
    mend = mend or f"known: {', '.join(_names(schema))}"
    first = key.split(".")[0] if "." in key else key
    return UsageError(f"unknown key {first!r}", where=where, mend=mend)


def means(schema: Any, key: str) -> bool:
    """Whether `key` names one field."""
    try:
        return bool(meaning(schema, {}, key))
    except UsageError:
        return False


def nearest(schema: Any, values: Any, key: str) -> str:
    """`did you mean 'stages.0.optimizer.lr'?`, of all fields there are; empty if none is near."""
    ends: dict[str, list[str]] = {}
    for place in places(schema, values):
        ends.setdefault(str(place[-1]), []).append(dotted(place))
    word = _spelt(key).rpartition(".")[2]
    near = [w for w in (word, OTHER_WORDS.get(word, "").rpartition(".")[2]) if w in ends]
    near = near or re.findall(r"'([^']+)'", suggest(word, ends))
    few = [place for name in near for place in ends[name]][:3]
    return f"did you mean {' or '.join(map(repr, few))}?" if few else ""


def dotted(location: Sequence[int | str]) -> str:
    """`stages.1.epochs`."""
    return ".".join(map(str, location))


def _spelt(word: str) -> str:
    """As our keys are: `Batch-Size` → `batch_size`."""
    return word.strip().lstrip("-").replace("-", "_").lower()


def _names(schema: Any) -> list[str]:
    return [name for options in chosen(schema, None) for name in options.model_fields]


def _strays(schema: Any, values: Any, location: Location) -> bool:
    """Whether `location` begins among the known fields and then leaves them."""
    for depth in range(1, len(location)):
        inner, _ = at(schema, values, location[:depth])
        there = _inside(values, location[:depth])
        options = chosen(inner, there)
        part = location[depth]
        if options and isinstance(part, str) and not any(part in o.model_fields for o in options):
            return True
    return False


def _ending(everything: Sequence[Location], ending: Location) -> list[Location]:
    """The places that `ending` may be short for: it begins with some of their parts and ends as
    they do. Nothing is short for a `name`, which too many things have."""
    if ending == ("name",):
        return []
    if ending in everything:
        return [ending]
    whole = [p for p in everything if p[-len(ending) :] == ending]
    loose = [p for p in everything if p[-1] == ending[-1] and _within(ending, p)]
    found = whole or loose
    of_stages = [p for p in found if len(p) == 2 + len(ending) and isinstance(p[-len(ending) - 1],
                                                                             int)]  # fmt: skip
    return of_stages or [p for p in found if not any(_deeper(p, other) for other in found)]


def _deeper(place: Location, other: Location) -> bool:
    """Whether `place` is in a group within that of `other`: `data.columns.path`, `data.path`."""
    return len(place) > len(other) and place[: len(other) - 1] == other[:-1] != ()


def _within(short: Location, long: Location) -> bool:
    rest = iter(long)
    return all(part in rest for part in short)


def _decided(schema: Any, values: Any, key: str, found: list[Location]) -> list[Location]:
    """The one that is meant of `found`, or all."""
    found = [_leaf(schema, values, place) for place in found]
    patterns = {tuple("N" if isinstance(part, int) else part for part in p) for p in found}
    today = [_today(schema, values, place) for place in found]
    alike = len(patterns) == 1 and all(value == today[0] for value in today)
    if len(found) == 1 or (alike and not _own(schema, values, found[0])):
        return found
    each = [f"{dotted(p)}{_now(v)}" for p, v in zip(found, today, strict=True)]
    mend = f"say which: {' or '.join(each)}"
    if len(patterns) == 1:
        every = ".".join("*" if isinstance(part, int) else part for part in found[0])
        mend += f"; {every} means all"
    raise UsageError(f"{key} may mean several fields", where=f"key {key}", mend=mend)


def _leaf(schema: Any, values: Any, location: Location) -> Location:
    """`stages.0.optimizer` → `stages.0.optimizer.name`: what a value alone means there."""
    wanted, _ = at(schema, values, location)
    options = chosen(wanted, None)
    plain = len(options) == 1 and NoneType not in kinds(wanted)
    alone = getattr(options[0], "alone", None) if plain else None
    return (*location, alone) if alone else location


def _now(value: Any) -> str:
    leaf = value is None or isinstance(value, str | int | float | list | tuple)
    return f" (now {shown(value)})" if leaf else ""


def _own(schema: Any, values: Any, location: Location) -> bool:
    """Whether each element of a list has this field for itself, even where they agree."""
    for depth, part in enumerate(location):
        if isinstance(part, int):
            inner, _ = at(schema, values, location[: depth + 1])
            own = {name for options in chosen(inner, None) for name in getattr(options, "own", ())}
            return location[depth + 1 :][:1] != () and location[depth + 1] in own
    return False


def _today(schema: Any, values: Any, location: Location) -> Any:
    """The value at `location`, its default where none is given."""
    for depth, part in enumerate(location):
        try:
            values = values[part]
        except (LookupError, TypeError):
            inner, _ = at(schema, None, location[:depth])
            fields = (o.model_fields.get(str(part)) for o in chosen(inner, values))
            field = next((f for f in fields if f is not None), None)
            values = None if field is None else field.get_default(call_default_factory=True)
            for rest in location[depth + 1 :]:
                values = getattr(values, str(rest), None)
            return values
    wanted, _ = at(schema, None, location)
    return meant(wanted, values)


def _inside(values: Any, location: Location) -> Any:
    for part in location:
        try:
            values = values[part]
        except (LookupError, TypeError):
            return None
    return values


def _is_index(part: str) -> bool:
    """Whether it numbers a place in a list; a superscript is a digit, too, but no such number."""
    return part.isascii() and part.isdigit() and len(part) < 10


def _put(schema: Any, values: Any, location: Location, value: Any) -> Location:
    """Set the field at `location`, or where a value alone stands for options, the one it means."""
    wanted, _ = at(schema, values, location)
    options = chosen(wanted, None)
    if isinstance(value, Unread) and options and value.strip()[:1] == "{":
        with suppress(YAMLError):
            value = read_yaml(value)
    inner: Any = values
    for depth, part in enumerate(location[:-1]):
        inner = _step(schema, location, depth, inner, part)
    alone = options[0].alone if len(options) == 1 and issubclass(options[0], Options) else None
    if alone and not isinstance(value, Mapping):
        meaning = Scalar(value).meaning if isinstance(value, Unread) else value
        there = _inside(inner, (location[-1],))
        switch = NoneType in kinds(wanted) and (meaning is None or isinstance(meaning, bool))
        if not switch:
            return _put(schema, values, (*location, alone), value)
        value = (there or {}) if meaning else None
    last = location[-1]
    if isinstance(inner, list):
        if not isinstance(last, int) or last >= len(inner):
            raise _no_such(location, inner)
        inner[last] = value
    elif isinstance(inner, Mapping):
        inner[last] = value  # type: ignore[index]
    else:
        raise UsageError(f"{dotted(location[:-1])} has no fields", where=f"key {dotted(location)}")
    return location


def _step(schema: Any, location: Location, depth: int, inner: Any, part: int | str) -> Any:
    """From what holds `location[depth]` into it; options that are not there yet are begun."""
    if isinstance(part, int):
        if not isinstance(inner, list) or part >= len(inner):
            raise _no_such(location[: depth + 1], inner)
        return inner[part]
    if not isinstance(inner, Mapping):
        raise UsageError(f"{dotted(location[: depth + 1])} has no fields",
                         where=f"key {dotted(location)}")  # fmt: skip
    there = inner.get(part)
    if not isinstance(there, Mapping | list):
        options = chosen(at(schema, None, location[: depth + 1])[0], None)
        alone = options[0].alone if options and issubclass(options[0], Options) else None
        absent = there is None or (isinstance(there, Scalar) and there.meaning is None)
        there = {} if absent or not options else {alone: there} if alone else there
        inner[part] = there  # type: ignore[index]
    return there


def _no_such(location: Location, inner: Any) -> UsageError:
    """Of a place in a list that is not there, or a list that is not."""
    last = len(inner) - 1 if isinstance(inner, list) else -1
    mend = f"they are numbered 0 to {last}" if last >= 0 else "it is no list"
    place = dotted(location)
    return UsageError(f"there is no {place}", where=f"key {place}", mend=mend)
