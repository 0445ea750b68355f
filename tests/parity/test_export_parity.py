"""What is exported loads strictly in the library it is for, and computes the same there, also from
image files on, through the code that is printed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from seen import inputs as as_seen
from torch import Tensor

from retinue import api, modelfile
from retinue.errors import RetinueError
from retinue.exporting import preparing
from retinue.exporting.elsewhere import LIBRARIES, construction
from retinue.exporting.state_dict import Exported
from retinue.modelfile import ModelDescription
from retinue.models.network import Network
from retinue.models.registry import create_model, find, list_models
from retinue.sample import Preprocessing, Sample
from retinue.weights import catalogue, resolution
from retinue.weights.catalogue import Wheel
from retinue.weights.layout import untranslate

CLASSES = ["a", "b", "c", "d", "e"]


def evaluated(code: str, references: Any) -> Any:
    """The network that the printed line builds."""
    known = {
        "torchvision": references.torchvision,
        "timm": references.timm,
        "torch": torch,
        "functools": functools,
    }
    return eval(code, known)


def exported_and_loaded(
    name: str,
    library: str,
    size: tuple[int, int],
    references: Any,
    parity: Any,
    **arguments: Any,
) -> tuple[Any, Any, Exported]:
    """(our network, theirs, what the export says) through a file of a model that is used with
    images of `size`, and an exported one. All in float64, also what the export itself computes."""
    network = create_model(name, num_classes=len(CLASSES), **arguments)
    network.requires_grad_(False)
    parity.randomise(network, size=size, channels=channels_of(network)).double()
    description = ModelDescription(
        task="classification",
        classes=CLASSES,
        network=name,
        arguments=dict(network.arguments),
        preprocessing=replace(network.preprocessing, size=size).as_dict(),
    )
    with tempfile.TemporaryDirectory() as folder:  # gigabytes, which pytest's would keep
        modelfile.write(Path(folder, "best.safetensors"), network.state_dict(), description)
        exported = api.export(folder, library)
        theirs = evaluated(exported.construction.code(), references).double()
        theirs.load_state_dict(load_file(exported.path), strict=True)
    return network.eval(), theirs.eval(), exported


def channels_of(network: Any) -> int:
    return int(network.arguments["in_channels"])


@dataclass(frozen=True)
class Case:
    """A network, and the height and width of the images that it is used with."""

    name: str
    library: str
    size: tuple[int, int] = (96, 96)
    arguments: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    """In every `make test`."""

    def parameter(self) -> Any:
        """As pytest takes it."""
        height, width = self.size
        words = [self.name, self.library, f"{height}x{width}", *self.arguments]
        marks = [] if self.quick else [pytest.mark.parity]
        return pytest.param(self, marks=marks, id="-".join(words))


TF = {"same_padding": True, "norm_eps": 1e-3}

CASES = [
    Case("mobilenet_v2_035", "timm", quick=True),
    Case("mobilenet_v2_035", "torchvision", quick=True),
    Case("mobilenet_v2_050", "timm", arguments={**TF, "in_channels": 1}),
    Case("mobilenet_v2_050", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("mobilenet_v1", "timm"),
    Case("mobilenet_v1", "timm", arguments=TF),
    Case("mobilenet_v3_small", "timm"),
    Case("mobilenet_v3_small", "timm", arguments={"same_padding": True}),
    Case("mobilenet_v3_small_050", "timm"),
    Case("mobilenet_v3_large", "torchvision"),
    Case("mobilenet_v3_small", "torchvision", arguments={"norm_eps": 1e-5}),
    Case("resnet18", "timm", arguments={"in_channels": 4}),
    Case("resnet34", "torchvision"),
    Case("resnet50", "timm", arguments={"norm_eps": 1e-3}),
    Case("resnet50", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("resnext50_32x4d", "torchvision"),
    Case("alexnet", "torchvision"),
    Case("vgg11", "timm"),
    Case("vgg11_bn", "torchvision"),
    Case("googlenet", "torchvision"),
    Case("googlenet", "torchvision", arguments={"auxiliary": True}),
    Case("xception", "timm", arguments={"same_padding": False, "norm_eps": 1e-5}),
    Case("darknet53", "timm"),
    Case("darknet53", "timm", arguments={"slope": 0.01}),
    Case("efficientnet_b0", "timm", arguments={"same_padding": True}),
    Case("efficientnet_b0", "torchvision"),
    Case("efficientnet_b5", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("efficientnet_lite0", "timm"),
    Case("tf_efficientnet_b0", "timm"),
    Case("tf_efficientnet_lite0", "timm", arguments={"same_padding": False, "norm_eps": 1e-5}),
    Case("vit_base_patch32", "timm", (64, 64), {"image_size": 64, "norm_eps": 1e-12}),
    Case(
        "vit_base_patch32", "torchvision", (64, 64), {"image_size": 64, "representation_size": 32}
    ),
    Case("vit_base_patch32", "timm", (64, 64), {"representation_size": 0}),
    Case("vit_base_patch32", "torchvision", (64, 64), {"representation_size": 0}),
    Case("vit_base_r50_s16", "timm", (64, 64), {"image_size": 64}),
    # Images larger than the network's native ones, and such as are not square.
    *(
        Case(name, library, size, arguments, quick)
        for name, library, larger, oblong, arguments, quick in (
            ("alexnet", "torchvision", 256, (99, 130), {}, False),
            ("darknet53", "timm", 288, (99, 130), {}, False),
            ("efficientnet_b0", "timm", 256, (99, 130), {}, False),
            ("efficientnet_b0", "torchvision", 256, (99, 130), {}, False),
            ("tf_efficientnet_b0", "timm", 256, (99, 130), {}, False),
            ("googlenet", "torchvision", 256, (99, 130), {}, False),
            ("vit_base_r50_s16", "timm", 256, (72, 100), {}, False),
            ("mobilenet_v1", "timm", 256, (99, 130), {}, False),
            ("mobilenet_v1", "timm", 257, (99, 130), TF, False),
            ("mobilenet_v2_035", "timm", 256, (99, 130), {}, True),
            ("mobilenet_v2_035", "torchvision", 256, (99, 130), {}, True),
            ("mobilenet_v2_035", "timm", 257, (99, 130), TF, True),
            ("mobilenet_v3_small", "timm", 256, (99, 130), {}, False),
            ("mobilenet_v3_small", "torchvision", 256, (99, 130), {"norm_eps": 1e-5}, False),
            ("resnet18", "timm", 256, (99, 130), {}, False),
            ("resnet18", "torchvision", 256, (99, 130), {}, False),
            ("vgg11", "timm", 255, (99, 255), {}, False),  # the largest that is exported
            ("vgg11", "torchvision", 256, (99, 288), {}, False),
            ("vit_base_patch32", "timm", 256, (96, 64), {}, False),
        )
        for size in ((larger, larger), oblong)
    ),
    Case("vit_base_patch32", "torchvision", (256, 256)),  # and no oblong ones
    Case("xception", "timm", (320, 320), {"same_padding": False, "norm_eps": 1e-5}),
    Case("xception", "timm", (99, 130), {"same_padding": False, "norm_eps": 1e-5}),
]


@pytest.mark.parametrize("case", [case.parameter() for case in CASES])
def test_export(case: Case, references: Any, parity: Any) -> None:
    """The tensors being the same, what remains is the functions: in float64 no rounding hides a
    difference like that of two epsilons."""
    ours, theirs, exported = exported_and_loaded(
        case.name, case.library, case.size, references, parity, **case.arguments
    )
    size = exported.preprocessing.size
    assert size == case.size
    assert parity.relative_error(ours, theirs, size, channels=channels_of(ours)) <= 1e-8


@pytest.mark.parity
def test_vgg_of_larger_maps_is_refused_for_a_reason(references: Any, parity: Any) -> None:
    """timm's takes any image, and computes something else where the map is above 7×7."""
    ours, theirs, _ = exported_and_loaded("vgg11", "timm", (224, 224), references, parity)
    for size in ((256, 256), (160, 288)):
        assert parity.relative_error(ours, theirs, size) > 0.01
        with pytest.raises(RetinueError, match="averages the map to 7×7"):
            construction("timm", ours, size)


BY_FAMILY = {
    "alexnet": ["torchvision"],
    "darknet53": ["timm"],
    "efficientnet": LIBRARIES,
    "googlenet": ["torchvision"],
    "hybrid_vit": ["timm"],
    "mnist": [],
    "mobilenet_v1": ["timm"],
    "mobilenet_v2": LIBRARIES,
    "mobilenet_v3": LIBRARIES,
    "resnet": LIBRARIES,
    "vgg": LIBRARIES,
    "vit": LIBRARIES,
    "xception": ["timm"],
}
NOT_THERE = {
    ("xception", "timm"),  # with TensorFlow's padding, as it is by default
    *((f"mobilenet_v1_{width}", "timm") for width in ("025", "050", "075")),
    *(
        (f"mobilenet_v3_{width}", "torchvision")
        for width in ("small_050", "small_075", "large_075")
    ),
    *((f"resnet{depth}_v1", library) for depth in (50, 101, 152) for library in LIBRARIES),
    *((f"efficientnet_{size}", "torchvision") for size in ("b5", "b6", "b7", "b8", "l2")),
    *((f"efficientnet_lite{k}", "torchvision") for k in range(5)),
    *((name, "torchvision") for name in list_models("tf_*")),
    *((name, "torchvision") for name in list_models("alexnet_*")),
    ("googlenet_original", "torchvision"),
}


@pytest.mark.parity
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", list_models(kind="classifier"))
def test_every_network_has_the_keys_and_shapes_of_theirs(
    name: str, library: str, references: Any
) -> None:
    """On the meta device, so that the giants take part."""
    with torch.device("meta"):
        network = create_model(name, num_classes=5)
        if (name, library) in NOT_THERE or library not in BY_FAMILY[find(name).family]:
            with pytest.raises(RetinueError):
                construction(library, network, network.preprocessing.size)
            return
        made = construction(library, network, network.preprocessing.size)
        theirs = evaluated(made.code(), references).state_dict()
    state = untranslate(made.layout, network.state_dict())
    assert {k: t.shape for k, t in state.items()} == {k: t.shape for k, t in theirs.items()}


# --- from image files on

Prepare = Callable[[Image.Image], Tensor]

PIXEL = 1 / 255 / 0.22
"""One of 255 levels, as much as it is of a normalised value."""

SIZES = ((320, 213), (213, 320), (251, 250), (97, 251))
"""Widths and heights of pictures; their crops' corners fall between whole pixels."""

ORIENTATIONS = (1, 6, 3, 8)
"""In their EXIF data."""

UPRIGHT = [0, 1, 4, 5]
"""Of the files, a JPEG and a PNG of each picture. We resize those that lie on their side as they
lie: Pillow rounds after the rows, then after the columns, which are rows in the code."""

ROUNDING = 0.005
"""What it does to the probabilities of a network with drawn weights, which is more sensitive than
trained ones are (measured: 0.002; lying pictures, a level off in a fifth of the pixels: 0.014)."""


def prepare_of(code: str, references: Any) -> Prepare:
    """What the printed code defines."""
    assert references.torchvision
    known: dict[str, Any] = {}
    exec(code, known)
    return known["prepare"]


def write_pictures(folder: Path, scale: int = 1) -> list[Path]:
    """Blots with fine structure on them as JPEG and PNG, some lying on their side. `scale`: as a
    camera of so many times the resolution would take them."""
    rng = np.random.default_rng(0)
    paths = []
    for index, (width, height) in enumerate(SIZES):
        blots = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
        large = (width * scale, height * scale)
        fine = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        smooth = blots.resize(large, Image.Resampling.BICUBIC)
        picture = Image.blend(smooth, fine.resize(large, Image.Resampling.BICUBIC), 0.25)
        exif = Image.Exif()
        exif[0x0112] = ORIENTATIONS[index]
        for name in (f"{index}.jpg", f"{index}.png"):
            picture.save(folder / name, exif=exif, quality=90)
            paths.append(folder / name)
    return paths


def write_used_model(path: Path, network: Network, preprocessing: Preprocessing) -> Path:
    count = network.arguments["num_classes"]
    description = ModelDescription(
        task="classification",
        task_options={"top_k": count},
        classes=[f"class {k}" for k in range(count)],
        network=network.name,
        arguments=dict(network.arguments),
        preprocessing=preprocessing.as_dict(),
    )
    modelfile.write(path, network.state_dict(), description)
    return path


@torch.no_grad()
def answers(model: Path, library: str, paths: list[Path], references: Any) -> tuple[Tensor, Tensor]:
    """(our probabilities, those of `library` by what the export says), for each picture."""
    exported = api.export(model, library, force=True)
    theirs = evaluated(exported.construction.code(), references)
    theirs.load_state_dict(load_file(exported.path), strict=True)
    theirs.eval()
    prepare = prepare_of(exported.prepare(), references)
    expected = torch.cat([theirs(prepare(Image.open(path))[None]).softmax(1) for path in paths])
    predictor = api.load(model, device="cpu", engine="torch")
    results = [dict(predictor(path).classes) for path in paths]
    ours = torch.tensor([[result[name] for name in exported.classes] for result in results])
    return ours, expected


def inputs(paths: list[Path], how: Preprocessing) -> Tensor:
    """What our networks see of the pictures."""
    return as_seen([Sample(str(path)) for path in paths], how)


WAYS = [
    Preprocessing(size=size, fit=fit, interpolation=interpolation, **more)
    for size, fit, interpolation, more in (
        ((96, 96), "crop", "bilinear", {}),
        ((96, 96), "crop", "bicubic", {"crop_fraction": 0.9}),
        ((96, 96), "crop", "lanczos", {"crop_fraction": 1.0}),
        ((224, 224), "crop", "bicubic", {}),
        ((224, 224), "crop", "nearest", {}),
        ((96, 130), "crop", "bilinear", {}),
        ((131, 64), "crop", "bicubic", {"crop_fraction": 0.965}),
        ((96, 96), "squash", "bilinear", {}),
        ((64, 99), "squash", "bicubic", {}),
        ((96, 96), "letterbox", "bilinear", {}),
        ((64, 99), "letterbox", "bicubic", {"pad_value": 7, "mean": (0.5,) * 3, "std": (0.5,) * 3}),
    )
]


@pytest.mark.parametrize(
    "how", WAYS, ids=lambda how: f"{how.fit}-{how.size[0]}x{how.size[1]}-{how.interpolation}"
)
def test_prepared_as_by_us(how: Preprocessing, references: Any, tmp_path: Path) -> None:
    """JPEGs not so large that they are decoded at a scale, and PNGs: all but rounding is equal."""
    paths = write_pictures(tmp_path)
    prepare = prepare_of(preparing.code(how), references)
    theirs = torch.stack([prepare(Image.open(path)) for path in paths])
    difference = (inputs(paths, how) - theirs).abs()
    if how.interpolation == "nearest":  # which rounding turns into another pixel
        assert (difference > 1.1 * PIXEL).float().mean() <= 0.01
    else:
        assert difference.max() <= 2.1 * PIXEL
        assert difference[UPRIGHT].mean() <= 0.01 * PIXEL
        assert difference.mean() <= 0.1 * PIXEL


def test_as_timm_prepares_them(references: Any, tmp_path: Path) -> None:
    """Its own function is as good for a square crop."""
    how = Preprocessing(size=(96, 96), interpolation="bicubic")
    paths = write_pictures(tmp_path)
    own = references.timm.data.create_transform(
        input_size=(3, *how.size),
        interpolation=how.interpolation,
        crop_pct=how.crop_fraction,
        mean=how.mean,
        std=how.std,
    )
    prepare = prepare_of(preparing.code(how), references)
    for picture in map(Image.open, paths[:2]):
        assert torch.allclose(own(picture), prepare(picture), atol=1e-6)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A small network that answers to what it sees, as a model file for images of a size."""
    folder = tmp_path_factory.mktemp("tiny")

    def write(parity: SimpleNamespace, how: Preprocessing) -> Path:
        network = create_model("mobilenet_v2_035", num_classes=5).requires_grad_(False)
        parity.randomise(network, size=how.size)
        return write_used_model(folder / "best.safetensors", network, how)

    return write


SQUARE, OBLONG = (
    replace(Preprocessing(interpolation="bilinear"), size=size) for size in ((96, 96), (96, 130))
)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("how", [SQUARE, OBLONG], ids=["square", "oblong"])
def test_the_same_answers(
    how: Preprocessing, library: str, tiny: Any, references: Any, parity: Any, tmp_path: Path
) -> None:
    ours, theirs = answers(tiny(parity, how), library, write_pictures(tmp_path), references)
    apart = (ours - theirs).abs().amax(1)
    assert apart[UPRIGHT].max() <= ROUNDING
    assert apart.max() <= 6 * ROUNDING


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Resize(109", "Resize(110"),
        ("CenterCrop(96)", "FiveCrop(96), lambda crops: crops[0]"),
        ("BILINEAR", "BICUBIC"),
        ("BILINEAR", "NEAREST"),
        ("0.485", "0.5"),
        ("0.229", "0.224"),
        ("exif_transpose", "flip"),
    ],
)
def test_wrong_code_would_be_seen(
    right: str,
    wrong: str,
    tiny: Any,
    references: Any,
    parity: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = preparing.code
    assert right in code(SQUARE)
    monkeypatch.setattr(preparing, "code", lambda *how: code(*how).replace(right, wrong))
    ours, theirs = answers(tiny(parity, SQUARE), "timm", write_pictures(tmp_path), references)
    assert (ours - theirs).abs().amax(1)[UPRIGHT].max() > 2 * ROUNDING


def test_jpegs_decoded_at_a_scale(references: Any, tmp_path: Path) -> None:
    """Large ones: the means of 8×8 pixels and the like, then the filter, are nearly the filter."""
    paths = write_pictures(tmp_path, scale=4)
    prepare = prepare_of(preparing.code(SQUARE), references)
    theirs = torch.stack([prepare(Image.open(path)) for path in paths])
    difference = (inputs(paths, SQUARE) - theirs).abs()
    assert difference.max() <= 5 * PIXEL
    assert 0.1 * PIXEL <= difference[UPRIGHT][::2].mean() <= 0.5 * PIXEL
    assert difference[UPRIGHT][1::2].mean() <= 0.01 * PIXEL  # the same as PNG


@pytest.mark.parity
@pytest.mark.parametrize("folder", ["imagenet-samples/images", "raccoon"])
@pytest.mark.parametrize("side", [96, 160, 224])
def test_the_same_answers_to_photographs(
    side: int, folder: str, shared: Any, references: Any, tmp_path: Path
) -> None:
    """The figures of docs/export.md. Real weights, also at sizes that they were not trained at."""
    places = catalogue.find("mobilenet_v2", "imagenet").places
    wheel = resolution.in_wheel(next(place for place in places if isinstance(place, Wheel)))
    if wheel is None:
        pytest.skip("needs the weights of mobilenet_v2")
    every = sorted(p for p in shared(f"data/{folder}").rglob("*") if p.suffix in (".jpg", ".JPEG"))
    paths = every[:: -(-len(every) // 100)]
    network = create_model("mobilenet_v2", weights=str(wheel))
    how = replace(network.preprocessing, size=(side, side))
    model = write_used_model(tmp_path / "best.safetensors", network, how)
    ours, theirs = answers(model, "torchvision", paths, references)
    apart = (ours - theirs).abs().amax(1)
    other = int((ours.argmax(1) != theirs.argmax(1)).sum())
    print(
        f"{folder}, {side} px, {len(paths)} photographs: probabilities differ by at most "
        f"{apart.max():.4f}, in the median photograph {apart.median():.5f}; top-1 of {other} differ"
    )
    assert apart.median() <= 0.002
    assert other <= 2
