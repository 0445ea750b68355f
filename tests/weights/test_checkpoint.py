"""TensorFlow's checkpoints, written here by the descriptions of LevelDB's table and of TensorFlow's
messages; what TensorFlow itself has written is read in `test_write_ups.py`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch

from retinue.errors import RetinueError, UsageError
from retinue.weights import checkpoint, files
from retinue.weights.resolution import names_a_file

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "float16": 19}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def crc(content: bytes) -> bytes:
    plain = google_crc32c.value(content)
    return struct.pack("<I", (((plain >> 15) | (plain << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def block(entries: Mapping[bytes, bytes], kind: int = 0) -> bytes:
    """Keys share their beginnings with the one before, but for each third, as a table restarts."""
    body, restarts, before = b"", [], b""
    for k, (key, value) in enumerate(entries.items()):
        shared = 0
        if k % 3 == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value))
        body, before = body + key[shared:] + value, key
    body += b"".join(struct.pack("<I", at) for at in restarts) + struct.pack("<I", len(restarts))
    return body + bytes([kind]) + crc(body + bytes([kind]))


def table(entries: Mapping[bytes, bytes], *, kind: int = 0, size: int = 4) -> bytes:
    """In blocks of `size` entries."""
    items = sorted(entries.items())
    out, index = b"", {}
    for at in range(0, len(items), size):
        made = block(dict(items[at : at + size]), kind)
        index[items[min(at + size, len(items)) - 1][0]] = varint(len(out)) + varint(len(made) - 5)
        out += made
    handles = b""
    for part in (block({}), block(index)):
        handles += varint(len(out)) + varint(len(part) - 5)
        out += part
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def entry(array: np.ndarray, offset: int, **other: Any) -> bytes:
    """A `BundleEntryProto`."""
    axes = [b"\x08" + varint(side) for side in other.get("shape", array.shape)]
    shape = b"".join(b"\x12" + varint(len(axis)) + axis for axis in axes)
    content = other.get("content", array.tobytes())
    out = b"\x08" + varint(other.get("kind", NUMBERS[str(array.dtype)]))
    out += b"\x12" + varint(len(shape)) + shape
    out += b"\x18" + varint(other.get("shard", 0)) + b"\x20" + varint(offset)
    out += b"\x28" + varint(other.get("size", len(content))) + b"\x35" + crc(content)
    return out + (b"\x3a\x00" if other.get("sliced") else b"")


HEADER = b"\x08\x01\x1a\x02\x08\x01"
"""A `BundleHeaderProto`: one shard, little-endian, version 1."""


def written(
    path: Path, arrays: Mapping[str, np.ndarray], *, kind: int = 0, header: bytes = HEADER,
    **other: Any,
) -> Path:  # fmt: skip
    data, entries = b"", {b"": header}
    for name, array in arrays.items():
        entries[name.encode()] = entry(array, other.pop("offset", len(data)), **other)
        data += array.tobytes()
    path.with_name(path.name + ".index").write_bytes(table(entries, kind=kind))
    path.with_name(path.name + ".data-00000-of-00001").write_bytes(data)
    return path


RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    arrays = {
        f"scope/layer_{k}/w": RNG.normal(size=(k + 1, 2)).astype(np.float32) for k in range(9)
    }
    arrays |= {name: np.arange(4).astype(name) for name in NUMBERS}
    arrays["scope/scalar"] = np.float32(3.5).reshape(())
    read = files.read(written(tmp_path / "model.ckpt", arrays)).tensors
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key].numpy(), array)
        assert str(read[key].dtype) == f"torch.{array.dtype}"


def test_bfloat16(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)  # 1 and −2
    path = written(tmp_path / "model.ckpt", {"w": bits.astype(np.float16)}, kind=0,
                   content=bits.tobytes())  # fmt: skip
    index = {b"": HEADER, b"w": entry(bits.view(np.float16), 0, kind=14)}
    Path(f"{path}.index").write_bytes(table(index))
    Path(f"{path}.data-00000-of-00001").write_bytes(bits.tobytes())
    assert files.read(path).tensors["w"].tolist() == [1.0, -2.0]
    assert files.read(path).tensors["w"].dtype == torch.bfloat16


def test_what_is_no_weight_is_passed_over(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    arrays = {f"{name}{VALUE}": one for name in (
        "conv1/kernel", "save_counter", "optimizer/iter", "optimizer/learning_rate",
        "conv1/kernel/.OPTIMIZER_SLOT/optimizer/m", "keras_api/metrics/0/total")}  # fmt: skip
    read = files.read(written(tmp_path / "model.ckpt", arrays)).tensors
    assert set(read) == {"conv1/kernel", "keras_api/metrics/0/total"}


def test_layers_by_numbers_get_keras_names(tmp_path: Path) -> None:
    """As text, 10 is before 9; a model within the model counts as its layers."""
    dense, norm = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    arrays = {
        "layer_with_weights-0/layer_with_weights-9/kernel": KERNEL,
        "layer_with_weights-0/layer_with_weights-10/kernel": KERNEL + 1,
        "layer_with_weights-0/layer_with_weights-11/depthwise_kernel": KERNEL,
        "layer_with_weights-0/layer_with_weights-12/moving_mean": norm,
        "layer_with_weights-0/layer_with_weights-12/gamma": norm,
        "layer_with_weights-2/kernel": dense + 1,
        "layer_with_weights-1/kernel": dense,
        "layer_with_weights-1/bias": norm,
    }
    given = {f"{key}{VALUE}": array for key, array in arrays.items()}
    read = files.read(written(tmp_path / "model.ckpt", given)).tensors
    assert set(read) == {
        "conv2d/kernel", "conv2d_1/kernel", "depthwise_conv2d/depthwise_kernel",
        "batch_normalization/moving_mean", "batch_normalization/gamma",
        "dense/kernel", "dense/bias", "dense_1/kernel",
    }  # fmt: skip
    assert torch.equal(read["conv2d_1/kernel"], read["conv2d/kernel"] + 1)
    assert read["dense_1/kernel"].mean() == 2


def test_a_folder_names_its_newest(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt-1", {"w": KERNEL})
    written(tmp_path / "a.ckpt-2", {"w": KERNEL + 1})
    told = 'model_checkpoint_path: "/home/them/runs/a.ckpt-2"\nall_model_checkpoint_paths: "x"\n'
    (tmp_path / "checkpoint").write_text(told)
    assert torch.equal(files.read(tmp_path).tensors["w"], torch.from_numpy(KERNEL + 1))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "../../elsewhere"\n')
    with pytest.raises(UsageError, match="not a folder of weights"):
        files.read(tmp_path)


def test_a_file_of_the_name_itself_is_that(tmp_path: Path) -> None:
    """PyTorch Lightning's files are called .ckpt, too."""
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}}, tmp_path / "model.ckpt")
    written(tmp_path / "model.ckpt", {"w": KERNEL})
    assert list(files.read(tmp_path / "model.ckpt").tensors) == ["conv1.weight"]
    assert list(files.read(tmp_path / "model.ckpt.index").tensors) == ["w"]


def test_what_names_a_file() -> None:
    for name in ("m.ckpt", "m.ckpt.index", "m.data-00000-of-00001", "main_1_2.model", "./m"):
        assert names_a_file(name)
    assert not names_a_file("imagenet")


# -- what is refused ------------------------------------------------------------------------------


def test_a_data_file_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "m.ckpt", {"w": KERNEL}, header=b"\x08\x02")
    with pytest.raises(UsageError, match=r"missing.*m\.ckpt\.data-00000-of-00002"):
        files.read(path)
    with pytest.raises(UsageError, match="no such file of weights"):
        files.read(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"offset": 4}, "the data file ends before w does"),
        ({"offset": -4}, "damaged index"),
        ({"shape": (2, 2)}, r"w is \(2, 2\) in 288 bytes"),
        ({"shape": (-72, -1)}, "a tensor of shape"),
        ({"shape": (1,) * 17}, "a tensor of shape"),
        ({"size": 1 << 62}, "implausible"),
        ({"size": -1}, "damaged index"),
        ({"shard": 3}, "damaged index"),
        ({"sliced": True}, "saved in slices"),
        ({"content": b"x" * 288}, "the checksum of w is wrong"),
        ({"kind": 1}, "its blocks are packed"),
        ({"header": b"\x08\x01\x10\x01"}, "highest byte first"),
        ({"header": b""}, "how many data files"),
        ({"header": b"\x08\xff\xff\x7f"}, "how many data files"),
    ],
)
def test_what_cannot_be(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RetinueError, match=message):
        files.read(written(tmp_path / "m.ckpt", {"w": KERNEL}, **other))


def test_many_names_for_the_same_bytes(tmp_path: Path) -> None:
    """A small file must not fill the memory."""
    big = np.zeros(1 << 18, np.float32)
    path = written(tmp_path / "m.ckpt", {"w": big})
    entries = {b"": HEADER} | {b"w%05d" % k: entry(big, 0) for k in range(100)}
    Path(f"{path}.index").write_bytes(table(entries))
    with pytest.raises(RetinueError, match="implausible"):
        files.read(path)


def test_every_flipped_byte_of_the_index_is_seen(tmp_path: Path) -> None:
    """Or changes nothing, as in the padding of its end; never is a tensor another one."""
    path = written(tmp_path / "m.ckpt", {"conv/kernel": KERNEL, "conv/bias": KERNEL[0, 0, 0]})
    index = Path(f"{path}.index")
    whole, right = index.read_bytes(), files.read(path).tensors
    for at in range(len(whole)):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0x21]) + whole[at + 1 :])
        try:
            read = files.read(path).tensors
        except (RetinueError, UsageError):
            continue
        assert read.keys() == right.keys()
        assert all(torch.equal(read[key], right[key]) for key in right)


def test_every_cut_of_the_index_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "m.ckpt", {"conv/kernel": KERNEL})
    index = Path(f"{path}.index")
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(RetinueError, match="damaged index"):
            checkpoint.read(path)


def test_a_flipped_byte_of_the_data(tmp_path: Path) -> None:
    path = written(tmp_path / "m.ckpt", {"a": KERNEL, "b": KERNEL})
    data = Path(f"{path}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[300] ^= 1
    data.write_bytes(content)
    with pytest.raises(RetinueError, match=r"the checksum of b is wrong.*copy it again"):
        files.read(path)
