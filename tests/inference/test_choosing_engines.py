"""The fastest engine that says what the module says is taken."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from engine_networks import Tiny, need, timed

from retinue import processor
from retinue.errors import RetinueError, UsageError
from retinue.inference import engines
from retinue.inference.agreement import TOLERANCE
from retinue.inference.engine_keys import key_of
from retinue.inference.engines import compile_engine, installed
from retinue.inference.making import Making
from retinue.models.network import State


def test_a_module_that_says_nothing_of_where_it_is_from_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    assert not installed("openvino")


def test_auto_takes_the_fastest(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need("openvino")
    x = torch.randn(2, 3, 16, 16)
    with caplog.at_level(logging.INFO, "retinue"):
        timed(monkeypatch, openvino_apart=4100, openvino_together=4000, torch=4500)
        assert compile_engine(tiny, x).name == "torch"
        timed(monkeypatch, openvino_apart=4000, openvino_together=4600, torch=4500)
        made = compile_engine(tiny, x)
    assert (made.name, made.way) == ("openvino", "together")  # type: ignore[attr-defined]
    assert "openvino 4,100 img/s, torch 4,500 img/s: torch" in caplog.text
    timed(monkeypatch, openvino_apart=4400, openvino_together=4300, torch=4500)
    made = compile_engine(tiny, x)  # as near as that, noise would choose
    assert (made.name, made.way) == ("openvino", "apart")  # type: ignore[attr-defined]
    monkeypatch.setattr(engines, "installed", lambda name: name == "torch")
    assert compile_engine(tiny, x).name == "torch"


def test_onnx_runtime_is_tried_where_it_may_pay(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openvino")
    need("onnxruntime")
    x = torch.randn(2, 3, 16, 16)
    races = timed(monkeypatch, openvino_apart=45, openvino_together=40, torch=46, onnxruntime=60)
    assert compile_engine(tiny, x).name == "onnxruntime"
    assert races[1:] == [["openvino apart", "onnxruntime"]]
    races = timed(monkeypatch, openvino_apart=64, openvino_together=40, torch=46)
    assert compile_engine(tiny, x).name == "openvino"  # which is far ahead
    assert len(races) == 1


def test_by_its_name_a_steady_engine_computes_the_same_another_time(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is timed. A trunk's rows that are missing when a training goes on have to be as they
    would have been."""
    need("openvino")
    x = torch.randn(4, 3, 16, 16)
    speeds = {"openvino_together": 9000.0, "openvino_apart": 4000.0, "torch": 1000.0}
    races = timed(monkeypatch, **speeds)
    auto = compile_engine(tiny, x, steady=True)
    assert races == [["openvino apart", "torch"]]
    assert torch.equal(compile_engine(tiny, x, engine="openvino", steady=True)(x), auto(x))
    assert len(races) == 1
    timed(monkeypatch, **speeds | {"torch": 9500.0})
    auto = compile_engine(tiny, x, steady=True)
    assert auto.name == "torch"
    assert torch.equal(compile_engine(tiny, x, engine="torch", steady=True)(x), auto(x))


def test_an_engine_that_is_missing_names_its_extra(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: name == "torch")
    with pytest.raises(UsageError, match=r"retinue\[onnx\]"):
        compile_engine(tiny, torch.randn(2, 3, 16, 16), engine="onnxruntime")
    with pytest.raises(UsageError, match="unknown engine 'tensorrt'"):
        compile_engine(tiny, torch.randn(2, 3, 16, 16), engine="tensorrt")  # type: ignore[arg-type]


def test_compiled_engines_are_refused_on_other_devices(tiny: Tiny) -> None:
    need("openvino")
    with pytest.raises(UsageError, match="runs on the CPU"):
        compile_engine(tiny, torch.randn(2, 3, 16, 16), engine="openvino", device="cuda:0")
    assert engines.candidates("cuda:0") == ["torch"]


class Sabotaged(engines.TorchEngine):
    """Computes with a slightly different BatchNorm epsilon, the classic slip."""

    name = "openvino"

    def __call__(self, x: State) -> State:
        assert isinstance(self.module, Tiny)
        self.module.norm.eps = 1e-2
        try:
            return super().__call__(x)
        finally:
            self.module.norm.eps = 1e-5


def replaced(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """OpenVINO and PyTorch alone, the former as `make` says."""
    own = Making._engine

    def engine(self: Making, name: str, way: Any) -> engines.Engine:
        made: engines.Engine = make(self.module) if name == "openvino" else own(self, name, way)
        return made

    monkeypatch.setattr(engines, "installed", lambda name: name != "onnxruntime")
    monkeypatch.setattr(Making, "_engine", engine)


def test_an_engine_that_disagrees_is_never_used(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replaced(monkeypatch, Sabotaged)
    x = torch.randn(4, 3, 16, 16)
    with caplog.at_level(logging.WARNING, "retinue"):
        assert compile_engine(tiny, x).name == "torch"
    assert "openvino disagrees with torch" in caplog.text
    with pytest.raises(RetinueError, match="disagrees"):
        compile_engine(tiny, x, engine="openvino")


def test_an_engine_that_fails_is_passed_over(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> engines.Engine:
        raise RuntimeError("no such operator\nand more")

    replaced(monkeypatch, fail)
    with caplog.at_level(logging.WARNING, "retinue"):
        assert compile_engine(tiny, torch.randn(2, 3, 16, 16)).name == "torch"
    assert "no such operator" in caplog.text
    assert len(caplog.records) == 1, "a line, whatever ways there are"
    with pytest.raises(RetinueError, match="cannot compile"):
        compile_engine(tiny, torch.randn(2, 3, 16, 16), engine="openvino")


def test_a_network_that_gives_nothing_finite_is_run_as_it_is(tiny: Tiny) -> None:
    with torch.no_grad():
        tiny.fc.weight.fill_(float("nan"))
    x = torch.randn(2, 3, 16, 16)
    names: list[Any] = ["auto", "torch", *(["openvino"] if installed("openvino") else [])]
    for engine in names:
        made = compile_engine(tiny, x, engine=engine)
        assert made.name == "torch"
        assert made(x).isnan().all()


def test_what_is_in_bf16_gives_way_where_it_is_no_faster(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: name == "torch")
    monkeypatch.setattr(processor, "cpu_flags", lambda: ["avx512_bf16"])
    x = torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(engines, "race", lambda runs: {"fp32": 1.0, "bf16": 0.5})
    assert compile_engine(tiny, x, precision="bf16").precision == "bf16"
    monkeypatch.setattr(engines, "race", lambda runs: {"fp32": 0.5, "bf16": 1.0})
    with caplog.at_level(logging.WARNING, "retinue"):
        assert compile_engine(tiny, x, precision="bf16").precision == "fp32"
    assert "bf16 is no faster than fp32 here" in caplog.text
    monkeypatch.setattr(processor, "cpu_flags", lambda: ["avx2"])
    assert compile_engine(tiny, x, precision="bf16").precision == "fp32"
    assert "no engine supports bf16 here" in caplog.text
    # By name one gets what one asks for.
    assert compile_engine(tiny, x, engine="torch", precision="bf16").precision == "bf16"


def test_what_disagrees_in_bf16_is_tried_once(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With these weights; others may agree."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    tried: list[object] = []
    make = Making._engine

    def engine(self: Making, name: str, way: Any) -> engines.Engine:
        if self.precision == "fp32":
            return make(self, name, way)
        tried.append(self.module)
        return Sabotaged(self.module)

    monkeypatch.setattr(Making, "_engine", engine)
    monkeypatch.setattr(Making, "_key", property(lambda self: key_of(self._facts)))
    monkeypatch.setattr(engines, "installed", lambda name: name == "openvino")
    monkeypatch.setattr(engines, "_ways", lambda name: ("apart",))
    monkeypatch.setitem(TOLERANCE, "bf16", 1e-6)
    x = torch.randn(4, 3, 16, 16)
    how: dict[str, Any] = {"precision": "bf16", "computed": {"network": "tiny"}}
    for times in (1, 1):
        caplog.clear()
        assert compile_engine(tiny, x, **how).precision == "fp32"
        assert len(tried) == times
        assert "no engine supports bf16 here" in caplog.text
        assert "openvino in bf16 disagrees with torch" in caplog.text
    with torch.no_grad():
        tiny.fc.bias += 1
    compile_engine(tiny, x, **how)
    assert len(tried) == 2


@pytest.mark.parametrize(("speed", "precision"), [(5000.0, "bf16"), (3000.0, "fp32")])
def test_whether_bf16_is_faster_is_found_out_once(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speed: float, precision: str
) -> None:
    need("openvino")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "installed", lambda name: name == "openvino")
    own = Making._engine

    def engine(self: Making, name: str, way: Any) -> engines.Engine:
        made = own(Making(self.module, self.example), name, way)
        made.precision = self.precision
        return made

    monkeypatch.setattr(Making, "_engine", engine)  # of a processor that has it
    races = timed(monkeypatch, openvino_apart=4000, openvino_together=3000, fp32=4000, bf16=speed)
    x = torch.randn(4, 3, 16, 16)
    how: dict[str, Any] = {"precision": "bf16", "computed": {"network": "resnet18"}}
    for _ in range(2):
        assert compile_engine(tiny, x, **how).precision == precision
    assert races == [["openvino apart", "openvino together"]] * 2 + [["fp32", "bf16"]]
