"""A line of words as people type it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinue import api

Command = Callable[..., Any]


@pytest.fixture
def asked(retinue: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`asked("photos/", "epochs=3")` → the recipe and overrides that a training is begun with."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("a=b").mkdir()
    seen: list[tuple[Any, Any]] = []

    def train(recipe: Any, *, overrides: Any, **_: Any) -> Any:
        seen.append((recipe, overrides))
        return SimpleNamespace(figures={})

    monkeypatch.setattr(api, "train", train)

    def line(*words: str) -> Any:
        code, _, err = retinue("train", *words)
        assert code == 0, err
        return seen.pop()

    return line


@pytest.mark.parametrize(
    ("words", "recipe", "overrides"),
    [
        ("photos", "photos", {}),
        ("finetune photos", "finetune", {"data": "photos"}),
        ("finetune photos/", "finetune", {"data": "photos/"}),
        ("finetune elsewhere/photos", "finetune", {"data": "elsewhere/photos"}),
        ("finetune labels.csv", "finetune", {"data": "labels.csv"}),
        ("finetune a=b", "finetune", {"data": "a=b"}),
        ("finetune --data photos", "finetune", {"data": "photos"}),
        ("--data photos finetune", "finetune", {"data": "photos"}),
        ("--data photos", "photos", {}),
        ("data=photos", "photos", {}),
        ("data=photos finetune", "finetune", {"data": "photos"}),
        ("finetune --epochs 3", "finetune", {"epochs": "3"}),
        ("finetune --epochs=3 photos", "finetune", {"epochs": "3", "data": "photos"}),
        ("finetune --lr -1", "finetune", {"lr": "-1"}),
        ("finetune -b 64 -q", "finetune", {"b": "64"}),
        ("finetune --compile --epochs 3", "finetune", {"compile": "true", "epochs": "3"}),
        ("finetune --compile seed=1", "finetune", {"compile": "true", "seed": "1"}),
        ("finetune --stages.1.epochs 3", "finetune", {"stages.1.epochs": "3"}),
    ],
)
def test_words_in_any_order(
    asked: Command, words: str, recipe: str, overrides: dict[str, str]
) -> None:
    assert asked(*words.split()) == (recipe, overrides)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("finetune --resum", "no such option: --resum, did you mean '--resume'?"),
        ("finetune --quite", "no such option: --quite, did you mean '--quiet'?"),
        ("finetune seed", "an override looks like key=value"),
        ("finetune phots", "did you mean 'photos'?"),
        ("finetune photos photos", "the data is given twice, 'photos' and 'photos'"),
        ("finetune photos data=x", "the data is given twice, 'photos' and 'x'"),
        ("finetune seed=1 seed=2", "seed is given twice"),
        ("seed=1", "no recipe is named"),
        ("finetune --foo 3", "unknown key 'foo'"),
        ("finetune --output-dir x", "--out RUN names the run folder"),
        ("fintune", "did you mean 'finetune'?"),
    ],
)
def test_what_is_not_understood(
    retinue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    code, out, err = retinue("train", *words.split())
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "report"])
def test_a_missing_model_is_told_before_anything_else(
    retinue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("roses", "tulips"):
        run = Path("runs", name)
        run.mkdir(parents=True)
        (run / "best.safetensors").write_bytes(b"")
        (run / "recipe.yaml").write_text("")
    more = {"predict": ["nowhere.jpg"], "export": ["--to", "timm"]}.get(command, [])
    for missing, mend in (
        ("runs/rose", "did you mean 'runs/roses'?"),
        ("roses", "did you mean 'runs/roses'?"),
        ("runs/qqq", "there are runs/roses, runs/tulips"),
    ):
        code, _, err = retinue(command, missing, *more)
        assert code == 2
        assert f"there is no such {'run folder' if command == 'report' else 'model'}" in err
        assert "nowhere" not in err
        assert mend in err


def test_an_override_may_be_longer_than_the_name_of_any_file(asked: Command) -> None:
    classes = [f"class_{number}" for number in range(1000)]
    _, overrides = asked("finetune", "photos", f"data.classes=[{','.join(classes)}]")
    assert overrides == {"data": "photos", "data.classes": f"[{','.join(classes)}]"}
    _, overrides = asked("photos", f"--data.classes=[{','.join(classes)}]")
    assert list(overrides) == ["data.classes"]
