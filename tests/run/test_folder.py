"""What stands in the folder of a run."""

from pathlib import Path

import pytest

from retinue.errors import RetinueError, UsageError
from retinue.run.folder import RunFolder


def test_a_number_that_json_does_not_know_replaces_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_json("metrics.json", {"loss": 0.5})
    with pytest.raises(RetinueError, match=r"no JSON .*metrics\.json"):
        run.write_json("metrics.json", {"loss": float("nan")})
    assert run.read_json("metrics.json") == {"loss": 0.5}


@pytest.mark.parametrize("under", [".", "deeper", "deeper/still"])
def test_a_file_is_no_folder_for_a_run(tmp_path: Path, under: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"this is a file.*notes\.txt"):
        RunFolder.create(tmp_path / "notes.txt" / under, "run")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
