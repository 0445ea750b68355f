"""What cached features lose by what they are kept as: no more than is said, and that is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retinue.training.features.dtypes import LIMITS, Fields, Loss, finer, storage
from retinue.training.options import CacheDtype

CPU = torch.device("cpu")
KINDS: tuple[CacheDtype, ...] = ("float32", "float16", "int8")


def _there_and_back(dtype: CacheDtype, rows: torch.Tensor) -> tuple[Fields, Loss, torch.Tensor]:
    kind = storage(dtype, rows.shape[1:])
    fields, loss = kind.keep("x", rows)
    for name, of, shape in kind.fields("x", rows.shape[1:]):
        assert fields[name].dtype == of
        assert fields[name].shape == (len(rows), *shape)
    assert len(fields) == len(kind.fields("x", rows.shape[1:]))
    back = kind.back("x", fields, CPU)
    assert back.shape == rows.shape
    assert back.dtype == torch.float32
    return fields, loss, back


def _row(*channels: list[float]) -> torch.Tensor:
    """(1, 1, positions, channels)."""
    return torch.tensor(channels).T[None, None]


def test_steps_of_a_whole_number_by_hand() -> None:
    """Channels from −1 to 254, which are 255 steps of 1, and from 0 to 127.5, which are of ½."""
    rows = _row([-1.0, 254.0, 0.4, 0.6, 100.0, 7.0], [0.0, 127.5, 0.2, 0.3, 0.5, 0.0])
    fields, loss, back = _there_and_back("int8", rows)
    assert fields["x"][0, 0, :, 0].tolist() == [0, 255, 1, 2, 101, 8]
    assert fields["x"][0, 0, :, 1].tolist() == [0, 255, 0, 1, 1, 0]
    assert fields["x.offset"].tolist() == [[-1.0, 0.0]]
    assert fields["x.step"].tolist() == [[1.0, 0.5]]
    assert torch.equal(
        back, _row([-1.0, 254.0, 0.0, 1.0, 100.0, 7.0], [0.0, 127.5, 0.0, 0.5, 0.5, 0.0])
    )
    assert loss.bound.tolist() == [0.5]
    lost = (0.4**2 + 0.4**2 + 0.2**2 + 0.2**2) ** 0.5
    size = (1 + 254**2 + 0.4**2 + 0.6**2 + 100**2 + 49 + 127.5**2 + 0.04 + 0.09 + 0.25) ** 0.5
    assert loss.relative.item() == pytest.approx(lost / size, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 0.1, 1000.3, -1e-7])
def test_a_channel_of_one_value(value: float) -> None:
    """What float16 has is exact; else the range goes down to the next value that it has."""
    rows = torch.full((2, 3, 3, 1), value)
    _, loss, back = _there_and_back("int8", rows)
    assert (back - rows).abs().max() <= loss.bound.max()
    if np.float16(value) == np.float32(value):
        assert torch.equal(back, rows)
        assert loss.relative.tolist() == loss.bound.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.filterwarnings("error")
def test_the_largest_values_of_float16(dtype: CacheDtype) -> None:
    """What that loses is a number, or the run could not write it down."""
    rows = torch.linspace(-65504, 65504, 49).reshape(1, 7, 7, 1)
    _, loss, back = _there_and_back(dtype, rows)
    assert (back - rows).abs().max() <= loss.bound[0] < 300
    assert loss.relative[0] <= LIMITS[dtype]


def test_every_image_and_channel_has_a_range_of_its_own() -> None:
    """A thousand times another's values cost it nothing."""
    torch.manual_seed(0)
    small = torch.randn(1, 7, 7, 1)
    _, alone, back = _there_and_back("int8", small)
    rows = torch.cat([torch.cat([small, 1000 * small], 3), torch.cat([500 * small, small], 3)])
    _, loss, both = _there_and_back("int8", rows)
    assert torch.equal(both[0, ..., 0], back[0, ..., 0])
    assert torch.equal(both[1, ..., 1], back[0, ..., 0])
    assert loss.bound[0] > 900 * alone.bound[0] > 1.5 * loss.bound[1]


def _half_a_step(rows: torch.Tensor) -> npt.NDArray[np.float64]:
    """(n, channels) half of a 255th of each channel's range, that of offset and step rounded to
    float16 (11 bits each) added."""
    values = rows.reshape(len(rows), -1, rows.shape[-1]).double()
    low, high = values.amin(1), values.amax(1)
    widened = (high - low) + low.abs() * 2**-10 + 255 * 2**-24 + 2**-24
    return (widened * (1 + 2**-10) / 255 / 2 + 2**-25).numpy()


CLOSE = np.float32(
    [100, 100.0016785, 100.0003357, 100.00103, 100.0008087, 100.002655, 100.0000458, 100.0001755,
     100.0009995]
).reshape(1, 3, 3, 1)  # fmt: skip
"""Of steps about as small as float32's, one of which lies beyond half a step."""


def test_float32_may_round_by_more_than_half_a_step() -> None:
    fields, loss, back = _there_and_back("int8", torch.from_numpy(CLOSE))
    away = float((back.double() - torch.from_numpy(CLOSE).double()).abs().max())
    half = float(fields["x.step"].max()) / 2
    assert 1.2 * half < away <= loss.bound.item() < 2 * half


FINITE = st.floats(-60000, 60000, width=32)
SMALL = st.floats(-2, 2, width=32)
NEAR = st.floats(100, 100.0078125, width=32)


@settings(max_examples=150, deadline=None)
@example(CLOSE)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 4), st.integers(1, 3)).flatmap(
        lambda shape: st.one_of(
            arrays(np.float32, shape, elements=st.one_of(FINITE, SMALL)),
            arrays(np.float32, shape, elements=NEAR),
        )
    )
)
def test_no_value_is_further_away_than_is_said(array: npt.NDArray[np.float32]) -> None:
    rows = torch.from_numpy(array)
    rounding = np.abs(array).max((1, 2, 3), initial=0) * 2.0**-21
    for dtype in KINDS:
        fields, loss, back = _there_and_back(dtype, rows)
        away = (back.double() - rows.double()).abs().numpy()
        assert (away.max((1, 2, 3)) <= loss.bound.double().numpy()).all(), dtype
        size = np.sqrt((array.astype(np.float64) ** 2).sum((1, 2, 3)))
        lost = np.sqrt((away**2).sum((1, 2, 3)))
        assert np.allclose(loss.relative.numpy() * size, lost, rtol=1e-3, atol=0), dtype
        if dtype == "float32":
            assert torch.equal(back, rows)
        if len(fields) > 1:  # not of the smallest maps
            most = _half_a_step(rows)[:, None, None] + rounding[:, None, None, None]
            assert (away <= most).all()


@pytest.mark.parametrize(("side", "most"), [(7, 0.0195), (14, 0.0390)])
def test_the_worst_map_of_all_loses_what_its_size_tells(side: int, most: float) -> None:
    """A single spike a channel, and the rest half a step beside what can be told."""
    rows = torch.full((1, side, side, 3), 0.5)
    rows[0, 0, 0], rows[0, 0, 1] = 255.0, 0.0
    _, loss, _ = _there_and_back("int8", rows)
    assert 0.3 * most < loss.relative.item() * 2**0.5 < most
    assert most == pytest.approx((2 * side**2) ** 0.5 / 510, rel=0.02)


@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 8), (2, 2, 8), (4, 8)])
def test_what_would_not_be_smaller_stays_in_float16(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    fields, _, _ = _there_and_back("int8", torch.randn(3, *shape))
    assert [value.dtype for value in fields.values()] == [np.float16]


@pytest.mark.parametrize("shape", [(5, 8), (197, 8), (1, 5, 8), (3, 2, 8), (7, 7, 320)])
def test_int8_takes_less_than_float16(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, *shape)
    ours, _, _ = _there_and_back("int8", rows)
    theirs, _, _ = _there_and_back("float16", rows)
    assert ours["x"].dtype == np.uint8
    assert sum(v.nbytes for v in ours.values()) < theirs["x"].nbytes


def _lost(dtype: CacheDtype, rows: torch.Tensor) -> list[float]:
    loss = storage(dtype, rows.shape[1:]).keep("x", rows)[1]
    return [float(value) for value in loss.relative]


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float16", 1e5), ("float16", 1e38), ("int8", 1e8), ("int8", 1e38)]
)
def test_what_is_out_of_range_is_never_within_the_limit(dtype: CacheDtype, scale: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 7, 7, 4).clamp(-3, 3)
    rows[1] = rows[1].abs() * scale
    sound, beyond = _lost(dtype, rows)
    assert sound <= LIMITS[dtype]
    assert not beyond <= LIMITS[dtype]


@pytest.mark.parametrize("scale", [1e-7, 1e-27, 1e-40])
def test_values_too_small_for_float16_are_not_within_its_limit(scale: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(1, 7, 7, 4) * scale
    assert not _lost("float16", rows)[0] <= LIMITS["float16"]
    assert not _lost("int8", rows)[0] <= LIMITS["int8"]
    assert _lost("float32", rows) == [0.0]


def test_features_as_networks_have_them_are_within_the_limits() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4, 14, 14, 32)
    for each in (rows, rows.relu(), torch.nn.functional.silu(rows), rows + 5):
        assert max(_lost("int8", each)) < 0.008
        assert max(_lost("float16", each)) < 5e-4


def test_the_kinds_become_finer() -> None:
    assert finer("int8") == "float16"
    assert finer("float16") == "float32"
    with pytest.raises(KeyError):
        finer("float32")


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields["x"].__setitem__((0, 0, 1, 0), 9),
        lambda fields: fields["x.step"].__setitem__((0, 0), 2),
        lambda fields: fields["x.offset"].__setitem__((0, 0), 3),
    ],
)
def test_each_of_the_arrays_counts(damage: Any) -> None:
    rows = _row([-1.0, 254.0, 0.4, 0.6, 100.0])
    fields, loss, _ = _there_and_back("int8", rows)
    damage(fields)
    back = storage("int8", rows.shape[1:]).back("x", fields, CPU)
    assert (back - rows).abs().max() > loss.bound.max()
