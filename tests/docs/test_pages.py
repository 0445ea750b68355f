"""The pages tell all that there is: every field of a recipe with its meaning, every shipped recipe,
command, extra and public name; and they build into a site without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from told import PAGES, ROOT

import retinue
from retinue import api
from retinue.cli import reference
from retinue.options.typed import places
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.task import task_type
from retinue.training.fields import Field, groups
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.written_recipes import shipped

DOCS = ROOT / "docs"
MADE = {"commands.md", "recipe-fields.md"}
WRITTEN = {page.name: page.read_text("utf-8") for page in PAGES if page.name not in MADE}
FIELDS = [field for group in groups() for field in group.fields]


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_page_that_is_made_from_the_code_is_up_to_date(name: str) -> None:
    made = reference.pages(DOCS)[name]
    assert (DOCS / name).read_text("utf-8") == made, "python -m retinue.cli.reference docs"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.key)
def test_every_field_of_a_recipe_has_a_meaning(field: Field) -> None:
    assert field.meaning, "the schema says nothing of it: give the field a docstring"
    assert field.takes != "something else"


def test_every_place_in_a_recipe_is_a_field_that_is_told() -> None:
    """Found by the function that puts overrides into recipes, independently of the page's walk."""
    told = {field.key for field in FIELDS}
    found = set()
    for name in shipped():
        values = load_recipe(name).model_dump(mode="json")
        for location in places(Recipe, values):
            if not isinstance(location[-1], int):
                found.add(".".join("N" if isinstance(p, int) else str(p) for p in location))
    assert len(found) > 150
    assert found <= told


def test_the_options_of_every_task_are_told() -> None:
    for name in SHIPPED:
        told = {field.key for group in groups() if group.when == name for field in group.fields}
        assert {f"task_options.{key}" for key in task_type(name).options_type.model_fields} <= told


def test_a_field_says_what_it_takes_and_what_a_change_means() -> None:
    known = {field.key: field for field in FIELDS}
    rate = known["stages.N.optimizer.lr"]
    assert (rate.takes, rate.default) == ("a number greater than 0", "0.001")
    assert known["model"].default == "required"
    assert known["data.split.given"].takes == "one of keep, join, ignore"
    assert known["stages.N.epochs"].resume == "length"
    assert known["checkpoint.every_steps"].resume == "free"  # by what holds it
    assert known["seed"].resume is None
    assert known["stages.N.sampler.window"].default == "10000"


def test_commands_of_one_name_in_two_groups_keep_their_own_words() -> None:
    page = (DOCS / "commands.md").read_text("utf-8")
    listed, alone = page.split("## `retinue train`")[0], page.split("## `retinue bench`")[1]
    assert "* `train`: Train a network as a recipe says" in listed
    assert "* `predict`: Pictures to results" in alone.split("### `")[0]
    assert "* `data`: Check, convert and view data sets." in listed
    assert "* `data`: A training's images" in alone
    # An older name works, and is not told of; what Rich escapes is no part of a text.
    assert "`benchmark`" not in page
    assert "retinue\\[" not in page


def test_bars_in_a_field_end_no_cell() -> None:
    page = (DOCS / "recipe-fields.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert any("<code>&#124;</code>" in row for row in rows)
    assert {row.count("|") for row in rows} == {3, 5}


@pytest.mark.parametrize("recipe", shipped())
def test_every_shipped_recipe_is_told_of(recipe: str) -> None:
    assert [
        name for name, text in WRITTEN.items() if re.search(rf"(?<![\w-]){recipe}(?![\w-])", text)
    ]


@pytest.mark.parametrize(
    "command", re.findall(r"^## `retinue (\w+)`", reference.commands(DOCS), re.M)
)
def test_every_command_is_told_of(command: str) -> None:
    assert [name for name, text in WRITTEN.items() if f"retinue {command}" in text]


@pytest.mark.parametrize(
    "extra",
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"],
)
def test_every_extra_is_told_of(extra: str) -> None:
    assert f"`{extra}`" in WRITTEN["index.md"].split("## Extras")[1]


def test_every_public_name_is_told_of() -> None:
    """Each once; and what stands in `retinue.api` alone."""
    told = re.findall(r"^::: retinue\.([\w.]+)$", WRITTEN["python.md"], re.MULTILINE)
    assert sorted(told) == sorted(set(told))
    direct = {name for name in told if "." not in name}
    assert direct == set(retinue.__all__) - {"__version__"}
    others = set(api.__all__) - direct - {"EngineName"}
    assert others <= {name.removeprefix("api.") for name in told if name.startswith("api.")}


def test_every_page_is_in_the_index_of_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1].split("\n\n")[0]
    assert sorted(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == sorted(p.name for p in PAGES)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in PAGES:
        place = "" if page.stem == "index" else page.stem
        assert (tmp_path / place / "index.html").is_file()
    fields = (tmp_path / "recipe-fields" / "index.html").read_text("utf-8")
    assert fields.count("<tr>") > len(FIELDS)
    assert "fonts.googleapis" not in fields  # asks nobody on the way
