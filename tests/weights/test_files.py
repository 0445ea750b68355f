"""Files of weights of every kind, and files that are not what they seem."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_files import (
    BETA,
    GAMMA,
    GROUPS,
    KERNEL,
    NAMES,
    RNG,
    archive,
    legacy,
    numbered,
    same,
)
from safetensors.torch import save_file

from retinue.errors import RetinueError, UsageError
from retinue.sample import Preprocessing
from retinue.weights import files

# --- descriptions of model files


def described(**changes: Any) -> str:
    values = {
        "format_version": 1, "task": "classification", "classes": ["a"], "network": "x",
        "arguments": {}, "preprocessing": Preprocessing((8, 8)).as_dict(),
    }  # fmt: skip
    return json.dumps({**values, **changes})


@pytest.mark.parametrize("text", ["{", "[]", '{"network": "x"}', described(unheard_of=1)])
def test_damaged_description(tmp_path: Path, text: str) -> None:
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.ones(1)}, path, {"retinue": text})
    with pytest.raises(RetinueError, match=r"description is damaged.*best\.safetensors"):
        files.read(path)


def test_a_newer_model_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.ones(1)}, path, {"retinue": described(format_version=99)})
    with pytest.raises(RetinueError, match=r"format 99.*newer retinue"):
        files.read(path)


def test_an_older_model_file_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are taken from an older release's model as `predict` would read it."""
    from retinue import modelfile

    def rename_network(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "network": "new_" + values["network"]}

    monkeypatch.setitem(modelfile.UPGRADES, 0, rename_network)
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.ones(1)}, path, {"retinue": described(format_version=0)})
    contents = files.read(path)
    assert contents.network == "new_x"
    assert contents.classes == ("a",)


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"no weights at all" * 9, b"\x89HDF\r\n\x1a\n" + b"\0" * 99]
)
def test_empty_and_damaged(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(RetinueError, match=rf"w\{suffix}"):
        files.read(path)


# --- files that are not what their names say

MISTAKEN = {
    "the file is empty": b"",
    "a Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha",
    "a web page.*download the file": b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
    "a web page, not": "<html><p>Stra\xdfe".encode("latin-1"),
    "plain text.*'Entry not found'": b"Entry not found\n",
    "plain text, not": ("é" * 400).encode(),
    "a single array.*numpy.savez": b"\x93NUMPY\1\0v\0{'descr': '<f4'}",
    "packed with gzip.*unpack it": b"\x1f\x8b\x08\0\0",
    "packed with bzip2.*unpack it": b"BZh91AY&SY",
    "a tar archive.*unpack it": tarfile.TarInfo("w.pth").tobuf(),
    "a zip archive of notes.txt.*unpack it|damaged": None,
}


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize("said", MISTAKEN)
def test_what_was_downloaded_instead(tmp_path: Path, said: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if (content := MISTAKEN[said]) is None:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("notes.txt", "none")
    else:
        path.write_bytes(content)
    with pytest.raises(RetinueError, match=said) as caught:
        files.read(path)
    assert caught.value.where == str(path)


def of_kind(path: Path) -> Path:
    """A file of the kind that its suffix says."""
    if path.suffix == ".safetensors":
        save_file({"a": torch.ones(1)}, path)
    elif path.suffix == ".npz":
        np.savez(path, a=np.ones(2))
    elif path.suffix == ".h5":
        legacy(path, {"a": {"a/bias:0": BETA}})
    elif path.suffix == ".keras":
        archive(path, numbered(path.with_name("n.h5"), GROUPS, NAMES))
    else:
        torch.save(
            {"a": torch.ones(2)}, path, _use_new_zipfile_serialization=path.suffix != ".older"
        )
    return path


@pytest.mark.parametrize("wrong", [".safetensors", ".pt", ".npz", ".hdf5", ".weights", ".pkl", ""])
@pytest.mark.parametrize("right", [".safetensors", ".pth", ".older", ".npz", ".h5", ".keras"])
def test_another_kind_under_a_suffix(tmp_path: Path, right: str, wrong: str) -> None:
    path = of_kind(tmp_path / f"right{right}").rename(tmp_path / f"w{wrong}")
    stated = ".pth" if right == ".older" else right
    if (stated, wrong) in ((wrong, wrong), (".pth", ".pt"), (".h5", ".hdf5")):
        assert files.read(path).tensors
        return
    with pytest.raises(RetinueError, match=rf"the file is .*rename it.*ends in \{stated}$"):
        files.read(path)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".keras"])
def test_half_an_archive(tmp_path: Path, suffix: str) -> None:
    path = of_kind(tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RetinueError, match=r"archive that is cut short.*download it again"):
        files.read(path)


@pytest.mark.parametrize("suffix", [".keras", ".npz", ".pth", ".h5", ".safetensors"])
def test_cut_short_or_bits_flipped(tmp_path: Path, suffix: str) -> None:
    """Never anything but our own error, or the tensors."""
    path = tmp_path / f"w{suffix}"
    h5 = legacy(tmp_path / "base.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    if suffix == ".keras":
        archive(path, numbered(tmp_path / "n.h5", GROUPS, NAMES))
    elif suffix == ".npz":
        np.savez(path, **{"conv1/kernel": KERNEL})
    elif suffix == ".pth":
        torch.save({"a": torch.ones(50)}, path)
    elif suffix == ".h5":
        path.write_bytes(h5.read_bytes())
    else:
        save_file({"a": torch.ones(50)}, path)
    whole = path.read_bytes()
    for k in range(60):
        damaged = bytearray(whole[: len(whole) * k // 60] if k % 2 else whole)
        if damaged and not k % 2:
            damaged[int(RNG.integers(len(damaged)))] ^= 1 << (k % 8)
        path.write_bytes(damaged)
        with suppress(RetinueError):
            assert files.read(path).tensors


def test_older_pickles_cut_short_or_bits_flipped(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[int(draws.integers(2, len(damaged)))] = int(draws.integers(256))
        path.write_bytes(damaged)
        with suppress(RetinueError):
            assert files.read(path).tensors


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda ones: ones.to("meta"), "has a shape and no values"),
        (lambda ones: ones.to_sparse(), "is sparse"),
        (lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.quint8), "is quantised"),
        (lambda ones: ones.to(torch.complex64), "is complex"),
    ],
)
def test_tensors_that_no_network_takes(
    tmp_path: Path, make: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"fine": torch.ones(2), "odd": make(torch.ones(3))}, path)
    with pytest.raises(RetinueError, match=rf"the tensor odd {reason}, .*w\.pth, save it"):
        files.read(path)


def test_wrappers_that_hold_themselves(tmp_path: Path) -> None:
    wrapper: dict[str, Any] = {}
    wrapper["model"] = wrapper
    torch.save(wrapper, tmp_path / "w.pth")
    with pytest.raises(RetinueError, match="no weights in the file"):
        files.read(tmp_path / "w.pth")


def test_texts_among_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(2))
    with zipfile.ZipFile(tmp_path / "w.npz", "a") as archive:
        archive.writestr("notes.txt", "none")
    with pytest.raises(RetinueError, match=r"damaged weights.*w\.npz"):
        files.read(tmp_path / "w.npz")


def test_encrypted_archives_are_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", numbered(tmp_path / "w.h5", GROUPS, NAMES))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of each entry
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(RetinueError, match=r"encrypted.*m\.keras"):
        files.read(path)
    path.rename(tmp_path / "m.pth")
    with pytest.raises(RetinueError, match=r"encrypted.*m\.pth"):
        files.read(tmp_path / "m.pth")


def test_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    np.savez(tmp_path / "b.npz")
    for name in ("a.pth", "b.npz"):
        with pytest.raises(RetinueError, match="no weights in the file"):
            files.read(tmp_path / name)


def test_nothing_is_executed(tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(b"")
    np.savez(tmp_path / "w.npz", a=np.array([print], dtype=object))
    with pytest.raises(RetinueError, match=r"w\.npz|Python objects"):
        files.read(tmp_path / "w.npz")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(RetinueError, match="could execute code"):
        files.read(tmp_path / "w.pth")


def test_other_kinds(tmp_path: Path) -> None:
    for name in ("w.onnx", "model.safetensors.index.json", "w"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"not read from \.onnx.*give one of \.safetensors"):
        files.read(tmp_path / "w.onnx")
    with pytest.raises(UsageError, match="give the folder"):
        files.read(tmp_path / "model.safetensors.index.json")
    with pytest.raises(UsageError, match=r"no such file.*did you mean .*w\.onnx"):
        files.read(tmp_path / "w.onx")


# --- NumPy's archives


def test_google_names_stay(tmp_path: Path) -> None:
    arrays = {
        "cls": BETA.reshape(1, 1, 8),
        "Transformer/encoderblock_0/LayerNorm_0/scale": GAMMA,
        "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel": KERNEL[0, 0],
        "conv_root/kernel": KERNEL,
    }
    np.savez(tmp_path / "w.npz", **arrays)
    same(tmp_path / "w.npz", arrays)


def test_hash_is_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    assert files.sha256(tmp_path / "a", tmp_path / "b") == known
