"""Answers as contests take them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.sample import Result
from retinue.tasks.classification.forms import Submission
from retinue.tasks.results import ClassResult


class Folder:
    """An outlet whose files are there at once."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def listed(self, name: str) -> Path:
        assert name in Submission.lists
        return self.place / name

    def beside(self, folder: str, result: Result, suffix: str) -> Path:
        raise AssertionError("no file of a single image")

    def say(self, line: str) -> None:
        raise AssertionError(line)


def written(place: Path, *results: ClassResult) -> dict[str, str]:
    form = Submission(Folder(place), ["7", "12", "a b"])
    for result in results:
        form.write(result)
    form.close()
    form.leave()
    return {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()}


def test_a_line_an_image(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        ClassResult("test/x.1.jpg", [("12", 0.9), ("7", 0.1)]),
        ClassResult("C:\\new\\猫 & dog.png", [("a b", 0.6)]),
    )
    assert found == {"submission.tsv": "12\tx.1\na b\t猫 & dog\n"}
    assert Submission.wrote("submission.tsv", "12\tx.1")


def test_a_file_a_classifier_and_one_of_both(tmp_path: Path) -> None:
    heads = {"main": ("7", 0.8), "auxiliary": ("12", 0.7)}
    found = written(tmp_path, ClassResult("x.jpg", [("12", 0.5), ("7", 0.4)], heads))
    assert found == {
        "submission.tsv": "12\tx\n",
        "submission_main.tsv": "7\tx\n",
        "submission_auxiliary.tsv": "12\tx\n",
    }


def test_nothing_to_answer_is_an_empty_list(tmp_path: Path) -> None:
    assert written(tmp_path) == {"submission.tsv": ""}


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\r\nb"])
def test_no_name_breaks_its_line(tmp_path: Path, name: str) -> None:
    found = written(tmp_path, ClassResult(f"{name}.jpg", [(name, 1.0)]))
    assert found == {"submission.tsv": "a b\ta b\n"}
