"""docs/zoo.md says what the registry and the catalogue say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "benchmarks" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_up_to_date() -> None:
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    said = page.split("<!-- zoo -->\n")[1].split("\n<!-- /zoo -->")[0]
    # Another process: other tests may have registered networks of their own in this one.
    command = [sys.executable, str(ROOT / "benchmarks" / "zoo.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said in printed, "python benchmarks/zoo.py --write docs/zoo.md"
    count = "from retinue.models.registry import list_models; print(len(list_models()))"
    known = subprocess.run(
        [sys.executable, "-c", count], capture_output=True, text=True, check=True
    )
    assert len(said.splitlines()) == int(known.stdout) + 2


def test_sections_are_replaced_and_nothing_else(script: ModuleType) -> None:
    page = "a\n<!-- zoo -->\nold\n<!-- /zoo -->\nb\n"
    assert script.replace_section(page, "zoo", r"new \1") == (
        "a\n<!-- zoo -->\nnew \\1\n<!-- /zoo -->\nb\n"
    )
    with pytest.raises(SystemExit, match="no section measured"):
        script.replace_section(page, "measured", "x")


def test_accuracy_counts_right_answers(script: ModuleType, tmp_path: Path) -> None:
    """A network that always answers 3, then 1, 4, 0, 2."""
    import torch

    from retinue.models.registry import create_model

    (tmp_path / "images").mkdir()
    rows = ["class_index,wnid,name,file"]
    for i, label in enumerate((3, 2, 3, 0, 5)):
        Image.new("RGB", (40, 30), (i * 40, 0, 0)).save(tmp_path / "images" / f"{i}.png")
        rows.append(f"{label},n{i},x,{i}.png")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    network = create_model("mobilenet_v2_035", num_classes=6).eval()
    with torch.no_grad():
        network.head.fc.weight.zero_()
        network.head.fc.bias.copy_(torch.tensor([2.0, 4.0, 1.0, 5.0, 3.0, 0.0]))
    top1, top5 = script.accuracy(network, script.photographs(tmp_path))
    assert (top1, top5) == (pytest.approx(0.4), pytest.approx(0.8))
