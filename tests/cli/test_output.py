"""How figures are printed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retinue.cli.output import figures
from retinue.tasks.shipped import SHIPPED, imported

METRICS = {
    "task": "classification", "split": "test", "images": 656, "top1": 0.884146, "top5": 0.99,
    "loss": 0.34512, "ece": 0.0213, "balanced_accuracy": None, "f1_macro": 0.5,
    "per_class": [{"name": str(k)} for k in range(7)], "engine": "torch", "tta": "none",
    "images_per_second": 1234.5,
}  # fmt: skip


def test_declared_figures_with_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    figures(METRICS)
    assert capsys.readouterr().out.splitlines() == [
        "656 images, test split",
        "  top1                88.41 %   95 % interval 85.7–90.6 %",
        "  top5                99.00 %   95 % interval 97.8–99.5 %",
        "  loss                0.3451",
        "  ece                 0.0213",
        "  f1_macro            50.00 %",
        "1,234 images a second",
    ]


def test_of_all_classes_the_right_one_is_always_among_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures({**METRICS, "per_class": [{"name": str(k)} for k in range(5)]})
    assert "top5" not in capsys.readouterr().out


def test_figures_of_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    figures({"task": "dots", "split": "all", "images": 3, "miss": 0.5, "images_per_second": 2.0})
    assert capsys.readouterr().out.splitlines() == [
        "3 images",
        "  miss                0.5000",
        "2 images a second",
    ]


def test_a_count_is_printed_although_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    figures({"task": "dots", "images": 3, "split": "all", "missed": 7})
    assert capsys.readouterr().out.splitlines()[1] == "  missed              7.0000"


@pytest.mark.parametrize(
    ("said", "own", "meant"),
    [
        ({"split": "test"}, True, None),
        ({"split": "val"}, True, "also chose the best epoch, so"),
        ({"split": "val", "epoch_chosen_on_this_split": False}, True, None),
        ({"split": "val"}, False, None),  # of other data
        (
            {"split": "val", "fitted_on_this_split": ["bias", "temperature"]},
            True,
            "also chose the best epoch, the bias and the temperature, so",
        ),
        ({"split": "val", "fitted_on_this_split": ["bias"]}, False, "also chose the bias, so"),
        ({"split": "val", "trained_on_this_split": True}, True, "was trained on these images"),
        ({"learnt_from": 86, "images": 107}, False, "was trained on 86 of these 107 images"),
        ({"learnt_from": 107, "images": 107}, False, "was trained on these images"),
        ({"split": "train"}, True, "was trained on these images"),
        ({"split": "train"}, False, None),
    ],
)
def test_figures_that_are_no_fair_judgement_say_so(
    capsys: pytest.CaptureFixture[str], said: dict[str, object], own: bool, meant: str | None
) -> None:
    figures({**METRICS, **said}, own=own)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "images a second" in last if meant is None else meant in last


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    """Importing that would take longer than the page."""
    shutil.copytree(Path(__file__).parents[1] / "golden" / "v1" / "pair", tmp_path / "run")
    code = (
        "import sys; from retinue.cli.app import run\n"
        f"code = run(['report', {str(tmp_path / 'run')!r}])\n"
        "print(code, sorted({'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_told_of_a_shipped_task_is_what_it_says_itself(name: str) -> None:
    from retinue.tasks.task import task_type

    told, task = SHIPPED[name], task_type(name)
    assert task.name == name
    assert told.default_metric == task.default_metric
    assert imported(told.sections) is task.sections()
    for figures_in, classes in ((["top3", "loss"], ["a", "b", "c", "d"]), (["auc"], [])):
        told_figures = imported(told.figures_among)(figures_in, classes)
        assert told_figures == task.figures_among(figures_in, classes)


def test_printing_figures_needs_no_torch_and_no_plots() -> None:
    code = (
        "import sys; from retinue.cli.output import figures\n"
        "figures({'task': 'classification', 'images': 2, 'top1': 0.5})\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
