"""Tensors written for other libraries: what is refused, what stays whole, what is said.

tests/parity/test_export_parity.py loads the files with the libraries themselves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from retinue import api, modelfile
from retinue.cli.app import run
from retinue.data.decode import Encoded
from retinue.errors import RetinueError, UsageError
from retinue.exporting import preparing, state_dict
from retinue.exporting.elsewhere import LIBRARIES, TIMM, TORCHVISION, construction
from retinue.modelfile import ModelDescription
from retinue.models.registry import create_model, find, list_models
from retinue.models.transformer import resample_positions
from retinue.sample import Preprocessing

CLASSES = ["dahlia", "daisy, common", "猫"]


def write_model(path: Path, name: str = "mobilenet_v2_035", **arguments: Any) -> Path:
    """A model file with fresh weights, as a training would leave it."""
    network = create_model(name, num_classes=len(CLASSES), **arguments)
    description = ModelDescription(
        task="classification",
        classes=CLASSES,
        network=name,
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
    )
    modelfile.write(path, network.state_dict(), description)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A run folder with the model in it."""
    (tmp_path / "best.safetensors").write_bytes(model.read_bytes())
    return tmp_path


def test_beside_the_model_by_default(folder: Path) -> None:
    exported = api.export(folder, "timm")
    assert exported.path == folder / "best.timm.safetensors"
    assert exported.construction.code() == 'timm.create_model("mobilenetv2_035", num_classes=3)'
    state = load_file(exported.path)
    assert state["conv_stem.weight"].shape == (16, 3, 3, 3)
    assert state["classifier.weight"].shape == (3, 1280)
    with safe_open(exported.path, framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == CLASSES
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_every_kind_of_file_holds_the_same(folder: Path, suffix: str) -> None:
    exported = api.export(folder, "torchvision", out=folder / "sub" / f"w{suffix}")
    if suffix == ".safetensors":
        state: Mapping[str, Tensor] = load_file(exported.path)
    else:
        state = torch.load(exported.path, weights_only=True)
    _, own = modelfile.read(folder / "best.safetensors")
    assert torch.equal(state["features.0.0.weight"], own["stem.conv.weight"])
    assert len(state) == len(own)


def test_what_is_exported_can_be_taken_up_again(folder: Path) -> None:
    exported = api.export(folder, "timm", out=folder / "w.pth")
    assert "  classes       “dahlia”, “daisy, common” and “猫”" in exported.lines(), "told apart"
    network = create_model("mobilenet_v2_035", num_classes=3, weights=str(exported.path))
    _, own = modelfile.read(folder / "best.safetensors")
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, own[key]), key


def test_an_older_file_stays_without_force(folder: Path) -> None:
    older = folder / "best.timm.safetensors"
    older.write_text("mine")
    with pytest.raises(UsageError, match=r"there already.*out \(--out\).*force=True \(--force\)"):
        api.export(folder, "timm")
    assert older.read_text() == "mine"
    api.export(folder, "timm", force=True)
    assert load_file(older)


@pytest.mark.parametrize("given", [torch.nn.Linear(2, 3), None, b"best.safetensors"])
def test_what_is_no_path_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"from its file, not from a .*path of a model file"):
        api.export(given, "timm")


def test_the_model_itself_is_never_replaced(folder: Path) -> None:
    path = folder / "best.safetensors"
    before = path.read_bytes()
    (folder / "link.safetensors").symlink_to(path)
    for out in (path, folder / "link.safetensors", folder / "." / "best.safetensors"):
        with pytest.raises(UsageError, match="the model itself"):
            api.export(path, "timm", out=out, force=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("w.onnx", r"written as \.onnx.*\.safetensors, \.pth"),
        ("w", "nameless"),
        ("d.pth", "folder"),
    ],
)
def test_names_that_will_not_do(folder: Path, out: str, words: str) -> None:
    (folder / "d.pth").mkdir()
    with pytest.raises(UsageError, match=words):
        api.export(folder, "timm", out=folder / out)


def test_nothing_is_left_of_what_does_not_read_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = state_dict.untranslate

    def swapped(*given: Any) -> dict[str, Tensor]:
        state = real(*given)
        a, b = "blocks.2.1.bn1.weight", "blocks.2.1.bn1.bias"
        return {**state, a: state[b], b: state[a]}

    monkeypatch.setattr(state_dict, "untranslate", swapped)
    before = sorted(folder.iterdir())
    older = folder / "best.timm.safetensors"
    older.write_text("mine")
    with pytest.raises(RetinueError, match=r"does not read back the same: stages\.2\.1\."):
        api.export(folder, "timm", force=True)
    assert older.read_text() == "mine"
    older.unlink()
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_leaves_the_older_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_dict, "save_file", full)
    with pytest.raises(RetinueError, match=r"cannot be written: .*No space left"):
        api.export(folder, "timm")
    assert sorted(p.name for p in folder.iterdir()) == ["best.safetensors"]


def test_not_a_number_is_carried_over(tmp_path: Path) -> None:
    path = write_model(tmp_path / "best.safetensors")
    description, tensors = modelfile.read(path)
    tensors["head.fc.bias"][1] = float("nan")
    modelfile.write(path, tensors, description)
    state = load_file(api.export(path, "timm").path)
    assert torch.isnan(state["classifier.bias"]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("size", "grid", "said"),
    [
        ([320, 320], (10, 10), ", img_size=320"),
        ([96, 160], (3, 5), ", img_size=(96, 160)"),
    ],
)
def test_a_transformer_is_exported_for_the_size_it_is_used_at(
    tmp_path: Path, size: list[int], grid: tuple[int, int], said: str
) -> None:
    """Its positions are those that ours interpolates for such images, whatever its own are of."""
    network = built("vit_base_patch32", image_size=64)
    tensors = {key: torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}
    tensors["stem.position"] = torch.randn(tensors["stem.position"].shape)
    description = ModelDescription(
        task="classification",
        classes=list("abcde"),
        network="vit_base_patch32",
        arguments=dict(network.arguments),
        preprocessing={**network.preprocessing.as_dict(), "size": size},
    )
    modelfile.write(tmp_path / "best.safetensors", tensors, description)
    exported = api.export(tmp_path, "timm")
    with safe_open(exported.path, framework="pt") as file:
        position = file.get_tensor("pos_embed")
    assert torch.equal(position, resample_positions(tensors["stem.position"], *grid))
    assert list(exported.preprocessing.size) == size
    code = f'timm.create_model("vit_base_patch32_224", num_classes=5{said})'
    assert exported.construction.code() == code
    for path in tmp_path.iterdir():  # large, and pytest would keep them
        path.unlink()


def built(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return create_model(name, num_classes=5, **arguments)


NATIVE = (224, 224)


@pytest.mark.parametrize(
    ("library", "name", "arguments", "words"),
    [
        ("timm", "alexnet", {}, "timm has no network that is alexnet, .*--to torchvision. can"),
        ("torchvision", "xception", {}, "has no network that is xception$"),
        ("torchvision", "darknet53", {}, "darknet53, .*--to timm. can do it"),
        ("timm", "mobilenet_v1_025", {}, "has no network that is mobilenet_v1_025$"),
        ("torchvision", "resnet18", {"in_channels": 1},
         "its resnet18 has in_channels=3, this resnet18 1, .*--to timm. can do it"),
        ("torchvision", "mobilenet_v2", {"same_padding": True}, "same_padding=False.*--to timm"),
        ("timm", "mobilenet_v2", {"width": 0.6}, "width=1.0, this .* 0.6, .*--to torchvision"),
        ("timm", "xception", {}, "its legacy_xception has same_padding=False"),
        ("timm", "vit_base_patch32", {"representation_size": 768},
         "representation_size=None, this .* 768, .*--to torchvision. can do it"),
        ("torchvision", "efficientnet_b5", {}, "norm_eps=0.001, this .* 1e-05, .*--to timm"),
        ("timm", "resnet50", {"stride_on": "1x1"}, "stride_on='3x3'"),
    ],
)  # fmt: skip
def test_what_a_library_has_not_is_refused(
    library: str, name: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        construction(library, built(name, **arguments), NATIVE)


@pytest.mark.parametrize(
    ("library", "name", "arguments", "size", "words"),
    [
        ("timm", "vgg16", {}, (256, 256),
         r"images of 256×256: .* the map of 8×8, this one averages the map to 7×7, "
         r".*--to torchvision\) can do it$"),
        ("timm", "vgg11_bn", {"in_channels": 1}, (160, 288),
         r"the map of 5×9, .* 7×7, train it with an input\.size of at most 255$"),
        ("torchvision", "vit_base_patch32", {}, (96, 160),
         r"transformers take square images only, not 96×160, .*--to timm\) can do it$"),
        ("torchvision", "vit_base_patch32", {"representation_size": 768}, (96, 160),
         r"square images only, .* input\.size=160 say$"),
    ],
)  # fmt: skip
def test_sizes_that_a_library_does_otherwise_are_refused(
    library: str, name: str, arguments: dict[str, Any], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        construction(library, built(name, **arguments), size)


@pytest.mark.parametrize(
    ("library", "name", "arguments", "code"),
    [
        ("timm", "resnet50", {}, 'timm.create_model("resnet50", num_classes=5)'),
        ("torchvision", "resnet50", {}, "torchvision.models.resnet50(num_classes=5)"),
        ("timm", "mobilenet_v2", {"same_padding": True, "norm_eps": 1e-3, "in_channels": 1},
         'timm.create_model("mobilenetv2_100", num_classes=5, pad_type="same", bn_eps=0.001, '
         "in_chans=1)"),
        ("torchvision", "googlenet", {"auxiliary": True},
         "torchvision.models.googlenet(num_classes=5, init_weights=False)"),
        ("torchvision", "efficientnet_b5", {"norm_eps": 1e-3},
         "torchvision.models.efficientnet_b5(num_classes=5)"),
        ("torchvision", "vit_base_patch32", {"norm_eps": 1e-12, "representation_size": 768},
         "torchvision.models.vit_b_32(num_classes=5, representation_size=768, "
         "norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-12))"),
        ("timm", "darknet53", {"slope": 0.01}, 'timm.create_model("darknet53", num_classes=5)'),
        ("timm", "vit_base_patch16", {"representation_size": 0},
         'timm.create_model("vit_base_patch16_224", num_classes=5)'),
        ("torchvision", "vit_base_patch16", {"representation_size": 0},
         "torchvision.models.vit_b_16(num_classes=5)"),
    ],
)  # fmt: skip
def test_how_a_network_is_built_there(
    library: str, name: str, arguments: dict[str, Any], code: str
) -> None:
    assert construction(library, built(name, **arguments), NATIVE).code() == code


@pytest.mark.parametrize(
    ("library", "name", "arguments", "size", "code"),
    [
        ("timm", "vit_base_r50_s16", {}, (256, 192),
         'timm.create_model("vit_base_r50_s16_224", num_classes=5, img_size=(256, 192))'),
        ("timm", "vit_base_patch16", {"image_size": 384}, NATIVE,
         'timm.create_model("vit_base_patch16_224", num_classes=5)'),
        ("torchvision", "vit_base_patch16", {}, (384, 384),
         "torchvision.models.vit_b_16(num_classes=5, image_size=384)"),
        ("timm", "vgg11", {}, (96, 255), 'timm.create_model("vgg11", num_classes=5)'),
        ("torchvision", "vgg11", {}, (256, 320), "torchvision.models.vgg11(num_classes=5)"),
        ("timm", "resnet18", {}, (256, 320), 'timm.create_model("resnet18", num_classes=5)'),
    ],
)  # fmt: skip
def test_how_a_network_is_built_there_for_images_of_other_sizes(
    library: str, name: str, arguments: dict[str, Any], size: tuple[int, int], code: str
) -> None:
    assert construction(library, built(name, **arguments), size).code() == code


@pytest.mark.parametrize("table", [TIMM, TORCHVISION])
def test_the_tables_speak_of_networks_that_there_are(table: Any) -> None:
    for family, entry in table.items():
        for name in entry.names:
            assert find(name).family == family


def test_unknown_library() -> None:
    with pytest.raises(UsageError, match="did you mean 'timm'"):
        construction("tim", built("resnet18"), NATIVE)
    with pytest.raises(UsageError, match="unknown library None, there are timm and torchvision"):
        construction(None, built("resnet18"), NATIVE)  # type: ignore[arg-type]
    assert LIBRARIES == ("timm", "torchvision")
    assert list_models("resnet18")


# --- the command


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(folder), "--to", "torchvision"]) == 0
    out = capsys.readouterr().out
    assert "torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.35)" in out
    assert "best.torchvision.safetensors" in out
    assert "bilinear" in out
    assert "0.485, 0.456, 0.406" in out
    assert "daisy, common" in out
    assert out.endswith(api.export(folder, "torchvision", force=True).prepare() + "\n")
    assert "answers" not in out


def test_command_says_that_views_are_averaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description, tensors = modelfile.read(folder / "best.safetensors")
    averaging = description.model_copy(update={"tta": "flip"})
    modelfile.write(folder / "best.safetensors", tensors, averaging)
    assert run(["export", str(folder), "--to", "timm"]) == 0
    assert "retinue's are means over several, tta=flip" in capsys.readouterr().out


def test_what_the_logits_are_divided_by_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description, tensors = modelfile.read(folder / "best.safetensors")
    warm = description.model_copy(update={"task_state": {"temperature": 1.5}})
    modelfile.write(folder / "best.safetensors", tensors, warm)
    assert run(["export", str(folder), "--to", "timm"]) == 0
    out = capsys.readouterr().out
    assert "softmax of the logits divided by 1.5" in out
    assert out.endswith(
        '# (network.eval()(prepare(Image.open("photo.jpg"))[None]) / 1.5).softmax(1)\n'
    )
    exported = api.export(folder, "timm", force=True)
    assert exported.temperature == exported.as_dict()["temperature"] == 1.5
    with safe_open(exported.path, framework="pt") as file:
        assert file.metadata()["temperature"] == "1.5"
    odd = description.model_copy(update={"task_options": {"top_k": "all"}})
    modelfile.write(folder / "best.safetensors", tensors, odd)
    with pytest.raises(RetinueError, match="options that classification does not know"):
        api.export(folder, "timm", force=True)
    cold = description.model_copy(update={"task_state": {"temperature": 0}})
    modelfile.write(folder / "best.safetensors", tensors, cold)
    with pytest.raises(RetinueError, match=r"temperature 0 .* key task_state\.temperature"):
        api.export(folder, "timm", force=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (96, 96)}, "the shorter side resized to 109 (bilinear, antialiased), of that "
         "the middle 96×96"),
        ({"size": (96, 128)}, "resized to cover 109×146 (bilinear, antialiased), of that the "
         "middle 96×128"),
        ({"fit": "squash", "interpolation": "nearest"}, "resized to 224×224 (nearest), the aspect "
         "ratio given up"),
        ({"fit": "letterbox", "interpolation": "bicubic", "pad_value": 7},
         "resized to fit 224×224 (bicubic, antialiased), padded with grey 7"),
    ],
)  # fmt: skip
def test_how_images_are_prepared_in_words(changes: Any, words: str) -> None:
    how = replace(Preprocessing(interpolation="bilinear"), **changes)
    values = "values / 255, minus 0.485, 0.456, 0.406, divided by 0.229, 0.224, 0.225"
    assert preparing.words(how) == f"RGB, {words}, {values}"


def test_command_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "w.pth"
    assert run(["export", str(folder), "--to", "timm", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(out)
    assert said["classes"] == CLASSES
    assert said["create"].startswith('timm.create_model("mobilenetv2_035"')
    assert said["preprocessing"]["size"] == [224, 224]
    assert "transforms.Resize(256, " in said["prepare"]
    assert said["tta"] == "none"
    assert run(["export", str(folder), "--to", "timm", "--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err


def test_command_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(folder / "none"), "--to", "timm"]) == 2
    assert run(["export", str(folder), "--to", "keras"]) == 2
    capsys.readouterr()
    assert run(["export", str(folder)]) == 2
    formats = "onnx, openvino, torchscript, torch-export, litert, timm, torchvision"
    formats += ", savedmodel, keras, coreml"
    choose = f"missing option '--to', choose from {formats} (see `retinue export --help`)"
    assert capsys.readouterr().err == f"error: {choose}\n"
    (folder / "broken.safetensors").write_bytes(b"x" * 50)
    assert run(["export", str(folder / "broken.safetensors"), "--to", "timm"]) == 1
    assert "broken.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes", [{}, {"background": (0, 0, 0), "depth": 12}, {"background": (9, 90, 200)}]
)
def test_the_printed_code_sees_transparency_and_16_bits_as_we_do(changes: Any) -> None:
    how = replace(Preprocessing(), **changes)
    lines = preparing.code(how).split("prepare = ")[0].splitlines()
    known: dict[str, Any] = {}
    exec("\n".join(line for line in lines if "torchvision" not in line), known)
    rng = np.random.default_rng(0)
    clear = Image.fromarray(rng.integers(0, 256, (9, 9, 4), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 5000, (9, 9), dtype=np.uint16))
    for image in (clear, deep, clear.convert("LA"), clear.convert("RGB"), clear.convert("L")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        ours = Encoded(buffer.getvalue(), path="it", background=how.background, depth=how.depth)
        theirs = np.asarray(known["opaque"](Image.open(buffer)))
        assert np.array_equal(ours.decode().image, theirs)
