"""`zoo.json` says what registry, catalogue and the networks themselves say, of every network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from retinue.errors import UsageError
from retinue.models import known, lookup, packing, registry
from retinue.weights import catalogue, places
from retinue.weights.catalogue import Hub, Url

MADE = "python -m retinue.models.packing"
ZOO = sorted(known.networks())
FIRST = sorted({known.networks()[name].family: name for name in reversed(ZOO)}.values())


def test_it_has_the_networks_of_the_zoo_and_no_others() -> None:
    command = "from retinue.models.registry import list_models; print(*list_models())"
    # Another process: other tests may have registered networks of their own in this one.
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ZOO, MADE


@pytest.mark.parametrize("name", ZOO)
def test_what_is_declared_is_what_is_packed(name: str) -> None:
    declared = packing.declared(registry.find(name))
    assert declared == {key: getattr(known.networks()[name], key) for key in declared}, MADE


@pytest.mark.parametrize("name", FIRST)
def test_what_is_built_is_what_is_packed(name: str) -> None:
    assert packing.facts(registry.find(name)) == known.networks()[name], MADE


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in FIRST])
def test_all_others_that_are_built_are_what_is_packed(name: str) -> None:
    assert packing.facts(registry.find(name)) == known.networks()[name], MADE


def test_what_is_packed_adds_up() -> None:
    for name, facts in known.networks().items():
        assert sum(unit["parameters"] for unit in facts.units) == facts.parameters, name
        if facts.stages:
            assert sum(stage["parameters"] for stage in facts.stages) == facts.parameters, name
            assert sum(stage["macs"] for stage in facts.stages) == facts.macs, name


def test_packing_again_gives_the_same_file() -> None:
    text = (resources.files("retinue.models") / known.FILE).read_text(encoding="utf-8")
    assert packing.packed(list(known.networks().values())) == text


def test_a_fact_that_changed_is_seen() -> None:
    entry = registry.find("resnet18")
    changed = packing.declared(replace(entry, macs=entry.macs + 1))
    assert changed["macs"] != known.networks()["resnet18"].macs


def test_both_mean_the_same_by_a_name() -> None:
    zoo = known.networks()
    for name in ("resnet50", "ResNet50", "timm/resnet50.a1_in1k", "mobilenetv2_100", "vgg16",
                 "resnet50.imagenet_v2", "vit_b_16"):  # fmt: skip
        assert lookup.called(name, zoo) == registry.called(name)
    for wrong in ("resnt50", "resnet50.a9"):
        said = []
        for ask in (lambda name: lookup.called(name, zoo) or _raise(name), registry.called):
            with pytest.raises(UsageError) as raised:
                ask(wrong)
            said.append(str(raised.value))
        assert said[0] == said[1]


def _raise(name: str) -> Any:
    raise lookup.unknown(name, known.networks())


@pytest.mark.parametrize("set_", [None, "TORCH_HOME", "XDG_CACHE_HOME"])
def test_downloads_are_looked_for_where_torch_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_: str | None
) -> None:
    import torch

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if set_ is not None:
        monkeypatch.setenv(set_, str(tmp_path / "elsewhere"))
    told = Path(torch.hub.get_dir(), "checkpoints")
    assert places.download_folder() == told
    monkeypatch.delitem(sys.modules, "torch")
    assert places.download_folder() == told
    url = Url("https://example.org/w.pth")
    entry = replace(next(catalogue.entries("vgg11")), places=(Hub("a/b", "c", "d"), url))
    assert places.at_hand(entry) is None
    told.mkdir(parents=True)
    (told / "w.pth").touch()
    assert places.at_hand(entry) == told / "w.pth"


def test_where_torch_was_told_another_folder_it_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert places.download_folder() == tmp_path / "checkpoints"


QUICK = (
    ["--version"],
    ["models"],
    ["models", "RESNET*", "--json"],
    ["models", "resnet50"],
    ["models", "alexnet_half"],
    ["models", "resnt50"],
    ["recipes"],
    ["recipes", "finetune"],
    ["checks", "--help"],
)


def test_lists_are_told_without_torch() -> None:
    program = (
        "import json, sys\n"
        "from retinue.cli.app import run\n"
        "told = [run(json.loads(line)) for line in sys.argv[1:]]\n"
        "heavy = {'torch', 'cv2', 'pyarrow', 'PIL', 'scipy', 'matplotlib', 'safetensors'}\n"
        "print(told, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    arguments = [json.dumps(each) for each in QUICK]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0, 0, 2, 0, 0, 0] []"
    assert "25,557,032" in done.stdout


def test_a_network_of_another_library_is_asked_for_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retinue.cli.app import run

    entry = registry.find("resnet18")
    own: Callable[..., Any] = registry.find
    monkeypatch.setattr(registry, "find", lambda name: entry if "/" in name else own(name))
    assert run(["models", "timm/some_network"]) == 0
    assert "11,689,512" in capsys.readouterr().out
