"""The pages of docs/ that are made from the code: every command, and every field of a recipe.

`python -m retinue.cli.reference docs` writes them anew; a test compares them with the code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinue.options.overrides import OTHER_WORDS
from retinue.options.resuming import OnResume
from retinue.training.fields import Field, Group, groups

_MADE = "<!-- Made by `python -m retinue.cli.reference docs`: change the code, not this page. -->"

_ELSEWHERE = {"commands.md", "recipe-fields.md", "design.md", "index.md"}
"""Pages that name commands without telling of them."""

_RESUME = {
    OnResume.FREE: "May change when the training goes on.",
    OnResume.CLOSE: "May change when the training goes on, which is then not bit for bit the same.",
    OnResume.LENGTH: "May change when the training goes on, until its stage is over.",
}


def commands(docs: Path) -> str:
    """Markdown: every command with its arguments and options. `docs`: the folder of the pages, to
    which it links."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from retinue.cli.app import app

    command = get_command(app)
    _drop_hidden(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="retinue")
    helps = dict(_helps(command))
    lines = []
    group = ""
    for line in _plain(text).splitlines():
        if line.startswith("# "):
            line = f"# All commands\n\n{_MADE}"
        if named := re.fullmatch(r"\* `(\w+)`: .*", line):
            whole = f"{group} {named[1]}".lstrip()
            line = f"* `{named[1]}`: {helps[whole]}" if whole in helps else line
        lines += _of_line(line)
        if found := re.fullmatch(r"#+ `retinue (.+)`", line):
            group = found[1]
            page = _telling(found[1], docs)
            lines += ["", f"More: [{page.removesuffix('.md')}]({page})"] if page else []
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """Without what the pages' maker and Rich's markup escape."""
    return text.replace("&#x27;", "'").replace("&quot;", '"').replace(r"\[", "[")


def _drop_hidden(group: Any) -> None:
    """Older names still work, and are not told of."""
    for name, command in list(group.commands.items()):
        if command.hidden:
            del group.commands[name]
        elif hasattr(command, "commands"):
            _drop_hidden(command)


def _helps(group: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Whole name (`bench train`) and first sentence of every command: the list in the middle would
    cut it off."""
    for name, command in group.commands.items():
        text = " ".join((command.help or "").split("\n\n")[0].split())
        yield f"{before}{name}", re.split(r"(?<=\.) ", text)[0]
        if hasattr(command, "commands"):
            yield from _helps(command, f"{before}{name} ")


def _telling(command: str, docs: Path) -> str:
    """The page that tells of a command: the one that is called like it, or else names it most."""
    if (docs / f"{command}.md").is_file():
        return f"{command}.md"
    pages = {page.name: page.read_text(encoding="utf-8").count(f"retinue {command}")
             for page in sorted(docs.glob("*.md")) if page.name not in _ELSEWHERE}  # fmt: skip
    return max(pages, key=lambda name: pages[name]) if any(pages.values()) else ""


def _of_line(line: str) -> list[str]:
    """An example as code; everything else as it is."""
    example = re.fullmatch(r"([^*`$]+): +(retinue .+)", line)
    if example is None:
        return [line]
    return [
        f"{example[1]}:",
        "",
        "```",
        *example[2].replace(", retinue", "\nretinue").split("\n"),
        "```",
    ]


def fields() -> str:
    """Markdown: every field of a recipe."""
    lines = ["# Every field of a recipe", "", _MADE, "", _INTRO]
    for group in groups():
        lines += ["", *_section(group)]
    lines += ["", *_words()]
    return "\n".join(lines) + "\n"


_INTRO = """A recipe is a YAML file of these fields ([recipes](recipes.md) shows whole ones). On the
command line each is `key=value`, the key with dots: `stages.0.optimizer.lr=1e-4`. `N` is the number
of a stage, from 0. The end of a key will do where it is clear: `lr=1e-4` is that of all stages. An
unknown key, or a contradiction, is refused before any data is touched, with the nearest key.

A training that [goes on](train.md) keeps the values that it began with, but for the fields that say
otherwise here."""


def _section(group: Group) -> Iterator[str]:
    yield f"## {_title(group)}"
    yield ""
    yield _cell(group.about)
    if group.alone:
        yield ""
        key = f"{group.key}.{group.alone}"
        yield f"A value alone, in place of the section, is that of `{key}`."
    alike = {field.resume for field in group.fields} if group.key else set()
    if len(alike) == 1 and (mark := alike.pop()):
        yield ""
        yield _RESUME[mark].replace("May change", "All of it may change")
    yield ""
    yield '<div class="fields" markdown>'
    yield ""
    yield "| field | takes | default | meaning |"
    yield "|---|---|---|---|"
    told = len({field.resume for field in group.fields}) > 1 or not group.key
    for field in group.fields:
        yield _row(field, group.key, told)
    yield ""
    yield "</div>"


def _title(group: Group) -> str:
    if not group.key:
        return "The recipe itself"
    which = f" of {group.when}" if group.key.startswith("task_options") else f": {group.when}"
    return f"`{group.key}`{which if group.when else ''}"


def _row(field: Field, section: str, told: bool) -> str:
    name = field.key.removeprefix(f"{section}.")
    default = field.default if field.default in ("required", "") else f"`{field.default}`"
    resume = f" {_RESUME[field.resume]}" if field.resume and told else ""
    cells = [f"`{name}`", _cell(field.takes), _cell(default), _cell(field.meaning) + resume]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """With bars that end no cell, also within code."""
    text = re.sub(r"`([^`]*\|[^`]*)`", lambda m: f"<code>{m[1]}</code>", text)
    return text.replace("|", "&#124;")


def _words() -> Iterator[str]:
    yield "## Words of other tools"
    yield ""
    yield "These mean the same here as there:"
    yield ""
    meant: dict[str, list[str]] = {}
    for word, key in OTHER_WORDS.items():
        meant.setdefault(key, []).append(f"`{word}`")
    yield "| field | also called |"
    yield "|---|---|"
    for key, words in sorted(meant.items()):
        yield f"| `{key}` | {', '.join(words)} |"


def pages(docs: Path) -> dict[str, str]:
    """File name → content of the pages that are made from the code."""
    return {"commands.md": commands(docs), "recipe-fields.md": fields()}


if __name__ == "__main__":
    for name, content in pages(Path(sys.argv[1])).items():
        (Path(sys.argv[1]) / name).write_text(content, encoding="utf-8")
