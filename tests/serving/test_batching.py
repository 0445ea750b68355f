"""Images of several requests through one model: which go together, how long they wait, who is left
out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from retinue.serving.batching import Batcher
from retinue.serving.decoding import Prepared
from retinue.serving.problems import Problem

LATER = 10.0


def image(name: str) -> Prepared:
    return Prepared(name, np.zeros((2, 2, 3), np.uint8), np.eye(3), (2, 2))


class Model:
    """Answers with the names that it was shown, and notes them; while `held`, it is at work."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()

    def answer(self, images: Sequence[Prepared]) -> list[Any]:
        self.batches.append([one.name for one in images])
        self.begun.set()
        assert self.free.wait(10)
        return [
            Problem(500, "not_finite", "x") if one.name == "bad" else one.name.upper()
            for one in images
        ]


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher("test", size=3, latency=0.2, most=5)
    yield made
    made.close()


def until(seconds: float = LATER) -> float:
    return time.monotonic() + seconds


def hold(batcher: Batcher, model: Model) -> Any:
    """The model, busy with one image."""
    model.free.clear()
    model.begun.clear()
    first = batcher.submit(model, image("first"), until=until())
    assert model.begun.wait(5)
    return first


def test_a_lone_image_does_not_wait(batcher: Batcher) -> None:
    start = time.monotonic()
    assert batcher.submit(Model(), image("a"), until=until()).result(5) == "A"
    assert time.monotonic() - start < 0.15


def test_it_waits_for_those_that_are_being_decoded_and_no_longer_than_the_latency(
    batcher: Batcher,
) -> None:
    model = Model()
    with batcher.expected():
        start = time.monotonic()
        assert batcher.submit(model, image("a"), until=until()).result(5) == "A"
        assert 0.15 < time.monotonic() - start < 1
        first = batcher.submit(model, image("b"), until=until())
        second = batcher.submit(model, image("c"), until=until())
    assert (first.result(5), second.result(5)) == ("B", "C")
    assert model.batches[1:] == [["b", "c"]]


def test_what_came_meanwhile_goes_together_in_order_and_no_more_than_the_size(
    batcher: Batcher,
) -> None:
    model = Model()
    hold(batcher, model)
    futures = [batcher.submit(model, image(str(k)), until=until()) for k in range(5)]
    model.free.set()
    assert [f.result(5) for f in futures] == list("01234")
    assert model.batches == [["first"], ["0", "1", "2"], ["3", "4"]]


def test_images_of_two_versions_of_a_model_do_not_mix(batcher: Batcher) -> None:
    old, new = Model(), Model()
    hold(batcher, old)
    futures = [batcher.submit(m, image(str(k)), until=until()) for k, m in enumerate((old, new))]
    old.free.set()
    assert [f.result(5) for f in futures] == ["0", "1"]
    assert (old.batches, new.batches) == ([["first"], ["0"]], [["1"]])


def test_whoever_has_gone_is_not_answered_for(batcher: Batcher) -> None:
    model = Model()
    hold(batcher, model)
    gone = batcher.submit(model, image("gone"), until=until())
    here = batcher.submit(model, image("here"), until=until())
    assert gone.cancel()
    model.free.set()
    assert here.result(5) == "HERE"
    assert model.batches == [["first"], ["here"]]


def test_what_comes_too_late_is_said_and_not_done(batcher: Batcher) -> None:
    model = Model()
    hold(batcher, model)
    late = batcher.submit(model, image("late"), until=until(0.05))
    time.sleep(0.1)
    model.free.set()
    with pytest.raises(Problem, match="too busy") as told:
        late.result(5)
    assert told.value.status == 503
    assert "retry-after" in told.value.headers
    assert model.batches == [["first"]]


def test_one_problem_is_not_that_of_its_batch_mates(batcher: Batcher) -> None:
    model = Model()
    hold(batcher, model)
    futures = [batcher.submit(model, image(name), until=until()) for name in ("a", "bad", "b")]
    model.free.set()
    assert futures[0].result(5) == "A"
    assert futures[2].result(5) == "B"
    with pytest.raises(Problem):
        futures[1].result(5)


def test_room_is_bounded_and_comes_back(batcher: Batcher) -> None:
    with batcher.admitted(4):
        with pytest.raises(Problem) as told, batcher.admitted(2):
            pass
        assert told.value.status == 429
        assert int(told.value.headers["retry-after"]) >= 1
        with batcher.admitted(1), pytest.raises(Problem):
            batcher.refuse_full()
    assert batcher.pending == 0
    with batcher.admitted(50):  # one request is taken, however many it brings
        pass


def test_a_call_runs_between_batches_in_the_same_thread(batcher: Batcher) -> None:
    model = Model()
    assert batcher.call(threading.get_ident, until=until()).result(5) == batcher._thread.ident
    hold(batcher, model)
    call = batcher.call(lambda: 1 / 0, until=until())
    model.free.set()
    with pytest.raises(ZeroDivisionError):
        call.result(5)


def test_calls_and_batches_take_turns(batcher: Batcher) -> None:
    """Neither many explanations nor many images keep the others waiting until they are done."""
    model = Model()
    hold(batcher, model)

    def noted(name: str) -> Any:
        return batcher.call(lambda: model.batches.append([name]), until=until())

    calls = [noted("call") for _ in range(3)]
    images = [batcher.submit(model, image(str(k)), until=until()) for k in range(6)]
    model.free.set()
    for one in (*calls, *images):
        one.result(5)
    assert model.batches[1:] == [
        ["call"], ["0", "1", "2"], ["call"], ["3", "4", "5"], ["call"]
    ]  # fmt: skip


def test_a_call_that_comes_too_late_is_said_and_not_done(batcher: Batcher) -> None:
    model, done = Model(), threading.Event()
    hold(batcher, model)
    late = batcher.call(done.set, until=until(0.05))
    time.sleep(0.1)
    model.free.set()
    with pytest.raises(Problem, match="too busy"):
        late.result(5)
    assert not done.is_set()


def test_closing_answers_what_is_there_and_takes_nothing_more() -> None:
    batcher, model = Batcher("test", size=1, latency=0, most=9), Model()
    hold(batcher, model)
    futures = [batcher.submit(model, image(str(k)), until=until()) for k in range(3)]
    model.free.set()
    batcher.close()
    assert [f.result(0) for f in futures] == ["0", "1", "2"]
    with pytest.raises(Problem):
        batcher.submit(model, image("x"), until=until())
