"""Whether a folder holds files of a kind, without a walk through all of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from box_sets import write

from retinue.data.sources.looking import ending_in, first_file


def test_the_first_by_name_of_the_highest_folder_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a.json", "yes")
    assert first_file(tmp_path, ending_in(".json"), _says_yes) == tmp_path / "deep" / "a.json"
    for name in ("c.json", "B.JSON", ".a.json", "a.txt"):
        write(tmp_path / name, "yes")
    assert first_file(tmp_path, ending_in(".json"), _says_yes) == tmp_path / "B.JSON"


def test_few_are_opened_and_none_too_deep(tmp_path: Path) -> None:
    opened: list[str] = []

    def fits(path: Path) -> bool:
        opened.append(path.name)
        return _says_yes(path)

    for k in range(5):
        write(tmp_path / f"{k}.json", "yes" if k == 4 else "no")
    assert first_file(tmp_path, ending_in(".json"), fits) is None
    assert opened == ["0.json", "1.json", "2.json"]
    assert first_file(tmp_path, ending_in(".json"), fits, opened=5) == tmp_path / "4.json"
    write(tmp_path.joinpath("s", *"12345") / "x.json", "yes")
    assert first_file(tmp_path / "s", ending_in(".json"), fits) is None
    assert first_file(tmp_path / "s" / "1", ending_in(".json"), fits) is not None


def test_what_cannot_be_opened_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "gone")
    write(tmp_path / "b.json", "yes")
    assert first_file(tmp_path, ending_in(".json"), _says_yes) == tmp_path / "b.json"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from retinue.files import read_file

    os.mkfifo(tmp_path / "a.json")
    assert first_file(tmp_path, ending_in(".json"), lambda p: bool(read_file(p))) is None


def _says_yes(path: Path) -> bool:
    return path.read_text() == "yes"
