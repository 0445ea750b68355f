"""Every engine says what the module says, or is refused."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinue.errors import RetinueError, UsageError
from retinue.inference import engines, making
from retinue.inference.agreement import agrees, compare
from retinue.inference.engine_cache import EngineCache
from retinue.inference.engines import TorchEngine, compile_engine, installed
from retinue.inference.making import Making
from retinue.inference.tracing import Axes, onnx_program, openvino_model
from retinue.models.network import State

ENGINES = ["torch", "openvino", "onnxruntime"]


class Tiny(nn.Module):
    """Convolution, BatchNorm with statistics, dropout, and a head: eval mode matters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))
        return out


class Taps(nn.Module):
    """A tuple in, a tuple out: the trunk of a network with taps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 1)

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, tap = state
        return self.conv(x), tap * 2


class Detector(nn.Module):
    """Nested in, nested out, with what tracers stumble over: whole numbers, a mask, a constant, an
    input handed through, and one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 5, 3)

    def forward(self, x: dict[str, Any]) -> dict[str, Any]:
        fine, (coarse,) = x["levels"]
        boxes = self.conv(fine).mean((2, 3)) + coarse.mean((2, 3))[:, :1]
        return {
            "scores": boxes.softmax(1),
            "boxes": [boxes, (boxes * 2, coarse)],
            "best": boxes.argmax(1) + x["offset"],
            "mask": boxes > 0,
            "grid": torch.arange(6.0).reshape(3, 2),
            "again": (boxes,),
        }


def nested_inputs(n: int) -> dict[str, Any]:
    levels = (torch.randn(n, 4, 6, 6), [torch.randn(n, 2, 3, 3)])
    return {"offset": torch.arange(n), "levels": levels}


def need(engine: str) -> None:
    if not installed(engine):
        pytest.skip(f"needs {engine}")


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_at_any_batch_size(engine: str, tiny: Tiny) -> None:
    need(engine)
    made = compile_engine(tiny, torch.randn(4, 3, 16, 16), engine=engine)  # type: ignore[arg-type]
    assert made.name == engine
    expected = TorchEngine(tiny)
    for n in (1, 4, 7, 3):
        x = torch.randn(n, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        answer = made(x)
        assert isinstance(answer, Tensor)
        assert answer.shape == (n, 5)
        assert answer.dtype == torch.float32
        torch.testing.assert_close(answer, expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_answers_are_the_callers_own_and_repeat_to_the_bit(engine: str, tiny: Tiny) -> None:
    need(engine)
    x, other = torch.randn(2, 2, 3, 16, 16)
    made = compile_engine(tiny, x, engine=engine)  # type: ignore[arg-type]
    first = made(x)
    kept = first.clone()  # type: ignore[union-attr]
    made(other)
    assert torch.equal(first, kept)  # type: ignore[arg-type]
    assert torch.equal(made(x), kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_call_one_engine_at_once(engine: str, tiny: Tiny) -> None:
    """Each gets the answer to its own question, as if it had been alone."""
    need(engine)
    made = compile_engine(tiny.eval(), torch.randn(2, 3, 16, 16), engine=engine)  # type: ignore[arg-type]
    inputs = torch.randn(8, 30, 1, 3, 16, 16)
    alone = [[made(x) for x in row] for row in inputs]
    start = threading.Barrier(len(inputs))

    def ask(row: Tensor) -> list[State]:
        start.wait()
        return [made(x) for x in row]

    with ThreadPoolExecutor(len(inputs)) as pool:
        together = list(pool.map(ask, inputs))
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_states_of_several_tensors_pass_through(engine: str) -> None:
    need(engine)
    torch.manual_seed(0)
    state: State = (torch.randn(3, 4, 5, 5), torch.randn(3, 2, 8, 8))
    made = compile_engine(Taps(), state, engine=engine)  # type: ignore[arg-type]
    assert made.name == engine
    answer = made(tuple(part[:1] for part in state))
    assert isinstance(answer, tuple)
    assert [tuple(part.shape) for part in answer] == [(1, 6, 5, 5), (1, 2, 8, 8)]
    torch.testing.assert_close(answer[1], state[1][:1] * 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_nested_inputs_and_outputs(engine: str) -> None:
    need(engine)
    torch.manual_seed(0)
    module = Detector().eval()
    made = compile_engine(module, nested_inputs(3), engine=engine)  # type: ignore[arg-type]
    assert made.name == engine
    for n in (1, 5, 2):
        x = nested_inputs(n)
        answer, expected = made(x), module(x)
        assert list(answer) == list(expected)  # the order of the keys, too
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)  # dtypes included
    if engine != "torch":
        with pytest.raises(ValueError, match="compiled for"):
            made({"offset": x["offset"], "level": x["levels"]})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tuple_of_one_stays_a_tuple(engine: str) -> None:
    need(engine)

    class First(nn.Module):
        def forward(self, state: tuple[Tensor]) -> tuple[Tensor]:
            return (state[0] * 2,)

    made = compile_engine(First(), (torch.ones(2, 3),), engine=engine)  # type: ignore[arg-type]
    answer = made((torch.ones(1, 3),))
    assert isinstance(answer, tuple)
    assert torch.equal(answer[0], torch.full((1, 3), 2.0))


@pytest.mark.parametrize("engine", ENGINES)
def test_compiling_and_running_leave_the_training_modes_alone(engine: str, tiny: Tiny) -> None:
    need(engine)
    tiny.train()
    tiny.norm.eval()
    before = {name: part.training for name, part in tiny.named_modules()}
    mean = tiny.norm.running_mean
    assert mean is not None
    kept = mean.clone()
    made = compile_engine(tiny, torch.randn(2, 3, 16, 16), engine=engine)  # type: ignore[arg-type]
    made(torch.randn(2, 3, 16, 16))
    assert {name: part.training for name, part in tiny.named_modules()} == before
    assert torch.equal(mean, kept)


def test_a_batch_of_one_is_example_enough(tiny: Tiny) -> None:
    made = compile_engine(tiny, torch.randn(1, 3, 16, 16))
    assert made(torch.randn(5, 3, 16, 16)).shape == (5, 5)  # type: ignore[union-attr]


def test_a_module_that_says_nothing_of_where_it_is_from_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    assert not installed("openvino")


def timed(monkeypatch: pytest.MonkeyPatch, **speeds: float) -> list[list[str]]:
    """Let engines be as fast as `speeds` say, in images a second; gives those of each race."""
    races: list[list[str]] = []

    def race(runs: Mapping[str, Any]) -> dict[str, float]:
        races.append(list(runs))
        return {name: 4 / speeds[name.replace(" ", "_")] for name in runs}

    monkeypatch.setattr(engines, "race", race)
    monkeypatch.setattr(engines, "IMAGES", 4)
    return races


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """Of these tests' networks, too."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    monkeypatch.setattr(making, "_KNOWN", (*making._KNOWN, __name__))
    return EngineCache()


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


def test_what_was_the_fastest_is_known_the_next_time(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For other weights of the same network, too, which are proven anew."""
    need("openvino")
    x, computed = torch.randn(2, 3, 16, 16), {"network": "tiny", "state": {"t": 1}}
    races = timed(monkeypatch, openvino_apart=4000, openvino_together=9000, torch=5000)
    first = compile_engine(tiny, x, computed=computed)
    assert (len(races), len(cache.sizes())) == (1, 2)
    converted: list[Any] = []
    monkeypatch.setattr(
        making, "openvino_model", lambda *a: converted.append(a) or openvino_model(*a)
    )
    with caplog.at_level(logging.INFO, "retinue"):
        second = compile_engine(tiny, x, computed=computed)
    assert (second.name, second.way) == ("openvino", "together")  # type: ignore[attr-defined]
    assert torch.equal(second(x), first(x))
    assert (len(races), len(converted)) == (1, 0), "neither timed nor converted again"
    assert "engine, as timed before: openvino" in caplog.text
    torch.manual_seed(1)
    other = Tiny()
    third = compile_engine(other, x, computed={"network": "tiny", "state": {"t": 2}})
    assert (len(races), len(converted)) == (1, 1)
    assert agrees(third, TorchEngine(other), x).accepted
    assert len(cache.sizes()) == 3
    compile_engine(tiny, x, computed={"network": "another"})
    assert len(races) == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        compile_engine(tiny, x, computed=computed)
    finally:
        torch.set_num_threads(threads)
    assert len(races) == 3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_that_was_kept_answers_as_it_did(
    engine: str, tiny: Tiny, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(engine)
    x = {"offset": torch.arange(3), "levels": nested_inputs(3)["levels"]}
    module = Detector().eval()
    how: dict[str, Any] = {"engine": engine, "computed": {"network": "a"}}
    first = compile_engine(module, x, **how)
    (file,) = cache.folder.iterdir()
    monkeypatch.setattr(making, "openvino_model", None)
    monkeypatch.setattr(making, "onnx_program", None)
    torch.testing.assert_close(compile_engine(module, x, **how)(x), first(x), rtol=0, atol=0)
    file.write_bytes(file.read_bytes()[:-70])  # as a full disk leaves it
    monkeypatch.setattr(making, "openvino_model", openvino_model)
    monkeypatch.setattr(making, "onnx_program", onnx_program)
    torch.testing.assert_close(compile_engine(module, x, **how)(x), first(x), rtol=0, atol=0)
    assert EngineCache().graph(file.name[:32], engine) is not None, "made anew"


def test_of_somebody_elses_network_no_graph_is_kept(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The code may be another the next time, and weights and name the same."""
    need("openvino")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    compile_engine(tiny, torch.randn(2, 3, 16, 16), engine="openvino", computed={"network": "a"})
    assert EngineCache().sizes() == {}


def test_a_graph_that_its_library_cannot_read_is_made_anew(
    tiny: Tiny, cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    need("openvino")
    x = torch.randn(2, 3, 16, 16)
    first = compile_engine(tiny, x, engine="openvino", computed={})
    (file,) = cache.folder.iterdir()
    graph = cache.graph(file.name[:32], "openvino")
    assert graph is not None
    cache.keep_graph(file.name[:32], replace(graph, parts={**graph.parts, "xml": b"<net"}))
    with caplog.at_level(logging.INFO, "retinue"):
        again = compile_engine(tiny, x, engine="openvino", computed={})
    assert torch.equal(again(x), first(x))
    assert "recompiling the cached engine openvino" in caplog.text


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


@pytest.mark.parametrize("threads", [1, 3])
def test_an_answer_does_not_depend_on_the_images_beside_it(
    threads: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each goes through by itself, in whatever stream."""
    need("openvino")
    from retinue.inference.runtimes import openvino as runtime

    monkeypatch.setattr(runtime, "compute_threads", lambda: threads)
    x = torch.randn(7, 3, 16, 16)
    made = compile_engine(tiny, x, engine="openvino", steady=True)
    assert made.way == "apart"  # type: ignore[attr-defined]
    whole = made(x)
    torch.testing.assert_close(whole, TorchEngine(tiny)(x), rtol=1e-4, atol=1e-5)
    for n in (3, 4, 6):
        assert torch.equal(made(x[:n]), whole[:n])
    for n in (1, 2):  # by all threads together, and so in another order of summation, perhaps
        torch.testing.assert_close(made(x[:n]), whole[:n], rtol=1e-5, atol=1e-6)
    with pytest.raises(Exception, match=r"shape|compatible|port"):
        made(torch.randn(4, 3, 17, 16))
    assert torch.equal(made(x), whole), "and what failed leaves nothing behind"


def test_a_file_is_run_by_images_where_it_gives_a_row_an_image(tiny: Tiny) -> None:
    need("openvino")
    from retinue.inference.runtimes import openvino as runtime

    model, signature = openvino_model(tiny, torch.randn(2, 3, 16, 16))
    assert runtime._by_images(model)
    assert runtime._rows(model, signature)
    fixed, _ = openvino_model(tiny, torch.randn(2, 3, 16, 16), Axes(4))
    assert not runtime._by_images(fixed)
    sized, _ = openvino_model(tiny, torch.randn(2, 3, 16, 16), Axes(None, (2, 3)))
    assert not runtime._by_images(sized)
    model, signature = openvino_model(Detector().eval(), nested_inputs(3))
    assert not runtime._rows(model, signature), "one of its outputs is a grid of 3 rows"


def test_what_is_in_bf16_gives_way_where_it_is_no_faster(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: name == "torch")
    monkeypatch.setattr(engines, "cpu_flags", lambda: ["avx512_bf16"])
    x = torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(engines, "race", lambda runs: {"exact": 1.0, "made": 0.5})
    assert compile_engine(tiny, x, precision="bf16").precision == "bf16"
    monkeypatch.setattr(engines, "race", lambda runs: {"exact": 0.5, "made": 1.0})
    with caplog.at_level(logging.WARNING, "retinue"):
        assert compile_engine(tiny, x, precision="bf16").precision == "fp32"
    assert "bf16 is no faster than fp32 here" in caplog.text
    monkeypatch.setattr(engines, "cpu_flags", lambda: ["avx2"])
    assert compile_engine(tiny, x, precision="bf16").precision == "fp32"
    assert "no engine supports bf16 here" in caplog.text
    # By name one gets what one asks for.
    assert compile_engine(tiny, x, engine="torch", precision="bf16").precision == "bf16"


def test_bf16_only_where_it_is_asked_for(tiny: Tiny) -> None:
    x = torch.randn(4, 3, 16, 16)
    exact, rough = TorchEngine(tiny), TorchEngine(tiny, precision="bf16")
    assert rough(x).dtype == torch.float32  # type: ignore[union-attr]
    assert not torch.equal(exact(x), rough(x))  # type: ignore[arg-type]
    assert agrees(rough, exact, x, precision="bf16").accepted
    assert not agrees(rough, exact, x).accepted


SIGNALLED = """
import os, signal, torch
from retinue.inference.engines import compile_engine
one = torch.nn.Conv2d(3, 4, 3).eval()
first, second = (compile_engine(one, torch.zeros(2, 3, 8, 8), engine="openvino") for _ in "ab")
del first, second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_after_openvino_engines_have_gone() -> None:
    """Its plugin gives the thread a stack for signals, and may take it away again."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.skipif(not installed("openvino"), reason="no OpenVINO")
def test_the_weights_of_what_was_compiled_are_let_go_of() -> None:
    def held() -> int:
        gc.collect()
        kept = [thing for thing in gc.get_objects() if isinstance(thing, Tensor)]
        return sum(tensor.numel() for tensor in kept)

    before = held()
    for _ in range(3):
        module = nn.Sequential(nn.Conv2d(3, 50, 5), nn.Flatten(), nn.Linear(50 * 16, 100)).eval()
        example = torch.rand(2, 3, 8, 8)
        engine = compile_engine(module, example, engine="openvino")
        assert agrees(engine, module, example).accepted, "what was converted has its own"
        del module, example, engine
    assert held() - before < 80_000, "those of one network"


def test_agreement_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compare(logits, logits).error == 0
    off = logits.clone()
    off[0, 0] += 0.5 * 0.002  # the spread is 0.5
    assert compare(off, logits).error == pytest.approx(0.002, rel=1e-3)
    assert not compare(off, logits).accepted
    assert compare(1e-6 * off, 1e-6 * logits).error == pytest.approx(0.002, rel=1e-3)
    assert not compare(logits * float("nan"), logits).accepted
    assert not compare(logits.clone().fill_(float("inf")), logits).accepted
    assert not compare(logits[:1], logits).accepted
    assert not compare((logits, logits * float("nan")), (logits, logits)).accepted
    swapped = compare(logits.flip(1), logits, tolerance=0.1)
    assert swapped.flipped == 2
    tied = torch.tensor([[1.0, 0.99999], [0.0, 1.0]])
    assert compare(tied[:, [1, 0]], tied).flipped == 1  # the tie may go either way, the other not


def test_constant_outputs_can_agree() -> None:
    assert compare(torch.zeros(2, 3), torch.zeros(2, 3)).accepted
    assert not compare(torch.ones(2, 3), torch.zeros(2, 3)).accepted


def test_nested_agreement_by_hand() -> None:
    one, other = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 2])
    whole = {"a": [one, (other,)], "b": one}
    assert compare({"b": one, "a": [one, (other,)]}, whole).accepted
    for wrong in (
        one,
        {"a": [one, (other,)]},
        {"a": [one, [other]], "b": one},  # a list in a tuple's place
        {"a": [one, (other,)], "c": one},
        {"a": [one, (other[:1],)], "b": one},
        {"a": [one, (other.float(),)], "b": one},  # another kind of number
        {"a": [one, (other + 1,)], "b": one},
    ):
        found = compare(wrong, whole)
        assert found.error == float("inf")
        assert not found.accepted
    assert not compare({"a": [one, (other,)], "b": one * float("nan")}, whole).accepted
    off = compare({"a": [one, (other,)], "b": one + 0.25}, whole)
    assert off.error == pytest.approx(0.5)  # of the leaf's own spread
    assert compare((), ()).accepted
    assert compare(torch.zeros(0, 5), torch.zeros(0, 5)).accepted


def test_the_best_class_is_that_of_what_is_called_scores() -> None:
    """Boxes are (n, 5), as logits might be, and their largest coordinate is nobody's class."""
    boxes = torch.tensor([[0.0, 10.0, 10.3, 0.0, 0.0]])
    logits = torch.tensor([[0.0, 10.0, 10.3, 0.0, 0.0]])
    off = torch.tensor([[0.0, 10.3, 10.0, 0.0, 0.0]])
    assert compare(off, logits, 0.02).flipped == 1
    assert compare(off, logits, 0.06).flipped == 0  # 0.3 apart with a spread of 4.97: a near tie
    outputs, others = {"boxes": boxes, "logits": logits}, {"boxes": off, "logits": logits}
    assert compare(others, outputs, 0.02).flipped == 0
    assert compare(others, outputs, 0.02, scores=lambda out: out["logits"]).flipped == 0
    assert compare(others, outputs, 0.02, scores=lambda out: out["boxes"]).flipped == 1
    both = compare(others, outputs, 0.02, scores=lambda out: [out["boxes"], out["boxes"][None]])
    assert both.flipped == 2
    assert compare((off,), (logits,), 0.02).flipped == 0
    assert compare(off, logits, 0.02, scores=lambda out: ()).flipped == 0
