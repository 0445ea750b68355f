"""An export that was changed since it was proven is not taken for what was proven."""

from __future__ import annotations

from pathlib import Path

import pytest

import retinue
from retinue.errors import RetinueError


def test_a_file_that_was_changed_is_not_opened(model: Path, photographs: Path) -> None:
    file = retinue.export(model, "torchscript", images=photographs).path
    report = file.with_name(file.name + ".proof.json")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(RetinueError, match="is not the file that was proven") as told:
        retinue.load(file)
    assert report.name in str(told.value.mend)
    moved = file.with_name("renamed" + file.suffix)
    retinue.export(model, "torchscript", images=photographs, force=True).path.rename(moved)
    assert retinue.load(moved), "without a report beside it nothing is known against it"
