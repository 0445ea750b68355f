"""What was compiled and chosen is found again the next time."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache as cache_of
from functools import partial, wraps
from pathlib import Path
from typing import Any

import engine_networks
import pytest
import torch
from engine_networks import Detector, Tiny, need, nested_inputs, timed

from retinue.inference import engine_cache, engines, making
from retinue.inference.agreement import agrees
from retinue.inference.engine_cache import EngineCache
from retinue.inference.engines import TorchEngine, compile_engine
from retinue.inference.tracing import onnx_program, openvino_model
from retinue.models import heads, registry
from retinue.models.network import Network
from retinue.models.registry import create_model, find
from retinue.run.log import console
from retinue.tasks import task
from retinue.tasks.task import task_type


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """Of these tests' networks, too."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    monkeypatch.setattr(making, "_KNOWN", (*making._KNOWN, engine_networks.__name__))
    return EngineCache()


def test_what_was_the_fastest_is_known_the_next_time(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """For other weights of the same network, too, which are proven anew."""
    need("openvino")
    x, computed = torch.randn(2, 3, 16, 16), {"network": "mnist_cnn", "state": {"t": 1}}
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
    with console(tmp_path / "train.log", quiet=True):
        for _ in range(3):
            compile_engine(tiny, x, computed=computed)
    assert (tmp_path / "train.log").read_text().count("engine, as timed before: openvino") == 1
    torch.manual_seed(1)
    other = Tiny()
    third = compile_engine(other, x, computed={"network": "mnist_cnn", "state": {"t": 2}})
    assert (len(races), len(converted)) == (1, 1)
    assert agrees(third, TorchEngine(other), x).accepted
    assert len(cache.sizes()) == 3
    compile_engine(tiny, x, computed={"network": "resnet18"})
    assert len(races) == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        compile_engine(tiny, x, computed=computed)
    finally:
        torch.set_num_threads(threads)
    assert len(races) == 3


def test_where_pytorch_is_the_fastest_a_graph_is_kept_beside_it(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, cache: EngineCache
) -> None:
    """Of all weights, not only of those that were timed; but not where nobody would ask for it, nor
    where OpenVINO cannot run the network."""
    need("openvino")
    x, computed = torch.randn(8, 3, 16, 16), {"network": "mnist_cnn"}
    races = timed(monkeypatch, openvino_apart=4000, openvino_together=3000, torch=5000)

    def kept(**how: Any) -> int:
        torch.manual_seed(len(cache.sizes()))
        assert compile_engine(Tiny(), x, computed=computed, **how).name == "torch"
        assert len(races) == 1
        return len([name for name in cache.sizes() if name.endswith("-openvino.graph")])

    assert [kept(), kept(), kept(engine="torch"), kept(steady=True)] == [1, 2, 2, 2]
    monkeypatch.setattr(making, "openvino_model", None)
    torch.manual_seed(1)
    compile_engine(Tiny(), x[:2], computed=computed)  # nor is it made again
    for path in cache.folder.glob("*.graph"):
        graph = cache.graph(path.name[:32], "openvino")
        assert graph is not None
        assert graph.proven
        assert graph.proof["ways"] == ["apart", "together"]


def test_a_graph_that_cannot_be_had_beside_pytorch_is_not_tried_again(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, cache: EngineCache
) -> None:
    """Of these weights, though others have one; nor one that would be too large to be kept."""
    need("openvino")
    x, computed = torch.randn(8, 3, 16, 16), {"network": "mnist_cnn"}
    timed(monkeypatch, openvino_apart=4000, openvino_together=3000, torch=5000)
    assert compile_engine(tiny, x, computed=computed).name == "torch"
    monkeypatch.setattr(making, "openvino_model", refusing := Refusing())
    torch.manual_seed(7)
    other = Tiny()
    for _ in range(2):
        assert compile_engine(other, x, computed=computed).name == "torch"
        assert refusing.asked == 2, "in each of its ways, once"
    monkeypatch.setattr(EngineCache, "takes", lambda self, size: size < 10)
    torch.manual_seed(8)
    assert compile_engine(Tiny(), x, computed=computed).name == "torch"
    assert refusing.asked == 2


def test_a_network_that_an_engine_cannot_run_is_not_converted_for_it_again(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, cache: EngineCache
) -> None:
    """Where that was found out when the others were timed."""
    need("openvino")
    need("onnxruntime")
    x, computed = torch.randn(8, 3, 16, 16), {"network": "mnist_cnn"}
    races = timed(monkeypatch, torch=5000, onnxruntime=3000)
    monkeypatch.setattr(making, "openvino_model", refusing := Refusing())
    for _ in range(2):
        assert compile_engine(tiny, x, computed=computed).name == "torch"
        assert len(races) == 1
        assert refusing.asked == 2, "in each of its ways, once"


class Refusing:
    """Converts nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, *_: object) -> None:
        self.asked += 1
        raise RuntimeError("no such operator")


def test_what_was_timed_on_a_busy_machine_is_timed_once_more(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, cache: EngineCache
) -> None:
    need("openvino")
    x, computed = torch.randn(2, 3, 16, 16), {"network": "mnist_cnn"}

    def compiled(load: float) -> str:
        monkeypatch.setattr(engines, "cpu_load", lambda: load)
        monkeypatch.setattr(engine_cache, "cpu_load", lambda: load)
        return compile_engine(tiny, x, computed=computed).name

    busy = timed(monkeypatch, openvino_apart=4000, openvino_together=3000, torch=5000)
    assert [compiled(4.0), compiled(3.0)] == ["torch", "torch"]
    assert len(busy) == 1
    idle = timed(monkeypatch, openvino_apart=4000, openvino_together=9000, torch=5000)
    assert [compiled(0.2), compiled(0.2), compiled(9.0)] == ["openvino"] * 3
    assert (len(busy), len(idle)) == (1, 1)
    (choice,) = cache.choices()
    assert choice.load == 0.2


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_that_was_kept_answers_as_it_did(
    engine: str, tiny: Tiny, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(engine)
    x = {"offset": torch.arange(3), "levels": nested_inputs(3)["levels"]}
    module = Detector().eval()
    how: dict[str, Any] = {"engine": engine, "computed": {"network": "mnist_cnn"}}
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
    x, computed = torch.randn(2, 3, 16, 16), {"network": "mnist_cnn"}
    compile_engine(tiny, x, engine="openvino", computed=computed)
    assert EngineCache().sizes() == {}


def retinues(**arguments: Any) -> Network:
    """A network all of whose modules are the package's own, but somebody else put together."""
    return create_model("mnist_cnn", **arguments)


@wraps(find("mnist_cnn").build)
def wrapped(**arguments: Any) -> Network:
    return retinues(**arguments)


@pytest.mark.parametrize("build", [retinues, partial(retinues), wrapped, cache_of(retinues)])
def test_of_a_network_that_somebody_else_builds_no_graph_is_kept(
    build: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever it is made of, and even if it took the name of one of the zoo."""
    need("openvino")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    network = create_model("mnist_cnn").eval()
    x = torch.randn(2, 3, *network.preprocessing.size)

    def kept(**computed: Any) -> int:
        compile_engine(network, x, engine="openvino", computed={"network": "mnist_cnn", **computed})
        return len(EngineCache().sizes())

    for name in ("mine", "mnist_cnn"):
        entry = replace(find("mnist_cnn"), name=name, build=build)
        monkeypatch.setitem(registry._ENTRIES, name, entry)
        assert kept(network=name) == 0
    monkeypatch.undo()
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    assert kept(arguments={"backbone": "mine"}) == 0
    monkeypatch.setitem(heads._HEADS, "own", replace(heads._HEADS["mlp"], build=build))
    assert kept(arguments={"head": {"name": "own"}}) == 0
    theirs = type("Theirs", (task_type("classification"),), {"__module__": __name__})
    monkeypatch.setitem(task._TASKS, "theirs", theirs)
    assert kept(task="theirs") == 0
    assert kept(task="classification", arguments={"head": {"name": "mlp"}}) == 1


def test_a_graph_that_its_library_cannot_read_is_made_anew(
    tiny: Tiny, cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    need("openvino")
    x, computed = torch.randn(2, 3, 16, 16), {"network": "mnist_cnn"}
    first = compile_engine(tiny, x, engine="openvino", computed=computed)
    (file,) = cache.folder.iterdir()
    graph = cache.graph(file.name[:32], "openvino")
    assert graph is not None
    cache.keep_graph(file.name[:32], replace(graph, parts={**graph.parts, "xml": b"<net"}))
    with caplog.at_level(logging.INFO, "retinue"):
        again = compile_engine(tiny, x, engine="openvino", computed=computed)
    assert torch.equal(again(x), first(x))
    assert "recompiling the cached engine openvino" in caplog.text
