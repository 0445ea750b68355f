"""Weights that Keras wrote, without Keras: HDF5 files, `.keras` archives, TensorFlow.js folders.

All of them become one kind of state, with the keys `LAYER/VARIABLE` and arrays as Keras has them.
VARIABLE is one of kernel, bias, depthwise_kernel, pointwise_kernel, gamma, beta, moving_mean and
moving_variance, whatever the file calls it; a variable of a layer of another class keeps its name.
Layers without names of their own (`conv2d_7`), which Keras numbers through the whole process, are
numbered from 0.

Nothing of a file's configuration is built or executed; only names are read from it. Data must lie
in the file itself: links to other files are refused.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.documents import parse_json
from retinue.errors import RetinueError
from retinue.text import first_line
from retinue.weights.guard import MOST_JSON, check_archive, check_size, inside, load_json

Array = npt.NDArray[Any]

VARIABLES = {
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "GroupNormalization": ("gamma", "beta"),
    "Normalization": ("mean", "variance", "count"),
}
"""The variables of a layer in the order in which Keras numbers them."""

_OLD_NAMES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean",
              "running_std": "moving_variance"}  # fmt: skip
"""What Keras 1 called them; its running_std does hold a variance."""

_MISSHAPEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What comes of a description that is not as it should be."""

_DAMAGED = (*_MISSHAPEN, zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError,
            RecursionError)  # fmt: skip
"""What a damaged archive makes of reading it."""

_MOST_DEEP = 32
"""Groups within groups; nothing of Keras' is nearly as deep."""


class _Layer(NamedTuple):
    """What a file's configuration says of a layer."""

    kind: str
    config: Mapping[str, Any]

    def variables(self) -> tuple[str, ...]:
        """The names of its variables in order, as far as its class is known."""
        absent = {"gamma"} if self.config.get("scale") is False else set()
        absent |= {"beta"} if self.config.get("center") is False else set()
        return tuple(name for name in VARIABLES.get(self.kind, ()) if name not in absent)


def read_h5(path: Path) -> dict[str, Tensor]:
    """The state in an HDF5 file of any of Keras' three kinds: Keras Applications' weights, a whole
    model, or Keras 3's `.weights.h5`.

    Raises:
        RetinueError: damaged, not from Keras, without layer names, or reaching outside itself.
    """
    return renumbered(_read_h5(path, str(path), path.stat().st_size, {}))


def read_archive(path: Path) -> dict[str, Tensor]:
    """The state in a `.keras` file, which is a zip of a configuration and an HDF5 file.

    Raises:
        RetinueError: damaged, encrypted, not such an archive, or implausibly large unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            if archive.getinfo("config.json").file_size > MOST_JSON:
                raise RetinueError("its config.json is implausibly large", where=str(path))
            layers = _layers(parse_json(archive.read("config.json"), foreign=True))
            data = archive.read("model.weights.h5")
    except _DAMAGED as error:
        raise RetinueError(f"not a .keras file, or a damaged one ({error})", where=str(path)) from (
            error
        )
    return renumbered(_read_h5(io.BytesIO(data), str(path), len(data), layers))


def output(path: Path) -> str:
    """What the configuration of a model that has been read says of its last layer, for people;
    empty where there is none, or nothing to say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = parse_json(archive.read("config.json"), foreign=True)
        else:
            with h5py.File(path, "r") as root:
                config = parse_json(root.attrs["model_config"], foreign=True)
        name, layer = list(_layers(config).items())[-1]
        activation = layer.config.get("activation")
    except _DAMAGED:  # of which the reader has its own words
        return ""
    if activation == "sigmoid":
        return (
            f"{name!r} ends in a sigmoid: it was trained for classes that do not exclude each other"
        )
    return f"{name!r} ends in a softmax" if activation == "softmax" else ""


def read_tfjs(folder: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """The state in a TensorFlow.js layers model, and the shards that its `model.json` names.

    Raises:
        RetinueError: a shard is missing, too short or outside the folder, or the description is
            damaged.
    """
    where = folder / "model.json"
    arrays: dict[str, Array] = {}
    shards: list[Path] = []
    try:
        for group in load_json(where)["weightsManifest"]:
            paths = [inside(folder, name, where) for name in group["paths"]]
            shards += paths
            if len(set(shards)) < len(shards):
                raise ValueError("a shard is named twice")
            data = b"".join(path.read_bytes() for path in paths)
            offset = 0
            for item in group["weights"]:
                arrays[str(item["name"])], offset = _tfjs_array(item, data, offset)
            if offset != len(data):
                raise ValueError(f"{paths[0].name} has {len(data)} bytes, not {offset}")
    except (*_MISSHAPEN, OSError) as error:
        raise RetinueError(f"damaged weights: {error!r}", where=str(where)) from error
    return from_arrays(arrays, str(where)), tuple(shards)


def _tfjs_array(item: Mapping[str, Any], data: bytes, offset: int) -> tuple[Array, int]:
    """An array and where the next begins; quantised ones are scaled back."""
    quantised = item.get("quantization") or {}
    dtype = np.dtype(str(quantised.get("dtype", item["dtype"]))).newbyteorder("<")
    shape = [int(n) for n in item["shape"]]
    if dtype.kind not in "fiub" or any(n < 0 for n in shape):
        raise ValueError(f"{item['name']} is {dtype} {shape}")
    array = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
    if "scale" in quantised:
        array = array.astype(np.float32) * float(quantised["scale"]) + float(quantised["min"])
    return array, offset + math.prod(shape) * dtype.itemsize


def from_arrays(arrays: Mapping[str, Array], where: str) -> dict[str, Tensor]:
    """The state of arrays by any name that Keras gives: `conv1/kernel`, `conv1/conv1/kernel:0` …

    Names of other kinds stay as they are.
    """
    state: dict[str, Tensor] = {}
    for name, array in arrays.items():
        owner, slash, variable = re.sub(r":\d+$", "", name).rpartition("/")
        first, _, second = owner.partition("/")
        if first == second:
            owner = first
        _add(state, owner + slash + _named(variable, array.shape), array, where)
    return renumbered(state)


def renumbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the layers that have no names of their own numbered from 0 within their class
    (`conv2d`, `conv2d_1` …), wherever their numbers begin in the file."""
    numbers: dict[str, dict[str, int]] = {}
    for layer in {key.partition("/")[0] for key in state}:
        if unnamed := _UNNAMED.fullmatch(layer):
            numbers.setdefault(unnamed[1], {})[layer] = int(unnamed[2] or 0)
    renamed = {
        layer: f"{kind}_{i}" if i else kind
        for kind, of in numbers.items()
        for i, layer in enumerate(sorted(of, key=of.__getitem__))
    }
    found = {}
    for key, tensor in state.items():
        layer, slash, variable = key.partition("/")
        found[renamed.get(layer, layer) + slash + variable] = tensor
    return found


def _read_h5(
    file: Path | io.BytesIO, where: str, size: int, layers: Mapping[str, _Layer]
) -> dict[str, Tensor]:
    try:
        with h5py.File(file, "r") as root:
            datasets = dict(_datasets(root))
            check_size(sum(d.nbytes for d in datasets.values()), size, where)
            top = root.get("model_weights", root)
            if "layer_names" in top.attrs or "layer_names0" in top.attrs:
                if not layers and "model_config" in root.attrs:
                    layers = _layers(parse_json(root.attrs["model_config"], foreign=True))
                return _legacy(top, datasets, layers, where)
            return _numbered(root, datasets, layers, where)
    except (*_MISSHAPEN, OSError, RuntimeError) as error:
        reason = first_line(error, type(error).__name__)
        raise RetinueError(f"not a file of Keras', or a damaged one ({reason})", where=where) from (
            error
        )


def _datasets(root: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """(path, data set) of everything in the file, each once, data elsewhere refused."""
    waiting: list[tuple[str, h5py.Group, int]] = [("", root, 0)]
    seen: set[int] = set()
    while waiting:
        path, group, depth = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or depth > _MOST_DEEP:
            raise ValueError(f"groups that hold themselves, at {path!r}")
        seen.add(address)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{path}/{name} links elsewhere")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((f"{path}/{name}", item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ValueError(f"{path}/{name} has its data elsewhere")
                yield f"{path}/{name}", item


def _legacy(
    top: h5py.Group,
    datasets: Mapping[str, h5py.Dataset],
    layers: Mapping[str, _Layer],
    where: str,
) -> dict[str, Tensor]:
    """Groups by layer, each listing its weights: what Keras 1 and 2 wrote, and 3 writes as .h5."""
    state: dict[str, Tensor] = {}
    for layer in _texts(top.attrs, "layer_names"):
        group = top[layer]
        names = _texts(group.attrs, "weight_names")
        owners = {name.rpartition("/")[0] for name in names}
        for name in names:
            data = datasets[f"{group.name}/{name}".replace("//", "/")]
            # A nested model is one layer with the weights of many, which say whose they are.
            owner = layer if len(owners) == 1 else name.split("/")[-2]
            variable = re.sub(r":\d+$", "", name).rpartition("/")[2]
            if variable.startswith(f"{owner}_"):  # Keras 1: block1_conv1_W_1:0
                variable = re.sub(r"_\d+$", "", variable.removeprefix(f"{owner}_"))
            variable = _named(variable, data.shape, layers.get(owner))
            _add(state, f"{owner}/{variable}", data[()], where)
    return state


def _numbered(
    root: h5py.File,
    datasets: Mapping[str, h5py.Dataset],
    layers: Mapping[str, _Layer],
    where: str,
) -> dict[str, Tensor]:
    """Keras 3: groups by class and position, variables by number; a group may tell its layer's
    name, and the configuration its class."""
    places = _places(layers)
    state: dict[str, Tensor] = {}
    for path, data in datasets.items():
        group, _, number = path.rpartition("/")
        place, _, last = group.rpartition("/")
        steps = place.split("/")[1:]
        if not steps or last != "vars" or not number.isdecimal():
            raise ValueError(f"unexpected {path!r}")
        if steps[0] not in ("layers", "_layer_checkpoint_dependencies"):
            continue  # the optimiser's and metrics' own
        if "seed_generator" in steps:
            continue
        name = root[group].attrs.get("name") or places.get(tuple(steps[1::2]))
        if name is None:
            raise RetinueError(
                "the file numbers its layers and does not say their names",
                where=where,
                mend="save the whole model instead: model.save('model.keras') or ('model.h5')",
            )
        kind = layers.get(str(name)) or _Layer(_class_of(steps[-1]), {})
        variables = kind.variables()
        count = len(root[group])
        # A class that may lack some of its variables: without a configuration nobody knows which.
        known = count == len(variables) or "bias" in variables
        variable = variables[int(number)] if known and int(number) < len(variables) else number
        _add(state, f"{name}/{variable}", data[()], where)
    return state


def _layers(config: Mapping[str, Any]) -> dict[str, _Layer]:
    """Every layer of a model's configuration by name, those of nested models, too, in order.
    Until 2.2.3 Keras wrote a Sequential's as a mere list of layers."""
    found: dict[str, _Layer] = {}

    def walk(layers: Iterable[Mapping[str, Any]], depth: int) -> None:
        for layer in layers:
            inner = layer.get("config") or {}
            if isinstance(inner, list):
                inner = {"layers": inner}
            found[str(inner.get("name", layer.get("name")))] = _Layer(
                str(layer["class_name"]), inner
            )
            if depth < _MOST_DEEP and isinstance(inner.get("layers"), list):
                walk(inner["layers"], depth + 1)

    whole = config["config"]
    walk(whole if isinstance(whole, list) else whole.get("layers", ()), 0)
    return found


def _places(layers: Mapping[str, _Layer]) -> dict[tuple[str, ...], str]:
    """Where Keras 3 puts each layer: its class in snake case, numbered from the second on."""
    nested = {
        str(inner["config"].get("name"))
        for layer in layers.values()
        for inner in layer.config.get("layers") or ()
    }

    def walk(
        names: Iterable[str], prefix: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], str]]:
        count: Counter[str] = Counter()
        for name in names:
            kind = _snake(layers[name].kind)
            place = (*prefix, f"{kind}_{count[kind]}" if count[kind] else kind)
            count[kind] += 1
            yield place, name
            inner = layers[name].config.get("layers") or ()
            if len(prefix) < _MOST_DEEP:
                yield from walk((str(i["config"].get("name")) for i in inner), place)

    return dict(walk((name for name in layers if name not in nested), ()))


def _snake(kind: str) -> str:
    """BatchNormalization → batch_normalization, Conv2D → conv2d: as Keras makes it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


_UNNAMED = re.compile(f"({'|'.join(map(_snake, VARIABLES))})(?:_(\\d+))?")
"""The names that Keras gives layers that have none."""


def _class_of(group: str) -> str:
    """The class whose layers are in groups like `depthwise_conv2d_7`; empty if it is unknown."""
    for kind in VARIABLES:
        if re.fullmatch(re.escape(_snake(kind)) + r"(_\d+)?", group):
            return kind
    return ""


def _named(variable: str, shape: tuple[int, ...], layer: _Layer | None = None) -> str:
    """The name that a variable goes by here. Keras 3 calls a depthwise convolution's kernel like
    any other's; it has as many input channels as that layer, and 1 in place of the outputs."""
    variable = _OLD_NAMES.get(variable, variable)
    if variable == "kernel" and layer is not None and layer.kind in VARIABLES:
        return VARIABLES[layer.kind][0]
    if variable == "kernel" and len(shape) == 4 and shape[3] == 1 and shape[0] > 1 and shape[2] > 1:
        return "depthwise_kernel"
    return variable


def _texts(attributes: h5py.AttributeManager, name: str) -> list[str]:
    """A list of texts, which Keras cuts into NAME0, NAME1 … where it is too long for one."""
    names = [name] if name in attributes else []
    while f"{name}{len(names)}" in attributes and name not in attributes:
        names.append(f"{name}{len(names)}")
    found = [text for part in names for text in np.asarray(attributes[part]).ravel().tolist()]
    return [text.decode("utf-8") if isinstance(text, bytes) else str(text) for text in found]


def _add(state: dict[str, Tensor], key: str, array: Array, where: str) -> None:
    if key in state:
        raise RetinueError(f"two layers of the name {key.rpartition('/')[0]!r}", where=where)
    if array.dtype.kind not in "fiub":
        raise RetinueError(f"{key} holds no numbers ({array.dtype})", where=where)
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    state[key] = torch.from_numpy(native)
