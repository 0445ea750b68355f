"""One definition of a broken image, whichever way one meets it: found at once, and remembered."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import damaged
import numpy as np
import pytest
import tiny

from retinue import modelfile
from retinue.data import readable, remembered
from retinue.data.check import CheckReport, check
from retinue.data.decode import Encoded
from retinue.data.loader import Loader, in_order
from retinue.data.options import AugmentOptions, DataOptions
from retinue.data.readable import unreadable
from retinue.data.remembered import Remembered, facts
from retinue.data.sources import walking
from retinue.data.sources.member import Member
from retinue.data.views import EvalView, TrainView
from retinue.errors import BadImageError
from retinue.files import Entry, entries
from retinue.inference.predictor import Skipped, load
from retinue.modelfile import ModelDescription
from retinue.models import registry
from retinue.sample import Preprocessing, Sample
from retinue.tasks.task import task_type

if TYPE_CHECKING:
    from salted import SaltedFolder

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded

SIZES = (8, 16, 32, 64, 128)
"""Of the input, so that JPEGs are decoded at every scale."""


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Path → name of the damaged and of the odd ones, in two class folders."""
    root = tmp_path_factory.mktemp("files")
    found: dict[str, dict[str, str]] = {}
    for kind in (damaged.damaged, damaged.odd):
        folder = root / kind.__name__
        folder.mkdir()
        found[kind.__name__] = {}
        for name, content in kind().items():
            (folder / name).write_bytes(content)
            os.utime(folder / name, (1e9, 1e9))  # long ago: what has just changed is not settled
            found[kind.__name__][str(folder / name)] = name
    return found


def samples_of(files: dict[str, dict[str, str]]) -> list[Sample]:
    return [Sample(path) for kind in files.values() for path in kind]


def check_of(path: Path) -> CheckReport:
    return check(DataOptions(path=str(path), workers=2), task_type("classification").readers())


def by_check(paths: Sequence[str]) -> set[str]:
    return set(check_of(Path(paths[0]).parent.parent).unreadable)


def by_scan(paths: Sequence[str]) -> set[str]:
    return set(unreadable([Sample(path) for path in paths], workers=2))


def by_loader(paths: Sequence[str], size: int, training: bool) -> set[str]:
    how = Preprocessing(size=(size, size))
    augment = AugmentOptions(crop_scale=(0.5, 1.0))
    view = TrainView(augment, how, 0) if training else EvalView(how)
    loader = Loader(view, workers=2, bad_images="drop")
    plans = in_order(map(Sample, paths), 8, (size, size))
    for _ in loader.batches(plans):
        pass
    return set(loader.skipped)


def by_predictor(paths: Sequence[str], folder: Path) -> set[str]:
    own = "tiny" not in registry.list_models()
    tiny.register()
    network = registry.create_model("tiny", num_classes=2)
    description = ModelDescription(
        task="classification",
        classes=["a", "b"],
        network="tiny",
        arguments={"num_classes": 2},
        preprocessing=Preprocessing(size=(32, 32)).as_dict(),
    )
    modelfile.write(folder / "best.safetensors", network.state_dict(), description)
    predictor = load(folder / "best.safetensors", device="cpu", engine="torch", workers=2)
    answers = list(predictor.predict(paths))
    if own:
        del registry._ENTRIES["tiny"]
    return {answer.path for answer in answers if isinstance(answer, Skipped)}


def test_all_ways_agree_on_what_is_broken(files: dict[str, dict[str, str]], tmp_path: Path) -> None:
    assert len(files["damaged"]) >= 22
    paths = [sample.key for sample in samples_of(files)]
    ways: dict[str, set[str]] = {"check": by_check(paths), "scan": by_scan(paths)}
    ways["predict"] = by_predictor(paths, tmp_path)
    for size in SIZES:
        for training in (False, True):
            ways[f"loader {size} {training}"] = by_loader(paths, size, training)
    for way, bad in ways.items():
        wrong = bad ^ set(files["damaged"])
        assert not wrong, (way, sorted(Path(path).name for path in wrong))


def test_odd_files_look_as_they_should() -> None:
    whole = Encoded(damaged.encoded("JPEG", quality=90), path="whole").decode().image.astype(int)
    for name, content in damaged.odd().items():
        if name.startswith(("lossless", "cmyk")):
            continue
        image = Encoded(content, path=name).decode().image
        assert np.abs(image - whole).mean() < 16, name


def test_a_lossless_jpeg_does_not_end_the_process() -> None:
    columns = Encoded(damaged.LOSSLESS, path="it").decode((1, 1)).image[0, :, 0]
    assert columns.tolist() == list(range(0, 128, 8))


def test_photographs_are_sound(shared: Callable[[str], Path]) -> None:
    paths = sorted(shared("data/flowers5").rglob("*.jpg"))[::25]
    assert paths
    assert not unreadable([Sample(str(path)) for path in paths], workers=2)


def test_scan(salted: SaltedFolder) -> None:
    bad = unreadable([Sample(str(p)) for p in [*salted.good, *salted.bad]])
    assert set(bad) == {str(path) for path in salted.bad}
    for path, word in salted.bad.items():
        assert word in bad[str(path)]


def test_a_thumbnails_end_is_not_the_pictures() -> None:
    whole = encoded(picture(1, (96, 96)), "JPEG")
    thumbnail = encoded(picture(2, (16, 16)), "JPEG")
    block = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = whole[:2] + block + whole[2:]
    assert not unreadable([Sample("whole", lambda: content)])
    (reason,) = unreadable([Sample("cut", lambda: content[:-300])]).values()
    assert reason.startswith("truncated")


# --- remembering ---------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the samples that are decoded."""
    seen: list[str] = []
    judge = readable.refuse_unreadable

    def noted(sample: Sample) -> None:
        seen.append(sample.key)
        judge(sample)

    monkeypatch.setattr(readable, "refuse_unreadable", noted)
    return seen


@pytest.fixture
def six(tmp_path: Path) -> list[Sample]:
    """Six files that have not changed for long, the last one broken."""
    samples = []
    for k in range(6):
        path = tmp_path / f"{k}.jpg"
        path.write_bytes(encoded(picture(k), "JPEG") if k < 5 else b"no image")
        os.utime(path, (1e9 + k, 1e9 + k))
        samples.append(Sample(str(path)))
    return samples


def test_sound_files_are_looked_at_once(six: list[Sample], decoded: list[str]) -> None:
    assert list(unreadable(six)) == [six[5].key]
    assert sorted(decoded) == sorted(sample.key for sample in six)
    decoded.clear()
    assert list(unreadable(six)) == [six[5].key]
    assert decoded == [six[5].key]


@pytest.mark.parametrize("change", ["time", "size", "mended"])
def test_what_changes_is_looked_at_again(
    six: list[Sample], decoded: list[str], change: str
) -> None:
    unreadable(six)
    decoded.clear()
    path = Path(six[5 if change == "mended" else 2].key)
    if change != "time":
        path.write_bytes(encoded(picture(7), "JPEG", quality=50))
    os.utime(path, (1.1e9, 1.1e9))
    bad = unreadable(six)
    assert list(bad) == ([] if change == "mended" else [six[5].key])
    assert str(path) in decoded


def test_what_has_just_been_written_is_not_remembered(tmp_path: Path, decoded: list[str]) -> None:
    path = tmp_path / "new.jpg"
    path.write_bytes(encoded(picture(1), "JPEG"))
    for _ in range(2):
        assert not unreadable([Sample(str(path))])
    assert decoded == [str(path)] * 2


def test_members_of_a_file_are_told_apart(tmp_path: Path, decoded: list[str]) -> None:
    good = encoded(picture(1), "JPEG")
    shard = tmp_path / "shard"
    shard.write_bytes(good + b"no image")
    os.utime(shard, (1e9, 1e9))
    samples = [
        Sample("good", Member(str(shard), 0, len(good))),
        Sample("bad", Member(str(shard), len(good), 8)),
    ]
    for _ in range(2):
        assert list(unreadable(samples)) == ["bad"]
    assert decoded == ["good", "bad", "bad"]


def store() -> Path:
    (file,) = (Path(os.environ["RETINUE_CACHE"]) / "images").glob("*.sound")
    return file


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_store_counts_as_empty(
    six: list[Sample], decoded: list[str], damage: str
) -> None:
    unreadable(six)
    content = store().read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    store().write_bytes(
        {"cut": content[:-3], "flipped": flipped, "empty": b"", "other": b"x" * 99}[damage]
    )
    decoded.clear()
    assert list(unreadable(six)) == [six[5].key]
    assert len(decoded) == 6
    decoded.clear()
    unreadable(six)
    assert len(decoded) == 1


def test_other_decoders_begin_anew(
    six: list[Sample], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(six)
    monkeypatch.setattr(remembered, "RULES", -1)
    decoded.clear()
    unreadable(six)
    assert len(decoded) == 6


def test_the_store_is_bounded_and_keeps_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LIMIT", 10)
    for k in range(1, 5):
        one = Remembered(tmp_path)
        one.add(np.arange(4 * k, 4 * k + 4, dtype=np.uint64))
        one.write()
    keys = np.arange(24, dtype=np.uint64)
    known = Remembered(tmp_path).knows(keys)
    assert known.sum() == 10
    assert known[12:20].all()


def _remember(folder: Path, number: int) -> None:
    for k in range(20):
        one = Remembered(folder)
        one.add(np.array([1 + 100 * number + k], dtype=np.uint64))
        one.write()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        several = multiprocessing.get_context("fork")
        children = [several.Process(target=_remember, args=(tmp_path, k)) for k in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
    keys = np.array([1 + 100 * n + k for n in range(3) for k in range(20)], dtype=np.uint64)
    assert Remembered(tmp_path).knows(keys).all()


def test_a_store_that_cannot_be_written_costs_time_only(
    six: list[Sample], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "file"))
    assert list(unreadable(six)) == [six[5].key]


def test_progress_is_told_and_samples_may_be_any_sequence(six: list[Sample]) -> None:
    class Made(Sequence[Sample]):
        """Samples that are made when they are asked for."""

        def __len__(self) -> int:
            return len(six)

        def __getitem__(self, k):  # type: ignore[no-untyped-def]
            assert isinstance(k, int)
            return six[k]

    told: list[tuple[int, int]] = []
    bad = unreadable(Made(), progress=lambda done, total: told.append((done, total)))
    assert list(bad) == [six[5].key]
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_processes_share_the_work(six: list[Sample], decoded: list[str]) -> None:
    found = [unreadable(six, part=(k, 4)) for k in range(4)]
    assert [list(bad) for bad in found] == [[], [six[5].key], [], []]
    assert decoded == [six[k].key for k in (0, 4, 1, 5, 2, 3)]
    decoded.clear()
    unreadable(six)
    assert decoded == [six[5].key]


def test_facts_are_none_where_there_is_no_file(tmp_path: Path) -> None:
    odd = ["gone.jpg", "a\0b", "x" * 5000, str(tmp_path / ("y" * 300))]
    samples = [*map(Sample, odd), Sample("array", lambda: np.zeros((2, 2, 3), np.uint8))]
    assert facts(samples).tolist() == [0] * 5


# --- what is no file -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for k in range(2):
        (folder / f"{k}.jpg").write_bytes(encoded(picture(k), "JPEG"))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    (folder / "good link.jpg").symlink_to(folder / "0.jpg")
    expected = {
        "pipe.jpg": "is a named pipe, not a file",
        "link.jpg": "is a named pipe, not a file",
        "device.jpg": "is a device, not a file",
        "circle.jpg": "Too many levels of symbolic links",
    }
    paths = [str(path) for path in sorted(folder.iterdir())]
    for bad in (
        unreadable([Sample(path) for path in paths]),
        check_of(tmp_path).unreadable,
    ):
        assert {Path(path).name: reason for path, reason in bad.items()} == expected


def test_a_large_file_that_is_no_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "video.jpg"
    with open(path, "wb") as file:
        file.write(b"\0\0\0\x18ftypmp42")
        file.truncate(200_000_000)
    tracemalloc.start()
    with pytest.raises(BadImageError, match="not an image"):
        readable.refuse_unreadable(Sample(str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_odd_names_and_links_never_end_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(6):
        path = tmp_path / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(k), "JPEG"))
    (tmp_path / "a" / ("x" * 251 + ".jpg")).write_bytes(encoded(picture(7), "JPEG"))
    odd = os.fsencode(tmp_path / "a") + b"/\xff\xfe.jpg"
    with open(odd, "wb") as file:
        file.write(encoded(picture(8), "JPEG"))
    (tmp_path / "b" / "loop").symlink_to("loop")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "b" / "self.jpg").symlink_to("self.jpg")
    report = check_of(tmp_path)
    assert report.images == 9
    assert {Path(path).name for path in report.unreadable} == {"self.jpg"}
    json.dumps(report.as_dict())

    def shut(folder: str | os.PathLike[str]) -> list[Entry]:
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied", str(folder))
        return entries(folder)

    (tmp_path / "b" / "deep").mkdir()
    monkeypatch.setattr(walking, "entries", shut)  # the superuser may look into all of them
    (wrong,) = (f for f in check_of(tmp_path).findings if f.what == "errors")
    assert wrong.fatal
    assert "Permission denied" in wrong.items[0]
    assert "deep" in wrong.items[0]


def test_overlong_names_in_a_table_are_rows_without_a_file(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / f"{k}.jpg").write_bytes(encoded(picture(k), "JPEG"))
    rows = [f"{k}.jpg,{'ab'[k % 2]}" for k in range(4)]
    rows += ["z" * 300 + ".jpg,a", "q/" * 3000 + "w.jpg,a", "0.jpg/1.jpg,b"]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows))
    report = check_of(tmp_path / "t.csv")
    assert report.images == 4
    (missing,) = (f.items for f in report.findings if f.what == "labels without images")
    assert len(missing) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are named pipes on POSIX alone")
def test_a_pipe_in_the_place_of_the_store_is_no_store(tmp_path: Path) -> None:
    keys = np.array([3, 5], np.uint64)
    before = Remembered(tmp_path)
    before.add(keys)
    before.write()
    (store,) = tmp_path.glob("*.sound")
    store.unlink()
    os.mkfifo(store)
    store_is_a_pipe = Remembered(tmp_path)
    assert not store_is_a_pipe.knows(keys).any()
    store_is_a_pipe.add(keys)
    store_is_a_pipe.write()
    assert Remembered(tmp_path).knows(keys).all()
