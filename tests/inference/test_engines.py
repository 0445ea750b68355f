"""Every engine says what the module says."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from engine_networks import Detector, Tiny, need, nested_inputs
from torch import Tensor, nn

from retinue.inference.agreement import agrees
from retinue.inference.engines import TorchEngine, compile_engine, installed
from retinue.inference.tracing import Axes, openvino_model
from retinue.models.network import State

ENGINES = ["torch", "openvino", "onnxruntime"]


class Taps(nn.Module):
    """A tuple in, a tuple out: the trunk of a network with taps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 1)

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, tap = state
        return self.conv(x), tap * 2


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


def test_only_what_is_asked_is_compiled(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image takes all threads together, many as many streams: a process that answers one
    compiles once, and what was compiled for images that did not come is let go of."""
    need("openvino")
    from retinue.inference.runtimes import openvino as runtime

    monkeypatch.setattr(runtime, "compute_threads", lambda: 3)
    made: list[int] = []
    init = runtime._Compiled.__init__

    def noted(self: Any, *given: Any) -> None:
        made.append(given[-1])
        init(self, *given)

    monkeypatch.setattr(runtime._Compiled, "__init__", noted)
    model, signature = openvino_model(tiny, x := torch.randn(6, 3, 16, 16))

    def engine(**how: int) -> runtime.OpenVINOEngine:
        made.clear()
        return runtime.OpenVINOEngine(model, signature, "fp32", "apart", **how)

    one = engine()
    one(x[:1])
    one(x[:2])
    assert made == [1]
    one(x)
    one(x[:1])
    assert made == [1, 3]
    assert sorted(one._compiled) == [1, 3]
    many = engine(images=6)
    many(x)
    assert made == [3]
    other = engine()
    other(x)
    assert made == [1, 3]
    assert list(other._compiled) == [3]


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
