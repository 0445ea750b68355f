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


@pytest.mark.parametrize("given", ["best.safetensors", "last", "last/000001", "recipe.yaml"])
def test_who_names_something_in_a_run_is_told_the_run(tmp_path: Path, given: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(UsageError, match=r"no run folder.*did you mean '.*/run'"):
        RunFolder.open(tmp_path / "run" / given)


def test_who_names_a_run_without_its_place_is_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "finetune").mkdir(parents=True)
    (tmp_path / "runs" / "finetune" / "recipe.yaml").touch()
    with pytest.raises(UsageError, match="did you mean 'runs/finetune'"):
        RunFolder.open(Path("finetune"))
    with pytest.raises(UsageError, match="give the folder that the training named"):
        RunFolder.open(Path("other"))
