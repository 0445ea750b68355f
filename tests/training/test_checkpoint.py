from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinue.errors import RetinueError
from retinue.run.checkpoint import CheckpointStore


def test_the_last_one_saved_is_the_one_loaded_and_older_ones_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "last")
    assert not store.exists()
    for number in range(3):
        store.save({"number": number, "tensor": torch.full((2,), float(number))})
    assert store.load()["number"] == 2
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == ["000003", "current"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "torch.save"])
def test_a_full_disk_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = CheckpointStore(tmp_path / "last")
    store.save({"number": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(RetinueError, match=r"No space left.*000001.*whole") as raised:
            store.save({"number": 2})
    assert str(tmp_path / "last") in str(raised.value)
    assert store.load()["number"] == 1
    store.save({"number": 3})
    assert store.load()["number"] == 3


def test_a_file_size_limit_of_the_system_is_told_as_such(tmp_path: Path) -> None:
    """A real short write, by the kernel, in the middle of the file."""
    script = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from retinue.errors import RetinueError\n"
        "from retinue.run.checkpoint import CheckpointStore\n"
        "store = CheckpointStore(Path(sys.argv[1]))\n"
        "store.save({'number': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    store.save({'number': 2, 'tensor': torch.zeros(1_000_000)})\n"
        "except RetinueError as error:\n"
        "    print(error)\n"
        "    print(store.load()['number'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "last")],
        capture_output=True,
        text=True,
        check=True,
    )
    message, number = done.stdout.strip().splitlines()
    assert "cannot be written (File too large)" in message  # not PyTorch's `[enforce fail …`
    assert "000001" in message
    assert number == "1"


def test_a_kill_between_the_rename_and_the_pointer_loses_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "last")
    store.save({"number": 1})
    (tmp_path / "last" / "000002").mkdir()  # renamed, but never named by the pointer
    (tmp_path / "last" / "000003.partial").mkdir()
    assert store.load()["number"] == 1
    store.save({"number": 2})
    assert store.load()["number"] == 2
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == ["000002", "current"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "last")
    folder = store.save({"number": 1})
    (folder / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(RetinueError, match=r"000001.state\.pt"):
        store.load()


def _saved(folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder)
    store.save({"number": 1, "tensor": torch.arange(2000.0)})
    return store


def test_every_damage_of_the_state_is_noticed_and_no_foreign_advice_is_given(
    tmp_path: Path,
) -> None:
    store = _saved(tmp_path / "last")
    path = tmp_path / "last" / "000001" / "state.pt"
    whole = path.read_bytes()
    assert b"weights_only" not in whole
    flipped = [bytearray(whole) for _ in range(20)]
    for k, copy in enumerate(flipped):
        copy[len(whole) * k // 20] ^= 0x10
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole + b"x", *flipped):
        path.write_bytes(damaged)
        with pytest.raises(RetinueError, match=r"cannot be read \(it is damaged\)") as e:
            store.load()
        assert "weights_only" not in str(e.value)
        assert str(path) == e.value.where
    path.unlink()
    with pytest.raises(RetinueError, match=r"cannot be read \(No such file"):
        store.load()
    path.mkdir()
    with pytest.raises(RetinueError, match=r"cannot be read \(Is a directory"):
        store.load()


def test_a_state_that_is_no_dictionary_of_ours_is_damaged(tmp_path: Path) -> None:
    store = _saved(tmp_path / "last")
    torch.save([1, 2], tmp_path / "last" / "000001" / "state.pt")
    (tmp_path / "last" / "000001" / "state.blake2b").unlink()
    with pytest.raises(RetinueError, match="it is damaged"):
        store.load()


@pytest.mark.parametrize("pointer", [None, b"", b"\xff\xfe", b"000007\n", b"../../x\n", b"x"])
def test_a_damaged_pointer_costs_nothing(tmp_path: Path, pointer: bytes | None) -> None:
    store = _saved(tmp_path / "last")
    store.save({"number": 2})
    (tmp_path / "last" / "current").unlink()
    if pointer is not None:
        (tmp_path / "last" / "current").write_bytes(pointer)
    assert store.exists()
    assert store.load()["number"] == 2
    store.save({"number": 3})
    assert store.load()["number"] == 3


def test_a_sum_that_is_gone_is_that_of_an_older_version(tmp_path: Path) -> None:
    store = _saved(tmp_path / "last")
    (tmp_path / "last" / "000001" / "state.blake2b").unlink()
    assert store.load()["number"] == 1
    (tmp_path / "last" / "000001" / "state.blake2b").write_text("")
    with pytest.raises(RetinueError, match="it is damaged"):
        store.load()


def test_what_kills_have_left_is_swept(tmp_path: Path) -> None:
    store = _saved(tmp_path / "last")
    (tmp_path / "last" / "000002.partial").mkdir()
    (tmp_path / "last" / ".current.abcd1234.partial").touch()
    for mine in ("notes.partial", "mine.txt"):
        (tmp_path / "last" / mine).touch()
    store.tidy()
    left = sorted(p.name for p in (tmp_path / "last").iterdir())
    assert left == ["000001", "current", "mine.txt", "notes.partial"]
