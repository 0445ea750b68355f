"""Samples held by columns are what a list of samples is, and are counted without being made."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from retinue.data.on_demand import Repeated
from retinue.data.population import Population
from retinue.data.samples import Samples
from retinue.data.sources.member import Member, Members
from retinue.data.sources.records import as_names
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.sample import Sample, Target

TARGETS: dict[str, list[Target]] = {
    "one class": [OneClass(2, 3), OneClass(0, 3), OneClass(1, 3)],
    "several": [SeveralLabels((1, 0)), SeveralLabels(()), SeveralLabels((2,))],
}


@pytest.fixture(params=TARGETS)
def samples(request: pytest.FixtureRequest) -> Samples:
    return Samples(
        as_names(["é/1.png", "b.png", "c \udcff.png", "d.png", "e.png"]),
        TARGETS[request.param],
        np.array([0, 2, 0, -1, 2]),
        root="/data",
        files=as_names(["e\u0301/1.png", "b.png", "c \udcff.png", None, "/x/e.png"]),
        weight=np.array([1, 0.5, 2, 0, 1]),
        shard=["s2", "s1", "s2", "s1", "s1"],
    )


def test_a_sequence_of_samples(samples: Samples) -> None:
    first = Sample("/data/e\u0301/1.png", None, samples.targets[0], 1.0, "é/1.png", "s2")
    assert samples[0] == first
    assert samples[-1].key == "/x/e.png"
    assert samples[3] == Sample("d.png", None, None, 0.0, "d.png", "s1")
    assert samples[2].key == "/data/c \udcff.png"
    assert len(samples) == 5
    assert samples[1:4] == [samples[1], samples[2], samples[3]]
    assert samples[::-2] == [samples[4], samples[2], samples[0]]
    assert list(samples) == [samples[k] for k in range(5)]
    assert samples == list(samples)
    with pytest.raises(IndexError):
        samples[5]


def test_a_sample_stays_the_same_object(samples: Samples) -> None:
    assert samples[2] is samples[2]
    assert samples[2] is samples[-3] is samples[1:][1] is list(samples)[2]


def test_of_shards_only_those_stay_that_somebody_has() -> None:
    code = np.zeros(3, np.int32)
    members = Members(
        Repeated(["s"], code), np.arange(3), np.arange(3), np.arange(3, dtype=np.uint32)
    )
    names = as_names(["a", "b", "c"])
    samples = Samples(names, TARGETS["one class"], np.arange(3), read=members, shard=members.files)
    first = samples[0]
    assert samples[:2][0] is first
    assert next(iter(samples)) is first
    gone = weakref.ref(samples[1])
    gc.collect()
    assert gone() is None
    assert samples[1].read == Member("s", 1, 1, 1)


def test_a_population_of_columns_is_that_of_the_samples(samples: Samples) -> None:
    ours, plain = Population.of_samples(samples), Population.of_samples(list(samples))
    for name in ("stratum", "weight", "shard", "shown"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))
