"""What each command passes on and prints; the work itself is replaced."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinue import api
from retinue.api import Predictions
from retinue.tasks.results import Box, BoxResult, ClassResult

Command = Callable[..., Any]
FIGURES = {
    "task": "classification",
    "split": "test",
    "images": 656,
    "top1": 0.884146,
    "loss": 0.3,
    "ece": 0.02,
    "per_class": [],
    "engine": "torch",
}


class Recorder:
    """Stands in for a function of the api; keeps what it was given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.given: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.hands_over: list[Any] = []

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.given, self.named = given, named
        for each in self.hands_over:
            named["each"](each)
        return self.answer


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], Recorder]:
    def put(name: str, answer: Any) -> Recorder:
        recorder = Recorder(answer)
        monkeypatch.setattr(api, name, recorder, raising=False)
        return recorder

    return put


def finished(folder: Path, **skipped: str) -> SimpleNamespace:
    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text("")
    best = folder / "best.safetensors"
    return SimpleNamespace(folder=folder, figures=FIGURES, best=best, skipped=skipped, parts=())


def test_train_passes_overrides_as_they_are_written(
    retinue: Command, replace: Any, tmp_path: Path
) -> None:
    train = replace("train", finished(tmp_path / "run"))
    code, out, _ = retinue(
        "train", "finetune", "data=my photos/", "stages.1.epochs=5", "ema=null", "-q", "--out", "x"
    )
    assert code == 0
    assert train.given == ("finetune",)
    assert train.named["overrides"] == {"data": "my photos/", "stages.1.epochs": "5", "ema": "null"}
    assert train.named["out"] == "x"
    assert train.named["quiet"] is True
    assert "88.41 %   95 % interval 85.7–90.6 %" in out
    assert "656 images, test split" in out
    assert str(tmp_path / "run" / "best.safetensors") in out
    assert str(tmp_path / "run" / "report.html") in out


def test_train_as_json(retinue: Command, replace: Any, tmp_path: Path) -> None:
    replace("train", finished(tmp_path / "run"))
    code, out, _ = retinue("train", "finetune", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["figures"] == FIGURES
    assert told["report"] == str(tmp_path / "run" / "report.html")


def test_train_resumes(retinue: Command, replace: Any, tmp_path: Path) -> None:
    train = replace("train", finished(tmp_path / "run"))
    assert retinue("train", tmp_path / "run", "--resume").code == 0
    assert train.named["resume"] is True


def test_a_helping_process_is_silent(retinue: Command, replace: Any, tmp_path: Path) -> None:
    replace("train", SimpleNamespace(folder=tmp_path, figures={}, best=tmp_path, skipped={}))
    assert retinue("train", "finetune") == (0, "", "")


def test_skipped_files_are_named_counted_and_end_in_3(
    retinue: Command, replace: Any, tmp_path: Path
) -> None:
    replace("train", finished(tmp_path / "run", **{"a\nb [red].jpg": "zero bytes", "c": "cut"}))
    code, _, err = retinue("train", "finetune")
    assert code == 3
    assert "skipped a\\nb [red].jpg: zero bytes\n" in err
    assert "2 files were skipped" in err


def test_many_skipped_files_are_counted(retinue: Command, replace: Any) -> None:
    replace("evaluate", {**FIGURES, "skipped": {f"{i}.jpg": "cut" for i in range(500)}})
    code, _, err = retinue("evaluate", "model")
    assert code == 3
    assert err.count("\n") == 52
    assert "and 450 more" in err
    assert "500 files were skipped" in err


def test_evaluate(retinue: Command, replace: Any) -> None:
    evaluate = replace("evaluate", FIGURES)
    code, out, _ = retinue(
        "evaluate", "run", "--data", "p", "--split", "val", "--engine", "torch", "--tta", "flip",
        "--out", "o", "--batch-size", 7, "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    assert evaluate.given == ("run",)
    expected = {
        "data": "p", "split": "val", "engine": "torch", "tta": "flip", "out": "o",
        "batch_size": 7, "device": "cpu",
    }  # fmt: skip
    assert expected.items() <= evaluate.named.items()
    assert "written to o" in out
    assert json.loads(retinue("evaluate", "run", "--json").out) == FIGURES


def test_evaluate_takes_its_data_as_train_does(retinue: Command, replace: Any) -> None:
    evaluate = replace("evaluate", FIGURES)
    assert retinue("evaluate", "run", "my photos/", "--split", "val").code == 0
    assert evaluate.named["data"] == "my photos/"
    assert retinue("evaluate", "run").code == 0
    assert evaluate.named["data"] is None
    code, out, err = retinue("evaluate", "run", "p", "--data", "q")
    assert (code, out) == (2, "")
    assert "the data is given twice, 'p' and 'q'" in err


def test_predict_prints_answers_without_a_folder(retinue: Command, replace: Any) -> None:
    results = [
        ClassResult("a [bold]\n.jpg", [("cat", 0.9), ("dog", 0.1)]),
        BoxResult("b.jpg", [Box("car", 0.5, (1.0, 2.0, 3.0, 4.0))]),
    ]
    predict = replace("predict", Predictions(2, {}, [], []))
    predict.hands_over = results
    code, out, _ = retinue("predict", "model", "a", "b", "--on-bad-image", "stop")
    assert code == 0
    assert predict.given == ("model", ["a", "b"])
    assert predict.named["on_bad_image"] == "stop"
    assert out == "a [bold]\\n.jpg\tcat 90.0%\tdog 10.0%\nb.jpg\tcar 50.0% 1 2 3 4\n"
    lines = retinue("predict", "model", "a", "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == [result.as_dict() for result in results]


def test_predict_to_a_folder(
    retinue: Command, replace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("o/drawn").mkdir(parents=True)
    files = [Path("o/predictions.csv"), Path("o/drawn")]
    predict = replace("predict", Predictions(4, {"x.jpg": "cut"}, files, [], frames=3))
    code, out, err = retinue("predict", "m", "x", "--out", "o", "--format", "csv", "--draw")
    assert code == 3
    assert (predict.named["format"], predict.named["draw"]) == ("csv", True)
    assert out == "1 image and 3 frames\n  o/predictions.csv\n  o/drawn/\n"
    assert "skipped x.jpg: cut" in err
    told = json.loads(retinue("predict", "m", "x", "--out", "o", "--json").out)
    assert told == {
        "images": 4, "frames": 3, "files": ["o/predictions.csv", "o/drawn"],
        "skipped": {"x.jpg": "cut"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--overlap", "0.3"], "there are no tiles that could overlap"),
        (["--fps", "5", "--out", "o"], "--fps measures and answers nothing: --out has no effect"),
        (["--fps", "5", "--count"], "--count has no effect"),
        (["--fps", "5", "--every", "2"], "--every has no effect"),
        (["--fps", "5", "--overlap", "0"], "--overlap has no effect"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    retinue: Command, replace: Any, line: list[str], said: str
) -> None:
    for name in ("predict", "speed"):
        replace(name, None)
    code, _, err = retinue("predict", "model", "a", *line)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("option", ["format", "reference"])
def test_what_is_of_a_list_needs_one(retinue: Command, replace: Any, option: str) -> None:
    predict = replace("predict", Predictions(1, {}, [], []))
    code, out, err = retinue("predict", "model", "a", f"--{option}", "coco")
    assert (code, out, predict.given) == (2, "", ())
    assert err == f"error: --{option} needs a folder to write to, --{option}, add --out DIR\n"


def test_predict_counts(retinue: Command, replace: Any) -> None:
    video = {"path": "a.mp4", "frames": 3, "lines": {"gate": {"cat": {"right": 1, "left": 0}}}}
    counts = {"images": 1, "objects": {"cat\n": 1200}, "videos": [video]}
    done = Predictions(4, {}, [], [], counts, frames=3)
    predict = replace("predict", done)
    line = ["predict", "m", "x", "--count", "--zones", "z.yaml", "--track", "--every", "3",
            "--tiles", "640", "--overlap", "0.25"]  # fmt: skip
    code, out, _ = retinue(*line)
    assert code == 0
    wanted = {"count": True, "places": "z.yaml", "track": True, "every": 3, "tiles": 640,
              "overlap": 0.25, "crops": False}  # fmt: skip
    assert wanted.items() <= predict.named.items()
    assert out.splitlines() == [
        "images  1", "objects  cat\\n  1,200", "path  a.mp4", "frames  3",
        "lines  gate  cat  right  1", "lines  gate  cat  left  0",
    ]  # fmt: skip
    assert json.loads(retinue(*line, "--json").out)["counts"] == counts
    told = json.loads(retinue(*line, "--json", "--out", "o").out)
    assert told["counts"] == counts


def test_predict_measures_speed(retinue: Command, replace: Any) -> None:
    spent = {
        "decode_ms": 1.5, "preprocess_ms": 2.0, "network_ms": 1234.5, "postprocess_ms": 0.25,
        "milliseconds": 1238.25, "fps": 0.8076, "runs": 20, "images": 1, "engine": "torch",
        "device": "cpu", "views": 2,
    }  # fmt: skip
    speed = replace("speed", spent)
    code, out, _ = retinue("predict", "m", "x", "--fps", "20", "--tta", "flip")
    assert code == 0
    assert speed.named["runs"] == 20
    assert out.splitlines()[2].split() == ["network", "1,234.50", "ms"]
    assert "0.8076 images a second" in out
    assert "medians of 20 runs over 1 image, one after the other; torch on cpu, 2 views" in out
    assert json.loads(retinue("predict", "m", "x", "--fps", "20", "--json").out) == spent


def test_recipes(retinue: Command, tmp_path: Path) -> None:
    assert "finetune" in retinue("recipes").out
    headers = json.loads(retinue("recipes", "--json").out)
    assert {"name", "title", "cost"} <= set(headers[0])
    text = retinue("recipes", "finetune").out
    assert "stages:" in text
    target = tmp_path / "mine.yaml"
    assert retinue("recipes", "finetune", "--copy", target).code == 0
    assert target.read_text(encoding="utf-8") == text
    code, _, err = retinue("recipes", "finetune", "--copy", target)
    assert code == 2
    assert "there already" in err
    assert retinue("recipes", target).out == text
    assert json.loads(retinue("recipes", "finetune", "--json").out)["stages"]


def test_models(retinue: Command) -> None:
    rows = json.loads(retinue("models", "resnet*", "--sort", "params", "--json").out)
    sizes = [row["parameters"] for row in rows]
    assert sizes == sorted(sizes)
    assert sizes[0] == 11_689_512
    code, out, _ = retinue("models", "resnet*")
    assert code == 0
    assert len(out.splitlines()) == len(rows) + 1
    detail = retinue("models", "resnet50").out
    assert "25,557,032" in detail
    assert "arxiv.org" in detail
    (row,) = json.loads(retinue("models", "resnet50", "--json").out)
    assert sum(unit["parameters"] for unit in row["units"]) == 25_557_032
    assert row["features"][-1] == {"name": "C5", "channels": 2048, "stride": 32}


def test_a_network_stage_by_stage(retinue: Command) -> None:
    out = retinue("models", "resnet50").out
    assert "stages.3\t3\t2048 × 7 × 7\t15.0 M\t809 M\t427 px\t32\tC5" in out
    assert "head\t\t1000\t2.05 M\t2.05 M\tall\t\t" in out
    assert "imagenet_v2\t80.9 %\t95.4 %\t224 px\tBSD-3-Clause" in out
    assert "imagenet_v2: https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in out
    (row,) = json.loads(retinue("models", "resnet50", "--json").out)
    assert sum(stage["macs"] for stage in row["stages"]) == row["macs"]
    assert row["weights"][1]["top1"] == 0.80858
    assert "give a file" in retinue("models", "alexnet_half").out


def test_networks_by_family_size_and_weights(
    retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinue.models import registry

    registry.list_models()
    monkeypatch.delitem(registry._ENTRIES, "tiny", raising=False)  # of other tests

    def names(*arguments: str) -> list[str]:
        return [row["name"] for row in json.loads(retinue("models", *arguments, "--json").out)]

    assert set(names("--family", "vgg", "--max-params", "133M")) == {"vgg11", "vgg11_bn"}
    small = names("--max-macs", "0.1G", "--sort", "macs")
    # What `darknet` is by default, the example of a description, is the least of all.
    assert small[:3] == ["darknet", "mnist_cnn", "mobilenet_v3_small_050"]
    assert "mobilenet_v2" not in small
    assert "alexnet_half" in names("alexnet*")
    assert "alexnet_half" not in names("alexnet*", "--with-weights")
    best = json.loads(retinue("models", "--sort", "top1", "--json").out)
    accuracies = [max((w["top1"] or 0 for w in row["weights"]), default=0) for row in best]
    assert accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-params", "many"], "'many' is no amount"),
        (["--family", "resnets"], "did you mean 'resnet'"),
        (["resnet*", "--max-params", "1k"], "that match passes the filters"),
        (["vit"], "`retinue models --family vit`"),
    ],
)
def test_networks_that_are_not_there(retinue: Command, arguments: list[str], message: str) -> None:
    code, _, err = retinue("models", *arguments)
    assert code == 2
    assert message in err


def test_report(retinue: Command, replace: Any) -> None:
    replace("write_report", Path("run/report.html"))
    assert retinue("report", "run") == (0, "run/report.html\n", "")
    assert json.loads(retinue("report", "run", "--json").out) == {"report": "run/report.html"}


def test_checks(retinue: Command, replace: Any) -> None:
    found = {
        "versions": {"torch": "2.13.0", "openvino": None},
        "auto": {"engine": "openvino", "amx": True},
        "devices": ["cpu"],
    }
    replace("checks", found)
    out = retinue("checks").out
    assert "torch     2.13.0" in out
    assert "amx     yes" in out
    assert json.loads(retinue("checks", "--json").out) == found


def test_demo(retinue: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [ClassResult("cells/7.png", [("functional", 0.9), ("defective", 0.1)])]
    predictions = SimpleNamespace(
        images=1, skipped={}, files=[Path("run/predictions.jsonl")], results=answers
    )
    run = finished(tmp_path / "run")
    labels = {"cells/7.png": ["defective"]}
    demo = Recorder(SimpleNamespace(run=run, predictions=predictions, labels=labels))
    monkeypatch.setattr("retinue.demos.demo", demo)
    code, out, _ = retinue("demo", "--out", "x")
    assert code == 0
    assert demo.given == ("cells",)
    assert demo.named == {"out": "x"}
    assert "7.png  functional 90.0%  (wrong, labelled defective)" in out
    assert out.splitlines()[-1] == f"report  {tmp_path / 'run' / 'report.html'}"


def test_predicting_on_an_empty_list_is_told(retinue: Command, replace: Any) -> None:
    replace("predict", Predictions(0, {}, [], []))
    code, out, err = retinue("predict", "model", "-")
    assert (code, out) == (0, "")
    assert err == "nothing was predicted: the list names no files\n"


def test_data_check(retinue: Command, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        for i in range(4):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + i, 40), (60 * i, 20, 90)).save(path)
    assert retinue("data", "check", tmp_path / "photos").code == 0
    (tmp_path / "photos" / "cat" / "new\nline.png").write_bytes(b"")
    code, out, err = retinue("data", "check", tmp_path / "photos", "split.seed=3")
    assert code == 3
    assert "unreadable\t1\t" in out
    assert "new\\nline.png: " in err
    assert "1 file was skipped" in err
    told = json.loads(retinue("data", "check", tmp_path / "photos", "--json").out)
    assert told["classes"] == {"cat": 5, "dog": 4}


def test_data_check_ends_as_training_would(retinue: Command, tmp_path: Path) -> None:
    from PIL import Image

    for i in range(4):
        path = tmp_path / "photos" / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 40), (60 * i, 20, 90)).save(path)
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes(b"")
    code, out, err = retinue("data", "check", tmp_path / "photos")
    assert code == 1
    assert "only one class\t1\t" in out
    assert "broken.png: " in err
    code, out, _ = retinue("data", "check", tmp_path / "photos", "--json")
    assert code == 1
    assert [f["what"] for f in json.loads(out)["findings"] if f["fatal"]] == ["only one class"]


def test_data_check_refuses_unknown_options(retinue: Command, tmp_path: Path) -> None:
    code, _, err = retinue("data", "check", tmp_path, "imagse=photos")
    assert code == 2
    assert err == (
        "error: unknown key 'imagse', given as an override, key imagse, did you mean"
        " 'features.image' or 'images'?\n"
    )
    code, _, err = retinue("data", "check", tmp_path, "split.seeed=2")
    assert code == 2
    assert err == (
        "error: unknown key 'seeed', given as an override, key split.seeed, did you mean 'seed'?\n"
    )
    code, _, err = retinue("data", "check", tmp_path, "path=photos")
    assert (code, err) == (2, "error: the path is given already, key path, give one path\n")
    code, _, err = retinue("data", "check", tmp_path, "split.train=2")
    assert code == 2
    assert "key split.train" in err
    code, _, err = retinue("data", "check", tmp_path / "absent")
    assert code == 2
    assert "absent" in err


def test_a_dry_run_shows_the_plan(retinue: Command, replace: Any, tmp_path: Path) -> None:
    lines = ["found 3 classes", "it will take about 3:07 min in all"]
    plan = SimpleNamespace(lines=lambda: iter(lines), as_dict=lambda: {"notes": lines})
    train = replace("train", plan)
    code, out, _ = retinue("train", "finetune", "data=photos", "--dry-run")
    assert (code, out.splitlines()) == (0, lines)
    assert train.named["dry_run"] is True
    assert json.loads(retinue("train", "finetune", "--dry-run", "--json").out) == {"notes": lines}
    assert retinue("train", tmp_path, "--dry-run", "--resume").code == 2


def test_clean_says_what_is_freed_and_what_others_lose(
    retinue: Command, replace: Any, tmp_path: Path
) -> None:
    from retinue.training.features.clearing import Cleared

    clean = replace("clean", Cleared(tmp_path, {"1-a": 190_000_000}, 190_000_000, 0))
    code, out, _ = retinue("clean")
    assert (code, clean.named["dry_run"]) == (0, True)
    assert "190.0 MB of cached features in" in out
    assert "190.0 MB  1-a  features\n" in out
    assert "`retinue clean --all` clears them" in out
    retinue("clean", "--all")
    assert clean.named["dry_run"] is False
    replace("clean", Cleared(tmp_path, {"1-a": 20}, 20, 5_000_000, (tmp_path / "roses",)))
    code, out, _ = retinue("clean", "runs/x")
    assert "cleared" in out
    assert "shared with roses: computed anew" in out
    assert "5.0 MB of other runs stay" in out
    assert json.loads(retinue("clean", "runs/x", "--json").out)["freed"] == 20
    assert retinue("clean", "runs/x", "--all").code == 2
    both = {"1-a": 20_000_000, "1-b": 5_000_000}
    users = {"1-a": ("roses", "tulips")}
    replace("clean", Cleared(tmp_path, both, 0, 0, packed=frozenset({"1-b", "1-c"}), users=users))
    out = retinue("clean").out
    assert "25.0 MB of cached features and packed images in" in out
    assert "20.0 MB  1-a  features of roses, tulips\n" in out
    assert "5.0 MB  1-b  packed images\n" in out
    assert json.loads(retinue("clean", "--json").out)["packed"] == ["1-b"]
    replace("clean", Cleared(tmp_path, {}, 0, 0, engines=70_000_000))
    assert "70.0 MB of compiled engines cleared" in retinue("clean", "--all").out
    assert json.loads(retinue("clean", "--json").out)["engines"] == 70_000_000
