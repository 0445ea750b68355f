"""Files of weights that are not what they seem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retinue.errors import RetinueError
from retinue.weights import files

NEWER = {"network": "x", "arguments": {}, "preprocessing": {"size": [8, 8], "unheard_of": 1}}


@pytest.mark.parametrize("text", ["{", "[]", '{"network": "x"}', json.dumps(NEWER)])
def test_damaged_or_newer_description(tmp_path: Path, text: str) -> None:
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.ones(1)}, path, {"retinue": text})
    with pytest.raises(RetinueError, match=r"description is damaged.*best\.safetensors.*newer"):
        files.read(path)
