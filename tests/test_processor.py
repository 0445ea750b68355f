"""Which processor it is, as the system says; and whoever asks for bfloat16 gets one answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retinue import processor
from retinue.inference import engines
from retinue.models import depthwise
from retinue.processor import cpu_flags, cpu_name, without_bfloat16
from retinue.training.environment import facts


def test_the_processor_is_named_by_the_first_of_many(tmp_path: Path) -> None:
    said = (
        "processor\t: 0\nmodel name\t: A Chip: 9000\nflags\t\t: sse avx2 fma\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: sse\n"
    )
    root = _told(tmp_path, said)
    assert cpu_name(root) == "A Chip: 9000"
    assert cpu_flags(root) == ["avx2", "fma", "sse"]
    arm = _told(tmp_path / "arm", "processor: 0\nFeatures: fp asimd\n")
    assert cpu_flags(arm) == ["asimd", "fp"]
    assert cpu_flags(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("flags", "known", "lacks"),
    [("fpu avx2 avx512f avx512_bf16", {}, None), ("fpu amx_bf16 amx_tile", {}, None),
     ("fp asimd bf16", {}, None), ("fpu avx2 avx512f avx512_vnni", {}, "has no bfloat16"),
     ("fpu avx2", {"avx512_bf16": True}, "has no bfloat16"), ("", {}, "it is not known"),
     ("", {"avx2": True, "avx512_bf16": True}, None),  # as on Windows
     ("", {"avx2": True, "avx512_bf16": False}, "has no bfloat16")],
)  # fmt: skip
def test_who_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, flags: str, known: dict[str, bool], lacks: str | None
) -> None:
    monkeypatch.setattr(processor, "cpu_flags", flags.split)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    why = without_bfloat16()
    assert why is None if lacks is None else lacks in str(why)
    said = facts()["auto"]["precision"]
    assert said.startswith("the faster of") if lacks is None else said == f"fp32: {why}"
    # Engines and layers find the same.
    timed = engines._with_precision(["openvino", "torch"], "bf16")
    assert ("torch" in timed) == (lacks is None)
    half = torch.bfloat16 if lacks is None else torch.float32
    assert depthwise._half.__wrapped__() == half


def _told(root: Path, cpuinfo: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "cpuinfo").write_text(cpuinfo)
    return root
