"""Drawn videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest

from retinue.errors import RetinueError
from retinue.inference.recording import Recording
from retinue.inference.video import open_video


def read_back(path: Path) -> list[np.ndarray[Any, Any]]:
    return [frame.pixels for frame in open_video(str(path)).frames()]


def test_a_recording_keeps_times(tmp_path: Path) -> None:
    frames = clips.numbered(6, (33, 21))
    with Recording(tmp_path / "a.mp4", 10.0) as recording:
        for frame, moment in zip(frames, (0, 0.1, 0.2, 0.6, 0.7, 0.8), strict=True):
            recording.add(frame, moment)
    seen = read_back(tmp_path / "a.mp4")
    assert [clips.number(pixels) for pixels in seen] == [0, 1, 2, 3, 3, 3, 3, 4, 5]
    assert seen[0].shape == (22, 34, 3), "an odd side is not cut"


def test_a_recording_survives_another_size_and_leaves_nothing_after_an_error(
    tmp_path: Path,
) -> None:
    with Recording(tmp_path / "a.mp4", 2000.0) as recording:
        recording.add(np.zeros((20, 40, 3), np.uint8), 0)
        recording.add(np.full((60, 30, 3), 240, np.uint8), 0.01)
    assert [round(float(pixels.mean()), -1) for pixels in read_back(tmp_path / "a.mp4")] == [0, 240]

    def broken() -> None:
        with Recording(tmp_path / "b.mp4", 25.0) as recording:
            recording.add(np.zeros((20, 40, 3), np.uint8), 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_a_full_disk_cuts_short_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recording(tmp_path / "a.mp4", 25.0) as recording:
        recording.add(np.zeros((20, 40, 3), np.uint8), 0)
    before = (tmp_path / "a.mp4").read_bytes()

    def cut_short(recording: Recording) -> None:
        for number in range(5):
            recording.add(np.full((20, 40, 3), 40 * number, np.uint8), number / 25)
        assert recording._writer is not None
        recording._writer.release()
        content = recording._temporary.read_bytes()
        recording._temporary.write_bytes(content[: len(content) // 2])
        recording.close()

    with pytest.raises(RetinueError, match="could not be written as a whole"):
        cut_short(Recording(tmp_path / "a.mp4", 25.0))
    assert (tmp_path / "a.mp4").read_bytes() == before
    Recording(tmp_path / "b.mp4", 25.0).close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"], "without a frame there is no video"
