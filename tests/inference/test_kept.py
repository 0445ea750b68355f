"""A model file whose engine was compiled before answers without PyTorch, and as it did then."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
import sealed
import torch

from retinue import modelfile
from retinue.errors import RetinueError
from retinue.inference import engines, kept, making
from retinue.inference.devices import compute_threads
from retinue.inference.engine_cache import ENOUGH, Choice, EngineCache
from retinue.inference.engine_keys import choice_key, facts, key_of
from retinue.inference.kept import computed_by, kept_engine
from retinue.inference.members import KeptMember, Member
from retinue.inference.predictor import COMPILE_FROM, load
from retinue.models import known
from retinue.sample import Sample

TASKS = {"classification": "mnist_cnn", "multilabel": "mnist_cnn", "detection": "yolov3_tiny"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = exports.photographs(tmp_path_factory.mktemp("photographs"))
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def compiled(
    tmp_path_factory: pytest.TempPathFactory, photographs: list[str]
) -> tuple[Path, dict[str, Path], dict[str, list[Any]]]:
    """A cache, a model file of each task of which it has an engine, and what that has answered."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("kept")
    files, said = {}, {}
    cache = EngineCache(folder / "cache" / "engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETINUE_CACHE", str(folder / "cache"))
        for task, network in TASKS.items():
            file = folder / f"{task}.safetensors"
            if task == "detection":
                exports.detector(file)
            else:
                exports.model(file, network, task=task)
            choose(cache, file, "openvino")  # or a race decides in which way, and so the last bits
            predictor = load(file, device="cpu", engine="openvino")
            assert type(predictor.members[0]) is Member
            said[task] = list(predictor.predict(photographs))
            files[task] = file
    for path in cache.folder.glob("*.choice"):
        path.unlink()  # nobody has timed them
    return folder / "cache", files, said


@pytest.fixture
def cache(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> EngineCache:
    """A copy of it, which tests may spoil."""
    shutil.copytree(compiled[0], tmp_path / "cache")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    return EngineCache()


def choose(cache: EngineCache, file: Path, engine: str, way: str = "apart") -> None:
    """Let `engine` have been the fastest."""
    said = modelfile.read_description(file)
    computed = facts(computed_by(said), "", [("float32", (3, *said.prepared().size))])
    choice = Choice(engine, {engine: 2.0, "torch": 1.0}, 4, way)
    assert cache.keep_choice(choice_key(computed), compute_threads(), choice)


def change_proof(cache: EngineCache, **proof: Any) -> None:
    """Let all graphs have been proven otherwise."""
    for path in cache.folder.glob("*.graph"):
        graph = cache.graph(path.name[:32], "openvino")
        assert graph is not None
        new = replace(graph, proof={**graph.proof, **proof})
        assert cache.keep_graph(path.name[:32], new)


@pytest.mark.parametrize("task", TASKS)
def test_it_answers_as_it_did(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    task: str,
) -> None:
    """Asked for by name, or because it was the fastest; and the network is there if needed."""
    _, files, said = compiled
    for engine in ("openvino", "auto"):
        choose(cache, files[task], "openvino")
        predictor = load(files[task], device="cpu", engine=engine)  # type: ignore[arg-type]
        assert type(predictor.members[0]) is KeptMember
        assert predictor.takes_arrays
        assert predictor.engine == "openvino"
        exports.same(said[task], list(predictor.predict(photographs)), most=1e-5)
        assert predictor.members[0].settled
    network = predictor.network
    assert not network.training
    with torch.inference_mode():
        plain = list(load(files[task], device="cpu", engine="torch").predict(photographs))
    exports.same(plain, said[task], most=1e-3)


def test_nothing_on_the_way_imports_torch(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
) -> None:
    _, files, said = compiled
    program = (
        "import json, sys\n"
        "from retinue.cli.app import run\n"
        "codes = [run(json.loads(line)) for line in sys.argv[1:]]\n"
        "print(codes, sorted({'torch', 'accelerate'} & set(sys.modules)), file=sys.stderr)\n"
    )
    for file in files.values():
        choose(cache, file, "openvino")
    lines = [["predict", str(file), *photographs, "--json"] for file in files.values()]
    lines.append(["predict", str(files["detection"]), photographs[0], "--set", "confidence=0.7"])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(json.dumps, lines)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0] []", done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()[: 3 * len(photographs)]]
    for one, other in zip(told, [r for task in TASKS for r in said[task]], strict=True):
        theirs = json.loads(json.dumps(other.as_dict()))
        assert one.keys() == theirs.keys()
        assert one["path"] == theirs["path"]
        (own,) = one.keys() - {"path"}
        assert [part["name"] for part in one[own]] == [part["name"] for part in theirs[own]]
        scores = [[part["score"] for part in each[own]] for each in (one, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)


def test_where_pytorch_answers_nothing_imports_its_compiler(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]], photographs: list[str]
) -> None:
    """That takes nearly as long as the rest of it."""
    program = (
        "import sys\n"
        "from retinue.cli.app import run\n"
        "line = ['--engine', 'torch', '--device', 'cpu', sys.argv[1]]\n"
        "codes = [run(['predict', file, *line]) for file in sys.argv[2:]]\n"
        "heavy = {'torch._dynamo', 'torchvision', 'scipy', 'sympy'}\n"
        "print(codes, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, photographs[0], *map(str, compiled[1].values())],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[0, 0, 0] []", done.stderr


def test_where_pytorch_is_faster_it_goes_on_once_there_is_much(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
) -> None:
    """The first answers need not wait for it."""
    _, files, _ = compiled
    choose(cache, files["classification"], "torch", "together")
    predictor = load(files["classification"], device="cpu")
    assert type(predictor.members[0]) is KeptMember
    assert (predictor.engine, predictor.members[0].settled) == ("openvino", False)
    many = photographs * (COMPILE_FROM // len(photographs) + 4)
    answers = list(predictor.predict(many, batch_size=8))
    assert predictor.engine == "torch"
    first = answers[: len(photographs)]
    last = answers[-len(photographs) :]
    exports.same(first, last, most=1e-4)


def test_where_pytorch_is_faster_few_images_do_not_import_it(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    tmp_path: Path,
) -> None:
    """Nor of a model that was not there yet when that was found out; by name one gets it."""
    files, program = [], (
        "import sys\n"
        "from retinue.inference.predictor import load\n"
        "predictor = load(sys.argv[1], device='cpu', engine=sys.argv[2])\n"
        "print(predictor(sys.argv[3]).told(), predictor.engine, 'torch' in sys.modules)\n"
    )  # fmt: skip
    for task, file in compiled[1].items():
        files.append(tmp_path / f"{task}.safetensors")
        shutil.copy(file, files[-1])
        spoil(files[-1], "other weights")
        choose(cache, file, "torch", "together")
        predictor = load(files[-1], device="cpu")
        assert type(predictor.members[0]) is Member
        list(predictor.predict(photographs * 12))
        assert predictor.engine == "torch"
    for file in [*compiled[1].values(), *files]:
        said = {}
        for wish in ("auto", "torch"):
            line = [sys.executable, "-c", program, str(file), wish, photographs[0]]
            done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
            said[wish], engine, imported = done.stdout.strip().rsplit(" ", 2)
            expected = ("openvino", "False") if wish == "auto" else ("torch", "True")
            assert (engine, imported) == expected, file
        assert said["auto"] == said["torch"]


@pytest.mark.parametrize(("fastest", "why"), [("torch", "as timed before"), (None, "nobody")])
def test_it_says_that_another_engine_answers_than_was_the_fastest(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
    fastest: str | None,
    why: str,
) -> None:
    file = compiled[1]["classification"]
    if fastest is not None:
        choose(cache, file, fastest, "together")
    with caplog.at_level(logging.INFO, "retinue"):
        load(file, device="cpu")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("engine: openvino answers few images, as its graph is kept; ")
    assert why in line
    assert fastest is None or line.endswith(": torch")


@pytest.mark.parametrize(
    ("against", "wish", "answers"),
    [
        ({"fp32": 30.0, "bf16": 45.0}, "auto", "bf16"),
        ({"fp32": 30.0, "bf16": 30.5}, "auto", "fp32"),  # noise would choose
        ({"fp32": 45.0, "bf16": 30.0}, "auto", "fp32"),
        ({}, "auto", None),
        ({"bf16": 45.0}, "auto", None),
        ({"fp32": 30.0, "bf16": 45.0}, "auto", "refused"),
        ({}, "auto", "refused"),
        ({"fp32": 45.0, "bf16": 30.0}, "openvino", "bf16"),
        ({}, "torch", None),
    ],
)
def test_fewer_bits_answer_as_they_did_where_they_were_worth_it(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    against: dict[str, float],
    wish: Any,
    answers: str | None,
) -> None:
    """The graph in fp32 stands in for that in bf16, which not every processor has."""
    file = compiled[1]["classification"]
    said = modelfile.read_description(file)
    (fp32, bf16) = (
        facts(computed_by(said), cache.weights(file), [("float32", (3, *said.prepared().size))], p)
        for p in ("fp32", "bf16")
    )
    graph = cache.graph(key_of(fp32), "openvino")
    assert graph is not None
    cache.keep_graph(key_of(bf16), graph)
    choose(cache, file, "openvino")
    choice = Choice("openvino", {"openvino": 2.0}, 4, "apart", against=against)
    cache.keep_choice(choice_key(bf16), compute_threads(), choice)
    if answers == "refused":
        answers = "fp32"
        cache.keep_refused(key_of(bf16), {"openvino": "openvino disagrees"})
        assert [one.engine for one in cache.choices()] == ["openvino"] * 2
    monkeypatch.setattr(kept, "of_graph", lambda graph, precision, way: precision)
    found = kept_engine(file, said, wish, precision="bf16")
    assert (found and found.engine) == answers
    assert found is None or found.settled
    told = "bf16 is no faster than fp32 here" in caplog.text or "disagrees" in caplog.text
    assert told is (answers == "fp32")


def test_few_images_prove_no_engine_for_good(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is judged again, though not converted, until it has answered several, and different ones,
    as PyTorch does."""
    file, said = compiled[1]["classification"], compiled[2]["classification"]
    cache.clear()
    choose(cache, file, "openvino")
    for shown, proven in (
        (photographs[:1], 1),
        (photographs[:1] * 8, 1),  # seen already
        ([__file__], ENOUGH - 1),  # no picture: noise it is
        (photographs, len(photographs)),
        (photographs[:1], len(photographs)),
    ):
        predictor = load(file, device="cpu", engine="openvino")
        ready = proven >= ENOUGH and shown is not photographs
        assert type(predictor.members[0]) is (KeptMember if ready else Member)
        predictor.compile([Sample(path) for path in shown])
        (path,) = cache.folder.glob("*.graph")
        graph = cache.graph(path.name[:32], "openvino")
        assert graph is not None
        assert graph.proof["images"] == proven
        monkeypatch.setattr(making, "openvino_model", None)
    exports.same(said, list(predictor.predict(photographs)), most=1e-5)


def test_pictures_that_come_again_prove_an_engine_by_those_that_differ(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
) -> None:
    """However their number fits the steps in which a stream is looked at."""
    file = compiled[1]["classification"]
    for many in (photographs, photographs[:4], photographs[:1]):
        cache.clear()
        again = many * (COMPILE_FROM // len(many) + 8)
        list(load(file, device="cpu").predict(again, batch_size=COMPILE_FROM // 2))
        (path,) = cache.folder.glob("*-openvino.graph")
        graph = cache.graph(path.name[:32], "openvino")
        assert graph is not None
        assert graph.proof["images"] == len(many)
        ready = len(many) >= ENOUGH
        assert type(load(file, device="cpu").members[0]) is (KeptMember if ready else Member)


def test_an_engine_that_was_proven_on_few_images_and_disagrees_is_made_anew(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its graph is that of other weights here."""
    file, said = compiled[1]["classification"], compiled[2]["classification"]
    other = tmp_path / "other.safetensors"
    shutil.copy(file, other)
    spoil(other, "other weights")
    cache.clear()
    found: dict[Path, Path] = {}
    for one in (file, other):
        choose(cache, one, "openvino")
        list(load(one, device="cpu", engine="openvino").predict(photographs))
        (found[one],) = {*cache.folder.glob("*.graph")} - {*found.values()}
    strange = cache.graph(found[other].name[:32], "openvino")
    assert strange is not None
    proof = {**strange.proof, "images": 1}
    cache.keep_graph(found[file].name[:32], replace(strange, proof=proof))
    with caplog.at_level(logging.INFO, "retinue"):
        predictor = load(file, device="cpu", engine="openvino")
        exports.same(said, list(predictor.predict(photographs)), most=1e-5)
    assert "recompiling the cached engine openvino: openvino disagrees with torch" in caplog.text
    assert predictor.engine == "openvino"
    assert kept_engine(file, modelfile.read_description(file), "openvino") is not None


@pytest.mark.parametrize("how", ["other weights", "other classes", "damaged", "gone"])
def test_one_model_answers_all_the_while(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """Also where a training writes another to its place before the network is needed."""
    _, files, said = compiled
    file = tmp_path / "best.safetensors"
    shutil.copy(files["classification"], file)
    choose(cache, file, "torch")
    predictor = load(file, device="cpu")
    assert type(predictor.members[0]) is KeptMember
    spoil(file, how)
    many = photographs * (COMPILE_FROM // len(photographs) + 4)
    answers = list(predictor.predict(many, batch_size=8))
    for first in range(0, len(many), len(photographs)):
        part = answers[first : first + len(photographs)]
        exports.same(said["classification"], part, most=1e-4)
    assert predictor.engine == "openvino"
    assert caplog.text.count("the model file has changed since it was loaded") == 1
    with pytest.raises(RetinueError, match="has changed since it was loaded") as refused:
        _ = predictor.network
    assert refused.value.where == str(file)
    shutil.copy(files["classification"], file)
    assert predictor.network is predictor.members[0].network, "it is there again"


def spoil(file: Path, how: str) -> None:
    """Put something else where the model file was."""
    description, tensors = modelfile.read(file)
    if how == "gone":
        file.unlink()
    elif how == "damaged":
        file.write_bytes(file.read_bytes()[:-8])
    elif how == "other weights":
        other = {k: v * 1.5 if v.is_floating_point() else v for k, v in tensors.items()}
        modelfile.write(file, other, description)
    else:
        turned = description.model_copy(update={"classes": description.classes[::-1]})
        modelfile.write(file, tensors, turned)


def test_a_file_that_is_replaced_while_it_is_opened_is_read_whole(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The classes of one with the weights of another would be no model."""
    file = tmp_path / "best.safetensors"
    shutil.copy(compiled[1]["classification"], file)
    hashed = EngineCache.weights

    def late(self: EngineCache, path: Path) -> str:
        spoil(file, "other classes")
        return hashed(self, path)

    monkeypatch.setattr(EngineCache, "weights", late)
    opened = load(file, device="cpu", engine="openvino")
    assert type(opened.members[0]) is Member
    assert list(opened.classes) == modelfile.read_description(file).classes


@pytest.mark.parametrize(
    ("proven", "timed", "taken"),
    [
        (["apart"], "together", "apart"),
        (["together"], "apart", "together"),
        (["apart", "together"], "together", "together"),
        (["apart", "together"], "", "apart"),
        ([], "apart", None),
        (["sideways"], "sideways", None),
    ],
)
def test_it_runs_in_a_way_in_which_it_was_proven(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    proven: list[str],
    timed: str,
    taken: str | None,
) -> None:
    file = compiled[1]["classification"]
    change_proof(cache, ways=proven)
    choose(cache, file, "openvino", timed)
    for wish in ("openvino", "auto"):
        kept = kept_engine(file, modelfile.read_description(file), wish)  # type: ignore[arg-type]
        assert (kept and kept.engine.way) == taken  # type: ignore[attr-defined]


def test_of_other_weights_or_classes_it_says_nothing(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    tmp_path: Path,
) -> None:
    """The same weights under another name are the same; one bit of them is not."""
    _, files, _ = compiled
    file = files["classification"]
    description, tensors = modelfile.read(file)

    def there(path: Path) -> bool:
        return kept_engine(path, modelfile.read_description(path), "openvino") is not None

    copy = tmp_path / "猫 & dog.safetensors"
    shutil.copy(file, copy)
    assert there(copy)
    key = next(iter(tensors))
    modelfile.write(copy, {**tensors, key: tensors[key] + 1e-6}, description)
    assert not there(copy)
    modelfile.write(copy, tensors, description.model_copy(update={"task_state": {"blend": 0.5}}))
    assert not there(copy)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-8])
    assert kept_engine(cut, description, "openvino") is None
    assert kept_engine(file, description, "torch") is None
    assert kept_engine(file, description, "auto", cache=EngineCache(tmp_path)) is None


def test_what_nobody_has_timed_answers_until_there_is_much(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Were it that what tells how fast it was is damaged, which is said once."""
    file, said = compiled[1]["classification"], compiled[2]["classification"]
    choose(cache, file, "torch", "together")
    (choice,) = cache.folder.glob("*.choice")
    choice.write_bytes(b"\x93" * 300)
    for _ in range(2):
        predictor = load(file, device="cpu")
        assert type(predictor.members[0]) is KeptMember
        assert not predictor.members[0].settled
        exports.same(said, list(predictor.predict(photographs)), most=1e-5)
    warned = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert [line.partition(" in ")[0] for line in warned] == [choice.name]
    assert not choice.exists()
    predictor.compile([Sample(path) for path in photographs])
    assert choice.exists()
    assert type(load(file, device="cpu").members[0]) is KeptMember


def test_of_a_network_that_a_script_registers_none_is_taken(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if one had been kept."""
    file = compiled[1]["classification"]
    said = modelfile.read_description(file)
    assert kept_engine(file, said, "openvino") is not None
    theirs = {name: facts for name, facts in known.networks().items() if name != said.network}
    monkeypatch.setattr(known, "networks", lambda: theirs)
    assert kept_engine(file, said, "openvino") is None


def test_what_is_damaged_is_compiled_anew(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
) -> None:
    _, files, said = compiled
    for graph in cache.folder.glob("*.graph"):
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
    choose(cache, files["multilabel"], "openvino")
    predictor = load(files["multilabel"], device="cpu", engine="openvino")
    assert type(predictor.members[0]) is Member
    exports.same(said["multilabel"], list(predictor.predict(photographs)), most=1e-5)
    assert type(load(files["multilabel"], device="cpu", engine="openvino").members[0]) is KeptMember


def test_a_cache_that_is_closed_is_none(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
) -> None:
    """One line, and the work is done."""
    file = compiled[1]["classification"]
    closed = cache.folder.parent
    program = [sys.executable, "-m", "retinue.cli", "predict", str(file), photographs[0]]
    before = sealed.bound()
    closed.chmod(0)
    try:
        done = subprocess.run([*before, *program], capture_output=True, text=True, timeout=120)
    finally:
        closed.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"the engine cache cannot be read: Permission denied, {str(cache.folder)!r}"
    ]


def test_a_file_that_does_not_say_all_is_not_answered_without_its_network(
    compiled: tuple[Path, dict[str, Path], dict[str, list[Any]]],
    cache: EngineCache,
    photographs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A detector's strides were not written down in files of the first format."""
    # As the others ran: nothing that is kept says in which way, and a race would decide.
    monkeypatch.setattr(engines, "_WAYS", {"openvino": ("apart",)})
    description, tensors = modelfile.read(compiled[1]["detection"])
    state = {key: value for key, value in description.task_state.items() if key == "anchors"}
    file = tmp_path / "old.safetensors"
    modelfile.write(file, tensors, description.model_copy(update={"task_state": state}))
    before = sorted(cache.folder.glob("*.graph"))
    for _ in range(2):
        predictor = load(file, device="cpu", engine="openvino")
        assert type(predictor.members[0]) is Member
        exports.same(compiled[2]["detection"], list(predictor.predict(photographs)), most=1e-5)
    assert sorted(cache.folder.glob("*.graph")) == before
