"""What is kept between runs is what was written, or it is not there."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from retinue.inference import engine_cache
from retinue.inference.engine_cache import BUSY, IDLE, Choice, EngineCache, Graph
from retinue.inference.engine_keys import facts, key_of, weights_of

KEY = "0" * 31 + "a"
SIGNATURE = {
    "inputs": "tensor", "input_types": ["float32"],
    "outputs": ["tuple", "tensor"], "output_types": ["float32"],
}  # fmt: skip
PROOF = {"images": 8, "error": 1e-6, "ways": ["apart"]}
GRAPH = Graph(
    "openvino", "openvino", {"xml": b"<net/>", "bin": bytes(range(256)) * 9, "none": b""},
    SIGNATURE, PROOF,
)  # fmt: skip
CHOICE = Choice(
    "torch", {"openvino": 41.2, "torch": 45.0}, 16, "", {"onnxruntime": "no operator ä"}, "vit",
    against={"fp32": 30.5, "bf16": 45.0},
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def localday(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d")


def only(cache: EngineCache) -> Path:
    (file,) = cache.folder.iterdir()
    return file


def test_a_graph_comes_back_as_it_was_written(cache: EngineCache) -> None:
    assert cache.graph(KEY, "openvino") is None
    assert cache.keep_graph(KEY, GRAPH)
    found = cache.graph(KEY, "openvino")
    assert found is not None
    assert {name: bytes(part) for name, part in found.parts.items()} == dict(GRAPH.parts)
    assert (found.engine, found.kind, found.signature, found.proof) == (
        "openvino", "openvino", SIGNATURE, PROOF,
    )  # fmt: skip
    assert cache.graph(KEY, "onnxruntime") is None
    assert cache.graph("1" * 32, "openvino") is None
    assert [file.name for file in cache.folder.iterdir()] == [f"{KEY}-openvino.graph"]
    size = only(cache).stat().st_size
    assert cache.sizes() == {f"{KEY}-openvino.graph": size}


def test_parts_are_aligned_so_that_libraries_can_use_them_where_they_are(
    cache: EngineCache,
) -> None:
    cache.keep_graph(KEY, GRAPH)
    content = only(cache).read_bytes()
    assert content.index(b"<net/>") % 64 == 0
    assert content.index(bytes(range(256))) % 64 == 0


def test_a_choice_comes_back_for_as_many_threads(cache: EngineCache) -> None:
    cache.keep_choice(KEY, 2, CHOICE)
    assert cache.choice(KEY, 2) == CHOICE
    assert cache.choice(KEY, 4) is None
    when = replace(CHOICE, timed=1.7e9, load=0.25)
    cache.keep_choice(KEY, 2, when)
    assert cache.choice(KEY, 2) == when
    assert (
        when.recalled()
        == "openvino 41.2 img/s, torch 45 img/s: torch (2023-11-14, load 0.2 a processor)"
    )
    assert CHOICE.recalled() == CHOICE.told()


def keep_said(cache: EngineCache, said: dict[str, object]) -> None:
    """A choice as a file of which the checksum is right says it."""
    cache.keep_choice(KEY, 2, CHOICE)
    only(cache).write_bytes(b"retinue choice 1" + engine_cache._sealed(json.dumps(said).encode()))


def test_a_choice_of_an_older_version_says_not_when(cache: EngineCache) -> None:
    said = asdict(CHOICE)
    del said["timed"], said["load"]
    keep_said(cache, said)
    assert cache.choice(KEY, 2) == CHOICE


@pytest.mark.parametrize("timed", ["soon", 1e300, [1], "nan"])
def test_a_time_that_is_none_makes_no_choice(
    cache: EngineCache, timed: object, caplog: pytest.LogCaptureFixture
) -> None:
    keep_said(cache, asdict(CHOICE) | {"timed": timed, "load": 0.1})
    assert cache.choice(KEY, 2) is None
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{"images": "many"}, {"images": None}, {"images": [8]}, {"images": 8.5}, {"error": "little"},
     {"ways": "apart"}, {"ways": [1]}, {"ways": None}],
    ids=str,
)  # fmt: skip
def test_a_proof_that_is_none_makes_no_graph(
    cache: EngineCache, changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep_graph(KEY, replace(GRAPH, proof={**PROOF, **changes}))
    assert cache.graph(KEY, "openvino") is None
    assert "is damaged, and is made anew: its proof is none" in caplog.text
    assert cache.sizes() == {}


def test_a_graph_without_a_proof_is_not_used_unseen(cache: EngineCache) -> None:
    cache.keep_graph(KEY, replace(GRAPH, proof={}))
    found = cache.graph(KEY, "openvino")
    assert found is not None
    assert not found.proven


@pytest.mark.parametrize(
    ("then", "now", "doubted"),
    [
        (BUSY + 0.1, IDLE - 0.1, True),
        (BUSY + 0.1, IDLE, True),
        (BUSY + 0.1, IDLE + 0.1, False),  # timed now it would be no better
        (BUSY, 0.0, False),
        (0.0, 0.0, False),
        (None, 0.0, False),
        (BUSY + 0.1, None, False),
    ],
)
def test_what_was_timed_on_a_busy_machine_is_timed_anew_on_an_idle_one(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    then: float | None, now: float | None, doubted: bool,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "retinue")
    monkeypatch.setattr(engine_cache, "cpu_load", lambda: now)
    choice = replace(CHOICE, timed=1.7e9, load=then)
    cache.keep_choice(KEY, 2, choice)
    assert cache.choice(KEY, 2) == (None if doubted else choice)
    assert ("not as timed on a busy machine" in caplog.text) == doubted
    assert cache.choices() == [choice], "it is still told of"
    cache.keep_choice(KEY, 2, replace(choice, load=now))
    assert cache.choice(KEY, 2) is not None
    assert CHOICE.told() == "openvino 41.2 img/s, torch 45 img/s: torch"


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_file_is_not_there(data: st.DataObject) -> None:
    """Cut off, or with any one byte changed, the padding behind parts aside."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        cache = EngineCache(Path(folder))
        if data.draw(st.booleans()):
            cache.keep_graph(KEY, GRAPH)
            read = lambda: cache.graph(KEY, "openvino")  # noqa: E731
        else:
            cache.keep_choice(KEY, 2, CHOICE)
            read = lambda: cache.choice(KEY, 2)  # noqa: E731
        file = only(cache)
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content = content[:place]
        else:
            content[place] ^= data.draw(st.integers(1, 255))
        before = read()
        file.write_bytes(content)
        after = read()
        if after is not None:  # padding: what is read is what was written
            assert bytes(after.parts["bin"]) == bytes(before.parts["bin"])  # type: ignore[union-attr]
            assert bytes(after.parts["xml"]) == b"<net/>"  # type: ignore[union-attr]
            assert isinstance(after, Graph)


def test_damage_is_told_in_a_line(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep_choice(KEY, 2, CHOICE)
    only(cache).write_bytes(b"retinue choice 1" + bytes(8) + b"x" * 16)
    with caplog.at_level(logging.INFO, "retinue"):
        assert cache.choice(KEY, 2) is None
    assert len(caplog.records) == 1
    assert "is damaged, and is made anew: its checksum is another" in caplog.text
    with caplog.at_level(logging.INFO, "retinue"):
        assert cache.choice(KEY, 2) is None
    assert len(caplog.records) == 1, "nor is it there to be found another time"


def test_a_file_that_lies_under_another_key_is_not_taken(cache: EngineCache) -> None:
    cache.keep_graph(KEY, GRAPH)
    only(cache).rename(cache.folder / f"{'b' * 32}-openvino.graph")
    assert cache.graph("b" * 32, "openvino") is None


@pytest.mark.parametrize(
    ("key", "engine"),
    [
        ("../../etc/passwd", "openvino"),
        (KEY, "../x"),
        (KEY, ""),
        (KEY.upper(), "torch"),
        (KEY + "\n", "a"),
    ],
)
def test_no_key_leads_out_of_the_folder(cache: EngineCache, key: str, engine: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        cache.graph(key, engine)
    with pytest.raises(ValueError, match="no key"):
        cache.keep_graph(key, Graph(engine, "onnx", {}, {}))


def test_what_is_no_file_is_not_there(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.folder.mkdir()
    (cache.folder / f"{KEY}-openvino.graph").mkdir()
    os.mkfifo(cache.folder / f"{KEY}-onnxruntime.graph")
    with caplog.at_level(logging.INFO, "retinue"):
        assert cache.graph(KEY, "openvino") is None
        assert cache.graph(KEY, "onnxruntime") is None  # and nobody waits for the pipe
        assert not cache.keep_graph(KEY, GRAPH)
    assert [r.message for r in caplog.records if "Is a directory" in r.message]
    assert cache.clear() == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_a_file_of_another_user_is_not_taken(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What root has written is everybody's."""
    cache.keep_graph(KEY, GRAPH)
    real, owner = os.fstat, [0]

    def owned(file: int) -> os.stat_result:
        seen = real(file)
        return os.stat_result([*seen[:4], owner[0], *seen[5:]])

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with caplog.at_level(logging.INFO, "retinue"):
        for owner[0], taken in ((1000, True), (0, True), (1001, False)):
            assert (cache.graph(KEY, "openvino") is not None) is taken
    assert [r.message for r in caplog.records] == [
        f"the engine cache cannot be read: it belongs to another user, {str(cache.folder)!r}"
    ]


def test_a_place_that_cannot_be_written_to_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    cache = EngineCache(tmp_path / "file" / "engines")
    with caplog.at_level(logging.INFO, "retinue"):
        assert not cache.keep_graph(KEY, GRAPH)
        assert cache.graph(KEY, "openvino") is None
    assert "cannot be kept" in caplog.text
    assert cache.sizes() == {}
    assert cache.clear() == 0


def test_the_same_of_the_whole_cache_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    cache = EngineCache(tmp_path / "file" / "engines")
    with caplog.at_level(logging.INFO, "retinue"):
        for key in (KEY, "b" * 32):
            assert not cache.keep_graph(key, GRAPH)
            assert not cache.keep_choice(key, 1, CHOICE)
    assert len(caplog.records) == 1


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    part = bytes(10_000)
    cache = EngineCache(tmp_path, limit=35_000)
    for number in range(3):
        cache.keep_graph(f"{number:032x}", Graph("torch", "onnx", {"model": part}, {}))
        old = 1_000_000_000 + number
        os.utime(tmp_path / f"{number:032x}-torch.graph", (old, old))
    assert cache.graph(f"{0:032x}", "torch")  # which is a use
    cache.keep_graph(f"{3:032x}", Graph("torch", "onnx", {"model": part}, {}))
    assert sorted(int(name[:32], 16) for name in cache.sizes()) == [0, 2, 3]
    assert not cache.keep_graph(KEY, Graph("torch", "onnx", {"model": bytes(20_000)}, {}))
    assert len(cache.sizes()) == 3


def test_clearing_leaves_what_is_not_its_own(cache: EngineCache) -> None:
    cache.keep_graph(KEY, GRAPH)
    cache.keep_choice(KEY, 2, CHOICE)
    others = [cache.folder / "notes.txt", cache.folder / f"{KEY}-openvino.graph.txt"]
    for other in others:
        other.write_text("mine")
    target = cache.folder.parent / "elsewhere"
    target.write_text("mine")
    (cache.folder / f"{'c' * 32}-torch.graph").symlink_to(target)
    assert cache.clear() > 2 * 256
    assert all(other.exists() for other in [*others, target])
    assert cache.sizes() == {}


def test_a_killed_writers_leftovers_go(cache: EngineCache) -> None:
    cache.keep_graph(KEY, GRAPH)
    left = cache.folder / f".{KEY}-torch.graph.abcdefgh.partial"
    left.write_bytes(b"half")
    cache.clear()
    assert not left.exists()


READS_ALONE = """
import sys
from pathlib import Path
from retinue.inference.engine_cache import EngineCache
from retinue.inference.engine_keys import facts, key_of, weights_of_file
key = key_of(facts({}, weights_of_file(Path(sys.argv[1])), [("float32", (3, 8, 8))]))
EngineCache(Path(sys.argv[2])).graph(key, "openvino")
bad = {"torch", "cv2", "openvino", "onnxruntime", "pydantic"} & set(sys.modules)
assert not bad, bad
print(key)
"""


def test_the_cache_is_read_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, file)
    done = subprocess.run(
        [sys.executable, "-c", READS_ALONE, str(file), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tensor = torch.zeros(3)
    weights = weights_of([("a", "F32", (3,), tensor.numpy().tobytes())])
    assert done.stdout.strip() == key_of(facts({}, weights, [("float32", (3, 8, 8))]))


def test_a_file_of_weights_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And anew after every change, also one that keeps its size and time."""
    read: list[Path] = []
    real = engine_cache.weights_of_file
    monkeypatch.setattr(engine_cache, "weights_of_file", lambda p: read.append(p) or real(p))
    cache = EngineCache(tmp_path / "cache")
    file = tmp_path / "a.safetensors"

    def write(value: float) -> None:
        save_file({"a": np.full(3, value, np.float32)}, file)
        os.utime(file, (1e9, 1e9))

    write(1)
    first = cache.weights(file)
    assert first == real(file)
    assert cache.sizes() == {}, "it was changed only just now"
    monkeypatch.setattr(engine_cache, "_SETTLED", -(10**18))
    assert [cache.weights(file) for _ in range(3)] == [first] * 3
    assert (len(read), len(cache.sizes())) == (2, 1)
    write(2)
    assert cache.weights(file) == real(file) != first
    (tmp_path / "b").mkdir()
    moved = file.rename(tmp_path / "b" / "a.safetensors")
    assert cache.weights(moved) == real(moved)
    assert len(read) == 4
    for name in cache.sizes():
        (cache.folder / name).write_bytes(b"retinue weights1 and nonsense")
    assert cache.weights(moved) == real(moved)
    cache.clear()
    assert list(cache.folder.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        cache.weights(file)
