"""What of a prediction is done stays done, whatever kills it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from retinue.bulk.manifest import FOLDER, Manifest, is_begun
from retinue.bulk.predicting import part_size
from retinue.documents import NotJson
from retinue.errors import RetinueError, UsageError

REQUEST: dict[str, Any] = {"sources": "abc", "rows": 7, "models": ["m"], "options": {}, "part": 3,
           "batch_size": 1}  # fmt: skip


def lines(start: int, end: int) -> bytes:
    return b"".join(b'{"id": %d, "path": "x"}\n' % row for row in range(start, end))


def test_parts(tmp_path: Path) -> None:
    assert not is_begun(tmp_path)
    with Manifest.opened(tmp_path, REQUEST) as manifest:
        assert [manifest.bounds(k) for k in range(len(manifest))] == [(0, 3), (3, 6), (6, 7)]
        assert manifest.missing() == [0, 1, 2]
        manifest.keep(1, lines(3, 6))
    assert is_begun(tmp_path)
    with Manifest.opened(tmp_path, {**REQUEST, "part": 5, "batch_size": 5}) as manifest:
        assert (manifest.part, manifest.batch_size) == (3, 1), "as it was begun"
        assert manifest.missing() == [0, 2]
        manifest.keep(0, lines(0, 3))
        manifest.keep(2, lines(6, 7))
        assert manifest.missing() == []
        assert b"".join(map(manifest.lines, range(3))) == lines(0, 7)
        manifest.done()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [lines(3, 5), lines(3, 7), lines(2, 5), lines(3, 6)[:-1], lines(3, 6)[:-2] + b"\n", b"",
     lines(3, 4) + lines(3, 4) + lines(5, 6), lines(3, 4) + lines(5, 6) + lines(4, 5)],
)  # fmt: skip
def test_a_part_with_other_rows_is_none(tmp_path: Path, wrong: bytes) -> None:
    with Manifest.opened(tmp_path, REQUEST) as manifest:
        with pytest.raises(NotJson):
            manifest.keep(1, wrong)
        (tmp_path / FOLDER / "part-000001.jsonl").write_bytes(wrong)
        assert manifest.missing() == [0, 1, 2], "damaged since: done again"
        assert not (tmp_path / FOLDER / "part-000001.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"sources": "abd"}, "other images"), ({"models": ["n"]}, "another model"),
     ({"options": {"a": 1}}, "other options"), ({"rows": 8}, "another number"),
     ({"tta": "flip"}, "another tta")],
)  # fmt: skip
def test_another_request(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with Manifest.opened(tmp_path, REQUEST) as manifest:
        manifest.keep(1, lines(3, 6))
    with (
        pytest.raises(UsageError, match=rf"{said}.*lies here.*to begin anew"),
        Manifest.opened(tmp_path, {**REQUEST, **change}),
    ):
        pass
    with Manifest.opened(tmp_path, REQUEST) as manifest:
        assert manifest.missing() == [0, 2], "what was there is untouched"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"part": 0}', '{"part": true}', "nothing"])
def test_a_damaged_request(tmp_path: Path, text: str) -> None:
    with Manifest.opened(tmp_path, REQUEST) as manifest:
        manifest.keep(1, lines(3, 6))
        (tmp_path / FOLDER / "request.json").write_text(text)
    with pytest.raises(RetinueError), Manifest.opened(tmp_path, REQUEST):
        pass


def test_a_start_that_came_to_nothing_binds_nobody(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Manifest.opened(tmp_path, REQUEST):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "request.json").write_text("killed here")
    with Manifest.opened(tmp_path, {**REQUEST, "rows": 8}) as manifest:
        assert manifest.rows == 8


def test_two_at_once(tmp_path: Path) -> None:
    with (
        Manifest.opened(tmp_path, REQUEST),
        pytest.raises(RetinueError, match="another prediction is at work"),
        Manifest.opened(tmp_path, REQUEST),
    ):
        pass


def test_who_begins_as_another_ends_keeps_lock_and_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Manifest] = []
    with ExitStack() as second:

        class Lock(FileLock):
            def release(self, force: bool = False) -> None:
                super().release(force)
                if not begun:
                    begun.append(second.enter_context(Manifest.opened(tmp_path, REQUEST)))

        monkeypatch.setattr("retinue.bulk.manifest.FileLock", Lock)
        with Manifest.opened(tmp_path, REQUEST):
            pass
        begun[0].keep(0, lines(0, 3))
        assert is_begun(tmp_path)
        with pytest.raises(RetinueError, match="at work"), Manifest.opened(tmp_path, REQUEST):
            pass


def test_a_lock_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[bool] = []

    class Lock(FileLock):
        def acquire(self, *arguments: Any, **more: Any) -> Any:
            had = super().acquire(*arguments, **more)
            if not gone:
                gone.append(True)
                shutil.rmtree(tmp_path / FOLDER)
            return had

    monkeypatch.setattr("retinue.bulk.manifest.FileLock", Lock)
    with (
        Manifest.opened(tmp_path, REQUEST),
        pytest.raises(RetinueError, match="at work"),
        Manifest.opened(tmp_path, REQUEST),
    ):
        pass


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100, 5_000, 10**6, 10**9])
def test_parts_are_whole_batches_and_not_too_many(rows: int) -> None:
    size = part_size(rows, 32)
    assert size % 32 == 0
    assert -(-rows // size) <= 4_096
    if rows == 100:
        assert -(-rows // size) == 4, "so that two actors have something to do"
