"""What the pages tell: their code blocks, and the command lines in them and in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    line: int
    """Of its first line."""
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, in order."""
    language, start, lines = None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line.strip()[3:].strip(), number + 1, []
        else:
            yield Block(page.name, start, language, "\n".join(lines) + "\n")
            language = None
    assert language is None, f"{page.name}: the block from line {start} on has no end"


def command_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(place, words) of every `retinue …` in the blocks and in the text."""
    for block in blocks(page):
        if block.language in ("", "sh", "bash", "shell", "console"):
            code = block.code.replace("\\\n", "  ")
            for offset, line in enumerate(code.splitlines()):
                yield from _words(f"{page.name}:{block.line + offset}", line.removeprefix("$ "))
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"`(retinue [^`]+)`", text):
        yield from _words(f"{page.name}, {found[1][:40]!r}", " ".join(found[1].split()))


def _words(place: str, line: str) -> Iterator[tuple[str, list[str]]]:
    if "retinue" not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("|&;>"):
            command.append(word)
            continue
        if "retinue" in command[:3]:  # behind `torchrun -m`, `CUDA_VISIBLE_DEVICES=0` and the like
            yield place, command[command.index("retinue") + 1 :]
        command = []
