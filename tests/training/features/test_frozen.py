"""The frozen part as rows of the cache: what goes in comes out, and what tells one from another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from retinue import nested
from retinue.errors import RetinueError
from retinue.models.network import Unit
from retinue.training.features import dtypes, keys
from retinue.training.features.frozen import ERROR, FrozenPart, TooCoarseError
from retinue.training.features.layouts import Layout
from retinue.training.options import CacheDtype

CPU = torch.device("cpu")


class Tapped(tiny.Tiny):
    """A network whose head needs the stem's map, too."""

    def units(self) -> list[Unit]:
        stem, *others = super().units()
        return [stem._replace(tap=lambda x: x[:, :4]), *others]


class Teacher(nn.Module):
    """Answers of any nesting."""

    def forward(self, x: torch.Tensor) -> Any:
        mean = x.mean((2, 3))
        return {"logits": mean, "maps": (x[:, :1, ::8, ::8], mean[:, 0])}


def _network(kind: type[tiny.Tiny] = tiny.Tiny, seed: int = 0, **arguments: Any) -> tiny.Tiny:
    torch.manual_seed(seed)
    network = kind(num_classes=3, **arguments).eval()
    network.name, network.arguments = "tiny", {"num_classes": 3, **arguments}
    return network


def _stored(part: FrozenPart, inputs: torch.Tensor) -> dict[str, np.ndarray[Any, Any]]:
    """What comes back from the disk."""
    fields = part.fields(part.compile(inputs, "torch"), inputs)
    size = (inputs.shape[2], inputs.shape[3])
    fields["sizes"] = np.zeros((len(inputs), 4, 2), np.int32)
    records = part.layout(size).pack(fields, len(inputs))
    return {name: records[name] for name in records.dtype.names or ()}


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("kind", [tiny.Tiny, Tapped])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_state_comes_back_as_the_trunk_gave_it(
    kind: type[tiny.Tiny], cut: int, size: tuple[int, int]
) -> None:
    network = _network(kind)
    inputs = torch.randn(3, 3, *size)
    part = FrozenPart(network, cut, CPU)
    fields = _stored(part, inputs)
    state = part.state(fields, size)
    with torch.inference_mode():
        wanted = network.run(inputs, stop=cut)
    assert nested.structure(state) == nested.structure(wanted)
    for ours, theirs in zip(nested.leaves(state), nested.leaves(wanted), strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        assert torch.equal(ours, theirs.half().float())
    assert part.taught(fields, size) is None


def test_rows_go_to_the_device_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as many bytes, and by the way that does not wait for the device."""
    went: list[tuple[torch.dtype, tuple[int, ...], torch.device]] = []

    def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        went.append((tensor.dtype, tuple(tensor.shape), device))
        return tensor.to("meta")  # whence nothing comes back

    monkeypatch.setattr(dtypes, "sent", sent)
    part = FrozenPart(_network(Tapped), 2, CPU)
    state = part.state(_stored(part, torch.randn(3, 3, 32, 32)), (32, 32))
    assert went == [(torch.float16, (3, 8, 8, 8), CPU), (torch.float16, (3, 8, 8, 4), CPU)]
    for leaf, channels in zip(nested.leaves(state), (8, 4), strict=True):
        assert leaf.device.type == "meta"
        assert leaf.dtype == torch.float32
        assert leaf.shape == (3, channels, 8, 8)


def test_what_a_teacher_says_lies_beside_it() -> None:
    part = FrozenPart(_network(), 2, CPU, Teacher(), "0123")
    inputs = torch.randn(2, 3, 32, 32)
    fields = _stored(part, inputs)
    taught, wanted = part.taught(fields, (32, 32)), Teacher()(inputs)
    assert nested.structure(taught) == nested.structure(wanted)
    for ours, theirs in zip(nested.leaves(taught), nested.leaves(wanted), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_what_is_given_for_an_image_does_not_depend_on_how_many_there_are() -> None:
    """Engine and teacher may round otherwise for other numbers: here they tell the number."""

    def told(x: torch.Tensor) -> torch.Tensor:
        taken.append(len(x))
        return x[:, :, ::8, ::8] + len(x)

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return told(x)

    taken: list[int] = []
    part = FrozenPart(_network(), 2, CPU, Counting(), "0123")
    inputs = torch.randn(16, 3, 32, 32)
    whole = part.fields(told, inputs)  # type: ignore[arg-type]
    for some in (slice(3, 4), slice(0, 5), slice(1, 16)):
        fields = part.fields(told, inputs[some])  # type: ignore[arg-type]
        assert fields.keys() == {"state0", "taught0", ERROR}
        for name, values in fields.items():
            assert np.array_equal(values, whole[name][some])
    assert taken == [16] * 8


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_values_too_large_for_a_kind_are_not_cut_off(dtype: CacheDtype) -> None:
    network = _network()
    with torch.no_grad():
        network.stem[0].weight.mul_(1e9)
    inputs = torch.randn(1, 3, 32, 32)
    with pytest.raises(TooCoarseError, match=f"as {dtype} the features of an image would change"):
        _stored(FrozenPart(network, 1, CPU, dtype=dtype), inputs)
    exact = FrozenPart(network, 1, CPU, dtype="float32")
    with torch.inference_mode():
        wanted = network.run(inputs, stop=1)
    assert wanted.max() > 65504
    found = exact.state(_stored(exact, inputs), (32, 32))
    assert isinstance(found, torch.Tensor)
    assert (found - wanted).norm() < 1e-5 * wanted.norm()


def test_what_is_not_finite_is_an_error() -> None:
    part = FrozenPart(_network(), 1, CPU)
    inputs = torch.zeros(1, 3, 32, 32)
    engine = part.compile(inputs, "torch")
    inputs[0, 0, 5, 5] = torch.nan
    with pytest.raises(RetinueError, match=r"not finite, cached features, cache_features=off"):
        part.fields(engine, inputs)


def test_measuring_leaves_the_network_in_its_mode() -> None:
    network = _network().train()
    before = network.stem[1].running_mean.clone()
    assert isinstance(FrozenPart(network, 2, CPU).layout((32, 32)), Layout)
    assert all(module.training for module in network.modules())
    assert torch.equal(network.stem[1].running_mean, before)


def test_the_key_tells_what_the_trunk_depends_on_and_nothing_else() -> None:
    def key(
        network: tiny.Tiny,
        cut: int = 2,
        *,
        size: tuple[int, int] = (32, 32),
        engine: str = "torch",
        taught_by: str | None = None,
        dtype: CacheDtype = "float16",
    ) -> str:
        teacher = Teacher() if taught_by else None
        return FrozenPart(network, cut, CPU, teacher, taught_by, dtype).key(size, engine)

    first = key(_network())
    same = _network(dropout=0.7)
    with torch.no_grad():
        same.head.fc.weight.add_(1)
        same.last[0].weight.add_(1)
    assert key(same) == first
    statistics = _network()
    statistics.middle[1].running_mean.add_(1e-6)
    weight = _network()
    with torch.no_grad():
        weight.stem[0].bias[3] += 1e-6
    others = [
        key(_network(seed=1)),
        key(statistics),
        key(weight),
        key(_network(), cut=1),
        key(_network(), size=(32, 40)),
        key(_network(), engine="openvino"),
        key(_network(), taught_by="a"),
        key(_network(), taught_by="b"),
        key(_network(), dtype="float32"),
        key(_network(), dtype="int8"),
    ]
    assert len({first, *others}) == len(others) + 1


def test_the_key_tells_the_version_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    part = FrozenPart(_network(), 2, CPU)
    for engine in ("torch", "openvino", "onnxruntime"):
        found = set()
        for version in ("1.0", "1.1"):
            monkeypatch.setattr(keys, "versions", lambda e=engine, v=version: {"torch": "2", e: v})
            found.add(part.key((32, 32), engine))
        assert len(found) == 2, engine
