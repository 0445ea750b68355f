"""Networks that timm builds: the same answers, its groups by depth, one place to be cut."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.models import timm as ours
from retinue.models.anatomy import count_macs, unit_macs
from retinue.models.registry import create_model, find, is_network, list_models
from retinue.training.optim import build_optimizer
from retinue.training.options import OptimizerOptions, StageOptions
from retinue.training.stage import cut_before, first_to_learn, freeze, train_mode
from retinue.weights import catalogue

SMALL = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet")
"""timm's own networks for tests: some 400,000 parameters each."""


@pytest.fixture(scope="module")
def timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    return ours.library()


def _randomised(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter and statistic, so that no branch is zero."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            scale = 0.1 if tensor.ndim > 1 else 0.2
            tensor.copy_(
                torch.randn(tensor.shape, generator=generator) * scale + (tensor.ndim == 1)
            )
    return network.eval()


@pytest.mark.parametrize("name", SMALL)
def test_its_checkpoints_give_its_logits(timm: Any, name: str, tmp_path: Path) -> None:
    reference = _randomised(timm.create_model(name))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    network = create_model(f"timm/{name}", weights=tmp_path / "w.pth").eval()
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs, found = reference(images), network(images)
        pooled = network.run(images)
        again = network(pooled, start=len(network.units()))
    assert theirs.std() > 1e-3
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5 * float(theirs.std()))
    torch.testing.assert_close(again, found)
    assert network.first_drawn == len(network.units())
    # A tensor that is changed is seen.
    state = reference.state_dict()
    next(iter(state.values())).mul_(2)
    with torch.no_grad():
        assert not torch.allclose(reference(images), found, rtol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_in_one_group_and_what_units_cost_adds_up(timm: Any, name: str) -> None:
    network = create_model(f"timm/{name}", num_classes=3)
    groups = [p for _, parameters in network.parameter_groups() for p in parameters]
    assert len(groups) == len({id(p) for p in groups}) == len(list(network.parameters()))
    assert len({unit.name for unit in network.units()}) == len(network.units()) > 2
    size = network.preprocessing.size
    macs = unit_macs(network, size)
    assert len(macs) == len(network.units()) + 1
    assert sum(macs) == pytest.approx(count_macs(network, size), rel=0.05)
    assert find(f"timm/{name}").macs == pytest.approx(sum(macs), rel=0.1)
    assert find(f"timm/{name}").parameters > len(groups)


def test_rates_go_down_with_depth_and_a_part_is_frozen(timm: Any) -> None:
    network = create_model("timm/test_vit", num_classes=3)
    options = OptimizerOptions(name="sgd", lr=1.0, layer_decay=0.5)
    scales = {
        id(p): group["lr_scale"]
        for group in build_optimizer(network, options).param_groups
        for p in group["params"]
    }
    body = network.body
    assert scales[id(network.head.fc.weight)] == 1.0  # type: ignore[union-attr]
    depth = len(network.units())
    assert scales[id(body.patch_embed.proj.weight)] == 0.5**depth  # type: ignore[union-attr,index]
    first, second = (scales[id(body.blocks[k].mlp.fc1.weight)] for k in (0, 1))  # type: ignore[union-attr,index]
    assert second == 2 * first
    learns = first_to_learn(network, 1, "here")
    assert cut_before(network, learns) == 0
    assert cut_before(network, first_to_learn(network, "head", "here")) == depth
    freeze(network, learns)
    assert not body.patch_embed.proj.weight.requires_grad  # type: ignore[union-attr]
    assert network.head.fc.weight.requires_grad  # type: ignore[union-attr]

    class _Learner:
        def __init__(self) -> None:
            self.network = network

        def train(self) -> None:
            network.train()

    train_mode(_Learner(), learns, StageOptions(epochs=1))  # type: ignore[arg-type]
    assert not body.blocks[0].mlp.training  # type: ignore[union-attr,index]
    with pytest.raises(ValueError, match="is cut before unit 0 or"):
        network.run(torch.zeros(1, 3, 160, 160), start=1)


def test_its_preprocessing_and_weights_are_known_without_any_download(timm: Any) -> None:
    entry = find("timm/resnet26")
    assert entry.preprocessing.size == (224, 224)
    assert entry.preprocessing.interpolation == "bicubic"
    assert entry.preprocessing.crop_fraction == 0.875
    tags = {weights.tag: weights for weights in catalogue.entries("timm/convnext_small")}
    assert not tags  # nobody has asked for it
    find("timm/convnext_small")
    tags = {weights.tag: weights for weights in catalogue.entries("timm/convnext_small")}
    assert {"imagenet", "fb_in22k", "in12k_ft_in1k"} <= tags.keys()
    (place,) = tags["fb_in22k"].places
    assert place == catalogue.Hub("timm/convnext_small.fb_in22k", "main", "model.safetensors")
    assert tags["fb_in22k"].classes == 21841
    assert not any(name.startswith("timm/") for name in list_models())
    assert is_network("timm/resnet26")
    assert find("timm/resnet18").name == "resnet18"  # ours


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("timm/resnet62", r"timm has no network 'resnet62'.*timm/resnet26"),
        ("timm/resnet26.a9_in1k", r"timm/resnet26 has no weights called 'a9_in1k'.*bt_in1k"),
        ("timm/", "timm has no network ''"),
    ],
)
def test_what_timm_does_not_have(timm: Any, name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        create_model(name)


def test_without_timm_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours.library.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"not installed.*--no-deps timm"):
        create_model("timm/resnet26")
    monkeypatch.undo()
    ours.library.cache_clear()


def test_weights_of_another_network_are_refused(timm: Any, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(RetinueError, match="belong to another network"):
        create_model("timm/test_resnet", weights=tmp_path / "w.pth")


def test_a_training_on_cached_pooled_features_and_its_model_file(
    timm: Any, tmp_path: Path, only_torch: None
) -> None:
    torch.set_num_threads(1)
    pictures = tiny.write_pictures(tmp_path / "pictures", each=8)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    stages = [
        {
            "name": "head",
            "trainable": "head",
            "epochs": 2,
            "batch_size": 8,
            "augment": {"horizontal_flip": 0.0},
        },
        {"name": "late", "trainable": 1, "epochs": 1, "batch_size": 8},
    ]
    model = {"name": "timm/test_resnet", "weights": str(tmp_path / "w.pth")}
    recipe = tiny.recipe(pictures, model=model, stages=stages, ema=None)
    recipe["input"] = {"size": 32}
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    record = json.loads((run.folder / "environment.json").read_text())
    units = len(create_model("timm/test_resnet").units())
    assert record["trunk"]["head"]["units"] == units
    assert record["trunk"]["late"] is None
    described, tensors = modelfile.read(run.folder / "best.safetensors")
    assert described.network == "timm/test_resnet"
    answer = retinue.load(run.folder, engine="torch")(str(next((pictures / "red").iterdir())))
    assert {name for name, _ in answer.answers()} == set(tiny.COLOURS)
    again = create_model("timm/test_resnet", num_classes=3, weights=run.best)
    assert torch.equal(again.state_dict()["head.fc.weight"], tensors["head.fc.weight"])
    soup = retinue.soup([run.folder, _copy(run.folder, tmp_path)], tmp_path / "soup.safetensors")
    assert soup.path.is_file()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_its_maps_are_timms_and_a_detector_is_built_on_them(
    timm: Any, name: str, tmp_path: Path
) -> None:
    reference = _randomised(timm.create_model(name))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    network = create_model(f"timm/{name}", weights=tmp_path / "w.pth").eval()
    alone = timm.create_model(name, features_only=True).eval()
    told = alone.feature_info.reduction()
    with torch.no_grad():
        theirs = reference.forward_intermediates(images, intermediates_only=True)
        found = network.features(images)
    assert [level.stride for level in network.feature_levels] == told
    assert [level.channels for level in network.feature_levels] == [m.shape[1] for m in found]
    for one, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(one, other)
    detector = create_model(
        "yolov3", backbone=f"timm/{name}", num_classes=3, weights=tmp_path / "w.pth"
    )
    assert detector.strides == (8, 16, 32)  # type: ignore[attr-defined]
    assert detector.first_drawn == 1
    detector.eval()
    with torch.no_grad():
        deepest, *finer = detector.run(images, stop=1)
        torch.testing.assert_close([*finer, deepest], found[-3:])
    again = create_model("yolov3", **detector.arguments)
    again.load_state_dict(detector.state_dict())


def test_a_transformer_of_one_stride_has_no_detector(timm: Any) -> None:
    with pytest.raises(UsageError, match="has no feature level 3"):
        create_model("yolov3", backbone="timm/test_vit", num_classes=3)


def _copy(run: Path, root: Path) -> Path:
    copy = root / "copy.safetensors"
    copy.write_bytes((run / "best.safetensors").read_bytes())
    return copy
