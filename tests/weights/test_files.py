"""Files of weights of every kind, and files that are not what they seem."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retinue.errors import RetinueError, UsageError
from retinue.sample import Preprocessing
from retinue.weights import files

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 4, 8)).astype(np.float32)
DEPTHWISE = RNG.normal(size=(3, 3, 4, 1)).astype(np.float32)
GAMMA, BETA, MEAN, VARIANCE = RNG.normal(size=(4, 8)).astype(np.float32)


def same(path: Path, expected: dict[str, np.ndarray]) -> None:
    tensors = files.read(path).tensors
    assert set(tensors) == set(expected)
    for key, array in expected.items():
        assert np.array_equal(tensors[key].numpy(), array), key


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


# --- HDF5, as Keras 1, 2 and 3 write it


def legacy(path: Path, layers: dict[str, dict[str, np.ndarray]], *, group: str = "") -> Path:
    """A file with groups by layer; the keys of `layers` are layers, then weight names."""
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        top.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            made = top.create_group(layer)
            made.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                made.create_dataset(name, data=array)
    return path


NORM = {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VARIANCE}
EXPECTED = {
    "conv1/kernel": KERNEL,
    "dw/depthwise_kernel": DEPTHWISE,
    **{f"conv1_bn/{name}": array for name, array in NORM.items()},
}


@pytest.mark.parametrize("group", ["", "model_weights"])
def test_keras_2(tmp_path: Path, group: str) -> None:
    layers = {
        "input_1": {},
        "conv1": {"conv1/kernel:0": KERNEL},
        "conv1_bn": {f"conv1_bn_1/{name}:0": array for name, array in NORM.items()},
        "dw": {"dw/depthwise_kernel:0": DEPTHWISE},
    }
    same(legacy(tmp_path / "w.h5", layers, group=group), EXPECTED)


def test_a_sequential_of_early_keras_2(tmp_path: Path) -> None:
    path = legacy(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    layer = {"class_name": "Conv2D", "config": {"name": "conv1"}}
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [layer]})
    same(path, {"conv1/kernel": KERNEL})


def test_keras_1(tmp_path: Path) -> None:
    layers = {
        "block1_conv1": {"block1_conv1_W_1:0": KERNEL, "block1_conv1_b_1:0": BETA},
        "bn2a": {"bn2a_gamma_1:0": GAMMA, "bn2a_running_std_1:0": VARIANCE},
    }
    expected = {
        "block1_conv1/kernel": KERNEL, "block1_conv1/bias": BETA,
        "bn2a/gamma": GAMMA, "bn2a/moving_variance": VARIANCE,
    }  # fmt: skip
    same(legacy(tmp_path / "w.h5", layers), expected)


def test_a_nested_model_gives_its_layers(tmp_path: Path) -> None:
    layers = {
        "mobilenet": {"conv1/kernel:0": KERNEL, "mobilenet/dw/kernel:0": DEPTHWISE},
        "top": {"top/bias:0": BETA},
    }
    expected = {"conv1/kernel": KERNEL, "dw/depthwise_kernel": DEPTHWISE, "top/bias": BETA}
    same(legacy(tmp_path / "w.h5", layers), expected)


def test_layers_without_a_name_are_numbered_from_0(tmp_path: Path) -> None:
    """As text, conv2d_10 is before conv2d_9; the number decides, not the place in the file."""
    names = ("conv2d_10", "conv2d_9", "my_conv2d_4", "conv2d_x", "dense_3")
    layers = {name: {f"{name}/bias:0": np.full(2, k)} for k, name in enumerate(names)}
    read = files.read(legacy(tmp_path / "w.h5", layers)).tensors
    assert {key: int(tensor[0]) for key, tensor in read.items()} == {
        "conv2d/bias": 1,
        "conv2d_1/bias": 0,
        "my_conv2d_4/bias": 2,
        "conv2d_x/bias": 3,
        "dense/bias": 4,
    }


def test_attributes_in_pieces(tmp_path: Path) -> None:
    """Keras cuts lists of names that HDF5 has no room for."""
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}, "b": {"b/bias:0": GAMMA}})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
    same(path, {"a/bias": BETA, "b/bias": GAMMA})


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    layers = {
        "one": {"conv/bias:0": BETA, "other/bias:0": BETA},
        "two": {"conv/bias:0": BETA, "more/bias:0": BETA},
    }
    with pytest.raises(RetinueError, match="two layers of the name 'conv'"):
        files.read(legacy(tmp_path / "w.h5", layers))


def numbered(path: Path, groups: dict[str, list[np.ndarray]], names: dict[str, str]) -> Path:
    with h5py.File(path, "w") as file:
        for group, arrays in groups.items():
            variables = file.create_group(f"{group}/vars")
            if group in names:
                variables.attrs["name"] = names[group]
            for k, array in enumerate(arrays):
                variables.create_dataset(str(k), data=array)
    return path


GROUPS = {
    "layers/conv2d": [KERNEL],
    "layers/batch_normalization": [GAMMA, BETA, MEAN, VARIANCE],
    "layers/functional/layers/depthwise_conv2d": [DEPTHWISE],
    "layers/dropout/seed_generator": [np.arange(2)],
    "optimizer": [BETA],
}
NAMES = {
    "layers/conv2d": "conv1",
    "layers/batch_normalization": "conv1_bn",
    "layers/functional/layers/depthwise_conv2d": "dw",
}


def test_keras_3_weights(tmp_path: Path) -> None:
    same(numbered(tmp_path / "m.weights.h5", GROUPS, NAMES), EXPECTED)


def test_keras_3_weights_without_names(tmp_path: Path) -> None:
    path = numbered(tmp_path / "m.weights.h5", GROUPS, {})
    with pytest.raises(RetinueError, match=r"does not say their names.*model\.save"):
        files.read(path)


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name, **config}}


CONFIG = {
    "class_name": "Functional",
    "config": {
        "name": "outer",
        "layers": [
            layer("InputLayer", "input"),
            layer("Conv2D", "conv1"),
            layer("BatchNormalization", "conv1_bn"),
            layer("Functional", "inner", layers=[layer("DepthwiseConv2D", "dw")]),
            layer("Conv2D", "second"),
        ],
    },
}


def archive(path: Path, weights: Path, config: Any = CONFIG) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        made.write(weights, "model.weights.h5")
    return path


@pytest.mark.parametrize("names", [NAMES, {}], ids=["named", "by position"])
def test_keras_archive(tmp_path: Path, names: dict[str, str]) -> None:
    """Earlier releases of Keras 3 leave the names to the configuration."""
    groups = {**GROUPS, "layers/conv2d_1": [KERNEL, BETA]}
    names = {**names, "layers/conv2d_1": "second"} if names else {}
    weights = numbered(tmp_path / "w.h5", groups, names)
    expected = {**EXPECTED, "second/kernel": KERNEL, "second/bias": BETA}
    same(archive(tmp_path / "m.keras", weights), expected)


def test_the_configuration_says_which_variables_a_norm_lacks(tmp_path: Path) -> None:
    weights = numbered(
        tmp_path / "w.h5", {"layers/batch_normalization": [BETA, MEAN, VARIANCE]}, {}
    )
    config = {"config": {"layers": [layer("BatchNormalization", "bn", scale=False)]}}
    expected = {"bn/beta": BETA, "bn/moving_mean": MEAN, "bn/moving_variance": VARIANCE}
    same(archive(tmp_path / "m.keras", weights, config), expected)


# --- HDF5 and archives that are damaged, or reach outside


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    secret = legacy(tmp_path / "secret.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}})
    with h5py.File(path, "a") as file:
        file["a/a/kernel:0"] = h5py.ExternalLink(secret.name, "/conv1/conv1/kernel:0")
        file["a"].attrs["weight_names"] = [b"a/bias:0", b"a/kernel:0"]
    with pytest.raises(RetinueError, match="links elsewhere"):
        files.read(path)


def test_data_outside_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 400)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/bias:0"]
        raw = [(str(tmp_path / "raw"), 0, 400)]
        file["a"].create_dataset("a/bias:0", (100,), "f4", external=raw)
    with pytest.raises(RetinueError, match="data elsewhere"):
        files.read(path)


def test_a_group_in_itself_ends(tmp_path: Path) -> None:
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}})
    with h5py.File(path, "a") as file:
        file["a/again"] = file["a"]
    with pytest.raises(RetinueError, match="hold themselves"):
        files.read(path)


def test_implausible_sizes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/bias:0"]
        file["a"].create_dataset("a/bias:0", (10**12,), "f4", chunks=(1024,))
    with pytest.raises(RetinueError, match=r"implausible.*unpacks to 4,000,000,000,000"):
        files.read(path)
    bomb = tmp_path / "m.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("config.json", json.dumps(CONFIG))
        made.writestr("model.weights.h5", b"\0" * 2**26)
    with pytest.raises(RetinueError, match="implausible"):
        files.read(bomb)
    arrays = tmp_path / "w.npz"
    np.savez_compressed(arrays, a=np.zeros(2**24))
    with pytest.raises(RetinueError, match="implausible"):
        files.read(arrays)


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


@pytest.mark.parametrize("config", ["[]", "{}", '{"config": {"layers": [1]}}'])
def test_misshapen_configuration(tmp_path: Path, config: str) -> None:
    weights = numbered(tmp_path / "w.h5", GROUPS, NAMES)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as packed:
        packed.writestr("config.json", config)
        packed.write(weights, "model.weights.h5")
    with pytest.raises(RetinueError, match=r"damaged one.*m\.keras"):
        files.read(tmp_path / "m.keras")


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


def test_keras_names_are_made_uniform(tmp_path: Path) -> None:
    arrays = {
        "conv1/conv1/kernel:0": KERNEL,
        "dw/kernel": DEPTHWISE,
        **{f"conv1_bn/{name}:0": array for name, array in NORM.items()},
    }
    np.savez(tmp_path / "w.npz", **arrays)
    same(tmp_path / "w.npz", EXPECTED)


def test_real_keras_weights(shared: Any) -> None:
    folder = shared("weights/mobilenet_v1_0.25_224")
    arrays = files.read(folder / "mobilenet_v1_0.25_224_imagenet_keras.npz")
    browser = files.read(folder / "tfjs")
    assert set(arrays.tensors) == set(browser.tensors)
    assert len(arrays.tensors) == 137
    for key, tensor in arrays.tensors.items():
        assert torch.equal(tensor, browser.tensors[key])
    assert len(browser.paths) == 55


def test_hash_is_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    assert files.sha256(tmp_path / "a", tmp_path / "b") == known
