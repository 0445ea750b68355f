"""The model card: its header is read as it is meant, whatever the classes are called, and its text
says what the model file and its run say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from carded import written
from hypothesis import given, settings
from hypothesis import strategies as st

import retinue
from retinue import modelfile
from retinue.documents import load_yaml
from retinue.errors import RetinueError, UsageError
from retinue.exporting.card import readme
from retinue.exporting.header import header, refuse_bad_header
from retinue.tasks.shipped import SHIPPED

ODD = ["no", "1.0", "a: b", "", "~", "null", "y", "0x1F", "12:30", "1_000", "2020-01-01", "=",
       "<<", "- x", "#c", "\x07", "it's", '"q"', "back\\slash", "two\nlines", "\u2028", "\x85",
       "😀", "猫 & dog/1", "\ufeff", "%d", "@x", "`", "| pipe", "<b>", " blank ", "---", "...",
]  # fmt: skip


def test_names_that_look_like_something_else() -> None:
    values = {"classes": ODD, "no": "y", "on": 1, "figures": [1e-05, 1.0, 3, True, None, 1e20]}
    text = header(values)
    assert yaml.safe_load(text) == values, "as hubs' Python libraries read it, by YAML 1.1"
    assert load_yaml(text) == values, "as hubs read it, by YAML 1.2"


values = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip


def within(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


plain = st.recursive(values, within, max_leaves=8)


@settings(max_examples=30)
@given(st.dictionaries(st.text("abcdefnoy-:_ 1", max_size=6), plain, min_size=1, max_size=4))
def test_any_values_are_read_back(values: dict[str, Any]) -> None:
    assert yaml.safe_load(header(values)) == values


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(RetinueError, match="cannot say nan"):
        header({"value": float("nan")})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A card\n", "no YAML header"),
        ("---\na: 1\n", "does not end"),
        ("---\na: b: c\n---\n", "no YAML.*line"),
        ("---\n- a\n---\n", "no mapping"),
        ("---\nlicense: no\n---\n", "license is no text: False"),
        ("---\nlicense: 1.0\n---\n", "license is no text"),
        ("", "no YAML header"),
    ],
)
def test_a_bad_header_of_ones_own(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        refuse_bad_header(text, "card.md")
    assert caught.value.where == "card.md"


def test_a_good_header_of_ones_own() -> None:
    refuse_bad_header("\ufeff---\r\nlicense: mit\r\n---\r\n# Mine\n", "card.md")


def test_the_text(tmp_path: Path) -> None:
    text = readme(written(tmp_path / "m.safetensors"), repository="me/flowers", licence="mit")
    top, body = text.split("---\n")[1], text.split("---\n", 2)[2]
    read = yaml.safe_load(top)
    assert read["classes"] == ["no", "1.0", "a: b", "x|`y`"]
    assert read["license"] == "mit"
    assert read["pipeline_tag"] in {shipped.on_hubs for shipped in SHIPPED.values()}
    [model] = read["model-index"]
    assert model["name"] == "flowers"
    figures = {one["type"]: one["value"] for one in model["results"][0]["metrics"]}
    assert figures["top1"] == 0.875
    for said in (
        "# flowers",
        "A model for image classification, 4 classes (`card_tiny`), made with retinue 9.9.",
        "It says which of these an image shows: `no`, `1.0`, `a: b`, `` x\\|`y` ``.",
        "Of the val split, 40 images", "| 87.5 % (73.9–94.5 %) |",
        "retinue pull me/flowers", "retinue.load('flowers')", "The model is licensed `mit`.",
        "the weights “imagenet”", "licence ", "32 × 32 pixels",
    ):  # fmt: skip
        assert said in body, said
    assert "````yaml\nmodel:" in body, "a fence that nothing in the recipe closes"
    assert str(tmp_path) not in text


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "m.safetensors")
    described, tensors = modelfile.read(file)
    bare = described.model_copy(update={"recipe": None, "figures": {}})
    modelfile.write(file, tensors, bare)
    text = readme(file, data="Flowers from above.\n")
    for said in (
        "None are known: evaluate it", "has not said by which licence", "random weights",
        "Flowers from above.\n\nIt says which", "What it was trained on is not known",
    ):  # fmt: skip
        assert said in text
    assert "license:" not in text
    assert "model-index" not in text
    assert not re.search(r"retinue pull", text)


def test_a_folder_of_a_run_tells_more(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    written(run / "best.safetensors", classes=["a", "b"])
    (run / "recipe.yaml").write_text("task: classification\n")
    (run / "classes.json").write_text('["a", "b"]')
    (run / "splits.csv").write_text("path,label,split,target\nx.png,a,train,1\ny.png,b,test,2\n")
    (run / "metrics.json").write_text(
        '{"task": "classification", "split": "train", "images": 10, "top1": 0.5}'
    )
    text = retinue.model_card(run)
    assert "1 train, 1 test images" in text
    assert "Of the train split, 10 images" in text
    assert "**The network was trained on these images" in text
    assert "50.0 %" in text


def test_a_card_of_ones_own(tmp_path: Path) -> None:
    file = written(tmp_path / "m.safetensors")
    own = tmp_path / "card.md"
    own.write_text("---\nlicense: mit\n---\n# Mine\n")
    assert retinue.model_card(file, card=own) == own.read_text()
    with pytest.raises(UsageError, match="licence"):
        retinue.model_card(file, card=own, licence="mit")
    with pytest.raises(UsageError, match=r"no such file.*did you mean"):
        retinue.model_card(file, card=tmp_path / "cart.md")


def test_no_cell_is_empty_and_no_number_has_seventeen_digits(tmp_path: Path) -> None:
    file = written(tmp_path / "m.safetensors")
    described, tensors = modelfile.read(file)
    told = {"top1": 1 / 3, "loss": 0.7949999999999999, "top1_main": 0.5, "images": 30}
    modelfile.write(file, tensors, described.model_copy(update={"figures": told}))
    text = readme(file)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 8
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").replace("\\|", "").split("|")), row
    [model] = yaml.safe_load(text.split("---\n")[1])["model-index"]
    values = [one["value"] for one in model["results"][0]["metrics"]]
    assert values[:2] == [0.333333, 0.795]


def test_intervals_are_spoken_of_only_where_there_are_some(tmp_path: Path) -> None:
    file = written(tmp_path / "m.safetensors")
    described, tensors = modelfile.read(file)
    modelfile.write(file, tensors, described.model_copy(update={"figures": {"loss": 0.5}}))
    assert "in brackets" not in readme(file)
