"""Files of torch.export that hold more than tensors and known operations are not read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import retinue
from retinue.errors import RetinueError
from retinue.inference.predictor import load


def test_a_file_of_torch_export_with_pickles_is_not_read(
    model: Path, photographs: Path, tmp_path: Path
) -> None:
    done = retinue.export(model, "torch-export", images=photographs)
    for name, content in (
        ("data/constants/opaque_obj_0", b"cos\nsystem\n"),
        ("data/constants/custom_obj_0", b""),
        ("data/aotinductor/model/x.so", b""),
    ):
        odd = tmp_path / "odd.pt2"
        odd.write_bytes(done.path.read_bytes())
        with zipfile.ZipFile(odd, "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{root}/{name}", content)
        with pytest.raises(RetinueError, match="more than tensors and a graph"):
            load(odd)
    odd.write_bytes(b"PK")
    with pytest.raises(RetinueError, match=r"^a damaged file, or no torch\.export file at all"):
        load(odd)


def test_a_graph_of_torch_export_that_would_be_executed_is_not_read(
    model: Path, photographs: Path, tmp_path: Path
) -> None:
    """Each of these places ends in an `eval`, an `exec` or a look-up of PyTorch's."""
    done = retinue.export(model, "torch-export", images=photographs)
    with zipfile.ZipFile(done.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    place = next(name for name in members if name.endswith("models/model.json"))
    graph = members[place].decode()
    assert str(Path(retinue.__file__).parent) not in graph
    reached = tmp_path / "reached"
    call = f"__import__('pathlib').Path('{reached}').touch()"
    size = "Symbol('s31', positive=True, integer=True)"
    assert size in graph
    for old, new in (
        (size, call),
        (size, f"Add({size}, {call})"),
        (size, f"Add({size}, eval('1'))"),
        (size, "Symbol('s31', positive=(1).__class__)"),
        (size, "Integer('1')"),
        ('"guards_code": []', f'"guards_code": ["{call}"]'),
        ('"name": "xs_0"', f'"name": "xs_0={call}"'),
        ("torch.ops.aten.relu.default", "torch.serialization.os.system"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
        ("builtins.dict", "collections.defaultdict"),
        ("module.head.fc.weight", f'module.head.\\"){call}#'),
    ):
        assert old in graph
        odd = tmp_path / "odd.pt2"
        with zipfile.ZipFile(odd, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content if name != place else graph.replace(old, new))
        with pytest.raises(RetinueError, match="more than tensors and a graph"):
            load(odd)
    assert not reached.exists()
