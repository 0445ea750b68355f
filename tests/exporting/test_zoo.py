"""Networks of every family answer in other formats as here.

The quick ones are small, and go to OpenVINO; `slow`: one of each family at its own size on real
photographs, to ONNX and OpenVINO, those for phones to LiteRT; `parity`: the whole zoo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import exports
import pytest

import retinue
from retinue.exporting import model as exporting
from retinue.models.registry import find, list_models

SMALL = (
    "alexnet_half_1024_128", "efficientnet_lite0", "googlenet", "mnist_cnn", "mobilenet_v1_025",
    "mobilenet_v2_035", "mobilenet_v3_small_050", "resnet18", "small_vit",
)  # fmt: skip
MOBILE = ("efficientnet_lite0", "mobilenet_v1_025", "mobilenet_v2_035", "mobilenet_v3_small_050")
FAMILIES = (
    *SMALL, "darknet53", "tf_efficientnet_b0", "resnext50_32x4d", "vgg11_bn", "vit_base_patch32",
    "vit_base_r50_s16", "xception",
)  # fmt: skip
HUGE = ("efficientnet_l2", "vit_huge", "vit_large", "efficientnet_b7", "efficientnet_b8")
"""Of which an export takes more memory than a machine for tests has."""

NOT_PUBLISHED = ("tiny", "small_vit", "mates", "darknet")


def round_trip(
    name: str, to: str, folder: Path, images: Path, size: tuple[int, int] | None = None
) -> exporting.Written:
    """Outputs within 1e-3 and the same best class are what an export is refused without."""
    model = exports.model(folder / "best.safetensors", name, size=size, settled=True)
    done = retinue.export(model, to, images=images)
    assert isinstance(done, exporting.Written)
    assert done.proof.error is not None
    assert done.proof.error <= 1e-3
    assert done.proof.other_best == 0
    for path in folder.iterdir():  # large, and pytest would keep them
        path.unlink()
    return done


@pytest.mark.parametrize("name", SMALL)
def test_every_family(name: str, tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    size = {"mnist_cnn": (28, 28), "small_vit": (64, 64)}.get(name, (64, 64))
    round_trip(name, "openvino", tmp_path, photographs, size)


def test_the_zoo_has_no_other_family() -> None:
    known = {find(name).family for name in FAMILIES if name != "small_vit"}
    entries = [find(name) for name in list_models(kind="classifier")]
    shipped = {one.family for one in entries if _module(one.build).startswith("retinue.")}
    assert shipped - known <= {"vit", "darknet"}  # small_vit's; what a file describes


def _module(build: Any) -> str:
    """Where the network is defined: other tests register theirs, too."""
    return str(getattr(build, "func", build).__module__)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("name", FAMILIES)
def test_real_photographs(
    name: str, to: str, tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    pytest.importorskip("onnxruntime" if to == "onnx" else "openvino")
    done = round_trip(name, to, tmp_path, shared("data/flowers5"))
    assert done.proof.images == 16


@pytest.mark.slow
@pytest.mark.parametrize("end_to_end", [False, True])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_real_detector_on_real_photographs(
    to: str, end_to_end: bool, tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    pytest.importorskip("onnxruntime" if to == "onnx" else "openvino")
    files = shared("weights/yolo-fastest-1.1")
    (tmp_path / "names").write_text("".join(f"class {k}\n" for k in range(80)))
    model = retinue.import_model(
        files / "yolo-fastest-1.1.cfg", files / "yolo-fastest-1.1.weights",
        names=tmp_path / "names", out=tmp_path / "best.safetensors",
    )  # fmt: skip
    images = shared("data/coco128") / "images"
    done = retinue.export(model, to, images=images, end_to_end=end_to_end)
    assert isinstance(done, exporting.Written)
    assert done.proof.answers > 10
    assert done.proof.others == 0
    assert done.proof.overlap is not None
    assert done.proof.overlap >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", MOBILE)
def test_phones(name: str, tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("litert_torch")
    pytest.importorskip("ai_edge_litert")
    round_trip(name, "litert", tmp_path, photographs, (96, 96))


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", [name for name in list_models() if find(name).kind == "classifier"]
)
def test_the_whole_zoo(name: str, tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    if name.removeprefix("tf_").startswith(HUGE) or name in (
        "tiny",
        "small_vit",
        "mates",
        "darknet",
    ):
        pytest.skip("too large for a machine for tests, or described by a file")
    round_trip(name, "openvino", tmp_path, photographs)
