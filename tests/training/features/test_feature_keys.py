"""What cached features are found by: content, draws and weights; never names or positions."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinue.errors import BadImageError
from retinue.training.features import keys as feature_keys
from retinue.training.features.keys import Contents, identity, space_key, view_key

LONG_AGO = 1_000_000_000


def write(path: Path, data: bytes, time: int = LONG_AGO) -> str:
    path.write_bytes(data)
    os.utime(path, (time, time))
    return str(path)


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "files.memo"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    seen: list[str] = []
    real: Callable[..., Any] = feature_keys.hashlib.file_digest

    def file_digest(file: Any, digest: Any) -> Any:
        seen.append(Path(file.name).name)
        return real(file, digest)

    monkeypatch.setattr(feature_keys.hashlib, "file_digest", file_digest)
    return seen


def test_content_tells_images_apart_and_nothing_else_does(tmp_path: Path, memo: Path) -> None:
    data = [b"one", b"two", b"three"]
    names = [write(tmp_path / f"{i}.jpg", d) for i, d in enumerate(data)]
    copy = write(tmp_path / "a copy.png", b"two", LONG_AGO + 1)
    contents = Contents(memo)
    ids = contents.of_all([(name, None) for name in names])
    assert len(set(ids)) == 3
    assert {len(i) for i in ids} == {16}
    assert contents.of_all([(n, None) for n in [copy, *reversed(names)]]) == [ids[1], *ids[::-1]]
    # The same bytes out of a shard or memory are the same image.
    assert contents.of("shard/7", lambda: b"two") == ids[1] == identity(b"two")
    assert contents.of_all([("x", lambda: b"three"), (names[0], None)]) == [ids[2], ids[0]]


def test_arrays_differ_by_shape_type_and_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8)
    arrays = [pixels.reshape(2, 4, 3), pixels.reshape(4, 2, 3), pixels[::-1].reshape(2, 4, 3)]
    assert len({identity(a) for a in arrays}) == 3
    assert identity(arrays[0][:, ::-1]) == identity(arrays[0][:, ::-1].copy())


def test_a_file_is_read_once(
    tmp_path: Path, memo: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "a.jpg", b"one")
    first = Contents(memo).of(name)
    contents = Contents(memo)
    monkeypatch.chdir(tmp_path)
    assert contents.of(name) == contents.of("a.jpg") == first
    assert contents.of_all([(name, None)] * 3) == [first] * 3
    assert reads == ["a.jpg"]


def test_a_file_that_changed_is_read_again(tmp_path: Path, memo: Path, reads: list[str]) -> None:
    name = write(tmp_path / "a.jpg", b"one")
    one = Contents(memo).of(name)
    write(tmp_path / "a.jpg", b"two", LONG_AGO + 1)
    assert Contents(memo).of(name) == identity(b"two") != one
    write(tmp_path / "a.jpg", b"three")  # another size
    assert Contents(memo).of(name) == identity(b"three")
    write(tmp_path / "new", b"seven")  # another inode
    os.replace(tmp_path / "new", name)
    assert Contents(memo).of(name) == identity(b"seven")
    assert reads == ["a.jpg"] * 4
    if sys.platform != "win32":
        write(tmp_path / "a.jpg", b"SEVEN")  # as long, in place, and the time set back
        assert Contents(memo).of(name) == identity(b"SEVEN")


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "a.jpg", b"one", LONG_AGO)
    monkeypatch.setattr("time.time_ns", lambda: LONG_AGO * 10**9 + 1_900_000_000)
    assert Contents(memo).of(name) == identity(b"one")
    assert not memo.exists()
    write(tmp_path / "a.jpg", b"two", LONG_AGO)  # within the same tick
    assert Contents(memo).of(name) == identity(b"two")
    monkeypatch.setattr("time.time_ns", lambda: LONG_AGO * 10**9 + 2_100_000_000)
    Contents(memo).of(name)
    assert len(memo.read_bytes().splitlines()) == 1


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "a.jpg", b"one")
    real: Callable[..., Any] = feature_keys.hashlib.file_digest

    def file_digest(*args: Any) -> Any:
        found = real(*args)
        write(tmp_path / "a.jpg", b"two", LONG_AGO + 5)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(feature_keys.hashlib, "file_digest", file_digest)
        Contents(memo).of(name)
    assert not memo.exists()
    assert Contents(memo).of(name) == identity(b"two")


def test_damaged_lines_of_the_memo_are_ignored(
    tmp_path: Path, memo: Path, reads: list[str]
) -> None:
    names = [write(tmp_path / f"{i}", b"%d" % i) for i in range(4)]
    expected = [identity(b"%d" % i) for i in range(4)]
    for name in names:
        Contents(memo).of(name)
    lines = memo.read_bytes().splitlines(keepends=True)
    torn = lines[0] + lines[1][:20] + lines[2] + b"\xff\x00\n\n" + lines[3].upper() + lines[3][:9]
    memo.write_bytes(torn)
    reads.clear()
    assert Contents(memo).of_all([(name, None) for name in names]) == expected
    # 3 is written behind the torn line, and lost once more; the rest is known again.
    assert sorted(reads) == ["1", "2", "3"]
    reads.clear()
    assert Contents(memo).of_all([(name, None) for name in names]) == expected
    assert len(reads) <= 1


def test_a_memo_of_lines_that_say_the_same_is_written_anew(
    tmp_path: Path, memo: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As several processes leave it that look at the same files."""
    names = [write(tmp_path / f"{i}", b"%d" % i) for i in range(4)]
    expected = Contents(memo).of_all([(name, None) for name in names])
    lines = memo.read_bytes()
    monkeypatch.setattr(feature_keys, "MEMO_LINES", 8)

    def left(content: bytes) -> bytes:
        memo.write_bytes(content)
        reads.clear()
        assert Contents(memo).of_all([(name, None) for name in names]) == expected
        assert reads == []
        return memo.read_bytes()

    assert left(lines * 2) == lines * 2
    assert sorted(left(lines * 2 + b"damaged\n").splitlines()) == sorted(lines.splitlines())
    monkeypatch.setattr(feature_keys, "MEMO_LINES", 9)
    assert left(lines * 2 + b"damaged\n") == lines * 2 + b"damaged\n"
    assert [path.name for path in memo.parent.iterdir()] == [memo.name]


def test_a_memo_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jpg", b"one")
    assert Contents(tmp_path / "a.jpg" / "files.memo").of(name) == identity(b"one")


def test_all_that_cannot_be_read_are_named(tmp_path: Path, memo: Path) -> None:
    good = write(tmp_path / "good", b"1")

    def broken() -> bytes:
        raise OSError("the shard is cut off")

    sources = [(good, None), (str(tmp_path / "no"), None), ("s/1", broken), (str(tmp_path), None)]
    with pytest.raises(BadImageError) as caught:
        Contents(memo).of_all(sources)
    assert set(caught.value.reasons) == {str(tmp_path / "no"), "s/1", str(tmp_path)}
    assert caught.value.reasons["s/1"] == "the shard is cut off"
    with pytest.raises(FileNotFoundError):
        Contents(memo).of(str(tmp_path / "no"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(30)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, memo: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BadImageError, match="is a named pipe, not a file"):
        Contents(memo).of_all([(str(tmp_path / "a.jpg"), None)])


def test_odd_names(tmp_path: Path, memo: Path, reads: list[str]) -> None:
    for name in ["a\nb", "ü 画.jpg", os.fsdecode(b"\xff\xfe")]:
        path = write(tmp_path / name, name.encode("utf-8", "surrogateescape"))
        assert Contents(memo).of(path) == Contents(memo).of(path)
    assert len(reads) == 3


def test_a_view_depends_on_images_draws_and_size() -> None:
    a, b = identity(b"a"), identity(b"b")
    draws = {"seed": 1, "view": 0, "key": 7, "augment": {"zoom": 0.2, "flip": True}}
    keys = [
        view_key([a], draws, (4, 6)),
        view_key([b], draws, (4, 6)),
        view_key([a, b], draws, (4, 6)),
        view_key([b, a], draws, (4, 6)),
        view_key([a], draws, (6, 4)),
        view_key([a], {**draws, "view": 1}, (4, 6)),
        view_key([a], {**draws, "key": 8}, (4, 6)),
        view_key([a], {**draws, "augment": {"zoom": 0.3, "flip": True}}, (4, 6)),
        view_key([a], None, (4, 6)),
        view_key([], draws, (4, 6)),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(k) for k in keys} == {16}
    assert view_key((a,), dict(reversed(draws.items())), (4, 6)) == keys[0]
    assert keys[0].hex() == "5f54773c72027d4d141686d05079069b"  # kept from one release to the next
    with pytest.raises(ValueError, match="JSON"):
        view_key([a], {"zoom": float("nan")}, (4, 6))


def test_a_space_depends_on_weights_and_facts() -> None:
    weights = {"conv.weight": torch.arange(6.0).reshape(2, 3), "bn.count": torch.tensor(3)}
    facts = {"network": "tiny", "cut": 2, "size": [32, 32], "engine": "torch"}
    other = weights["conv.weight"].clone()
    other[1, 2] += 1e-6
    keys = [
        space_key(facts, weights),
        space_key({**facts, "cut": 3}, weights),
        space_key(facts, {**weights, "conv.weight": other}),
        space_key(facts, {**weights, "conv.weight": weights["conv.weight"].reshape(3, 2)}),
        space_key(facts, {**weights, "conv.weight": weights["conv.weight"].view(torch.int32)}),
        space_key(facts, {"conv.bias": weights["conv.weight"], "bn.count": torch.tensor(3)}),
        space_key(facts, {"bn.count": torch.tensor(3)}),
        space_key(facts, {**weights, "teacher": torch.ones(1, dtype=torch.bfloat16)}),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(k) for k in keys} == {32}
    strided = {**weights, "conv.weight": weights["conv.weight"].t().contiguous().t()}
    for order in itertools.permutations(strided.items()):
        assert space_key(facts, dict(order)) == keys[0]


def test_pixels_and_networks_depend_on_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On versions of packages, and on the numbers that count up with our own code."""
    pixels, network = feature_keys.pixel_code(), feature_keys.network_code("onnxruntime")
    real = feature_keys.versions()

    def changed() -> tuple[bool, bool]:
        now = feature_keys.pixel_code(), feature_keys.network_code("onnxruntime")
        return now[0] != pixels, now[1] != network

    of_pixels = ("numpy", "opencv-python-headless", "pillow", "simplejpeg")
    for package in (*of_pixels, "torch", "onnxruntime", "safetensors", "openvino"):
        with monkeypatch.context() as patch:
            patch.setattr(feature_keys, "versions", lambda one=package: real | {one: "0.1"})
            assert changed() == (package in of_pixels, package in ("torch", "onnxruntime")), package
    for constant, expected in (("PIXELS", (True, False)), ("NETWORKS", (False, True))):
        with monkeypatch.context() as patch:
            patch.setattr(feature_keys, constant, 0)
            assert changed() == expected
