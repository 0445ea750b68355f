"""What a classifier's answers come to: figures, tables, and the temperature."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from flowers import LABELS, LOGITS, batch_of, findings, samples, task
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from retinue.data.targets.one_class import OneClass
from retinue.evaluation.classification import confusion_of, figures
from retinue.sample import Target
from retinue.tasks.classification import meter as module
from retinue.tasks.classification.meter import ClassificationMeter
from retinue.tasks.classification.task import Classification


def filled(
    labels: list[Target | int | None], logits: Tensor = LOGITS, of: Classification | None = None
) -> ClassificationMeter:
    of = of or task()
    meter = of.meter()
    meter.update(findings(logits, of), samples(labels))
    return meter


def test_figures_are_those_of_the_probabilities() -> None:
    found = filled(LABELS.tolist()).compute()
    expected = figures(LABELS.numpy(), LOGITS.softmax(1).numpy(), ["lily", "rose", "tulip"])
    assert found["images"] == 4
    assert found["top1"] == 0.5
    assert found["loss"] == pytest.approx(expected["loss"])
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_every_declared_figure_is_computed(classes: int, top_k: int) -> None:
    names = [f"class {k}" for k in range(classes)]
    of = task(names, top_k=top_k)
    logits = torch.randn(6, classes, generator=torch.Generator().manual_seed(0))
    meter = of.meter()
    meter.update(
        of.decode(logits, batch_of(6)), samples([OneClass(k % 2, classes) for k in range(6)])
    )
    found = meter.compute()
    declared = [figure.name for figure in of.figures()]
    assert set(declared) <= set(found)
    assert declared[0] == of.default_metric
    told = [figure.name for figure in of.figures_among(list(found), names)]
    assert told == declared


def test_images_without_a_label_are_in_the_table_only() -> None:
    meter = filled([0, None, 2, 2])
    found = meter.compute()
    assert found["images"] == 3
    assert found["top1"] == pytest.approx(2 / 3)
    assert meter.tables()["predictions"]["label"].to_pylist() == [0, -1, 2, 2]


def test_the_table_has_a_row_an_image_whatever_the_batches() -> None:
    of = task()
    meter = of.meter()
    found = findings()
    meter.update(found[:1], samples([0], ["w"]))
    meter.update([], [])
    meter.update(found[1:], samples([None, 2, 1], ["x", "y", "z"]))
    tables = meter.tables()
    assert tables.keys() == {"predictions", "confusion"}
    table = tables["predictions"]
    assert table.schema.names == ["path", "label", "scores"]
    assert [str(t) for t in table.schema.types[:2]] == ["string", "int32"]
    assert table["scores"].type.value_type == "float"
    assert table["path"].to_pylist() == ["w", "x", "y", "z"]
    assert table["label"].to_pylist() == [0, -1, 2, 1]
    for row, logits in zip(table["scores"].to_pylist(), LOGITS, strict=True):
        assert row == pytest.approx(logits.softmax(0).tolist())
    assert meter.compute()["images"] == 3  # those without a label are not judged
    # Of rose there is one, taken for a tulip; 2 as 1, 0 as 0.
    confusion = tables["confusion"]
    assert confusion["true"].to_pylist() == [0, 1, 2]
    assert confusion["predicted"].to_pylist() == [0, 2, 1]
    assert confusion["count"].to_pylist() == [1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted), seed=st.integers(0, 99))
def test_meters_of_several_processes_are_one(cuts: list[int], seed: int) -> None:
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    labels: list[Any] = [*[k % 3 for k in range(10)], None, OneClass(1, 3, (0.2, 0.5, 0.3))]
    whole = filled(labels, logits)
    merged = task().meter()
    for start, end in zip([0, *cuts], [*cuts, 12], strict=True):
        part = task().meter()
        all_of_it = samples(labels)
        part.update(findings(logits)[start:end], all_of_it[start:end])
        merged.extend(pickle.loads(pickle.dumps(part.rows())))
    assert merged.compute() == whole.compute()
    for name, table in whole.tables().items():
        assert merged.tables()[name].equals(table)


def test_an_empty_meter_has_null_figures_and_an_empty_table() -> None:
    meter = task().meter()
    assert json.loads(json.dumps(meter.compute(), allow_nan=False))["top1"] is None
    assert meter.tables()["predictions"].num_rows == 0
    assert meter.tables()["confusion"].num_rows == 0
    assert meter.calibrate() == 1.0


def test_a_file_name_that_is_not_text_fits_into_the_table() -> None:
    meter = task().meter()
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    meter.update(findings(LOGITS[:1]), samples([0], [name]))
    assert meter.tables()["predictions"]["path"].to_pylist()[0] == "caf\\udce9.jpg"


def test_soft_labels_are_judged_by_their_largest_share() -> None:
    rows = (F.one_hot(LABELS, 3) * 0.8 + 0.2 / 3).tolist()
    soft = [OneClass(int(np.argmax(row)), 3, tuple(row)) for row in rows]
    assert filled(soft).tables()["predictions"]["label"].to_pylist() == LABELS.tolist()


# The temperature


def losses_at(temperatures: Any, logits: Tensor, labels: Tensor) -> Any:
    """Mean loss of the logits divided by each."""
    scaled = logits.double() / torch.tensor(temperatures)[:, None, None]
    own = scaled.log_softmax(2)[:, torch.arange(len(labels)), labels]
    return -own.mean(1).numpy()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.3, 1.0, 4.0]),
    skill=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_the_temperature_makes_the_labels_most_likely(
    seed: int, sharpness: float, skill: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (60,), generator=generator)
    logits = torch.randn(60, 3, generator=generator) + skill * F.one_hot(labels, 3)
    logits = logits * sharpness
    meter = filled(labels.tolist(), logits)
    temperature = meter.calibrate()
    grid = np.geomspace(0.05, 20, 2001)
    losses = losses_at(grid, logits, labels)
    best = int(np.argmin(losses))
    assert grid[max(best - 1, 0)] <= temperature <= grid[min(best + 1, 2000)]
    assert losses_at([temperature], logits, labels)[0] <= losses[best] + 2e-9
    # From here on, the meter says what the temperature makes of the answers.
    scaled = (logits / temperature).softmax(1).numpy()
    expected = figures(labels.numpy(), scaled, ["lily", "rose", "tulip"])
    found = meter.compute()
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["ece"] == pytest.approx(expected["ece"], abs=0.02)  # a bin's edge
    assert found["top1"] == expected["top1"]
    scores = np.array(meter.tables()["predictions"]["scores"].to_pylist())
    np.testing.assert_allclose(scores, scaled, atol=1e-5)
    # Once is enough.
    assert meter.calibrate(temperature) == pytest.approx(temperature, rel=1e-3)
    assert meter.compute()["loss"] == pytest.approx(found["loss"], rel=1e-4)


def test_images_without_a_label_do_not_fit_but_are_rescaled() -> None:
    logits = torch.cat([4 * LOGITS, torch.tensor([[9.0, 0.0, 0.0]])])
    labels: list[Any] = [0, 1, 2, 2]
    meter, other = filled([*labels, None], logits), filled(labels, logits[:4])
    temperature = meter.calibrate()
    assert temperature == other.calibrate() != 1.0
    last = meter.tables()["predictions"]["scores"].to_pylist()[-1]
    assert last == pytest.approx((logits[-1] / temperature).softmax(0).tolist(), abs=1e-6)


def test_a_temperature_that_changes_nothing_is_1() -> None:
    assert filled([None] * 4).calibrate() == 1.0
    assert filled([0, 1, 2, 0], torch.zeros(4, 3)).calibrate() == 1.0
    assert filled([0, 1, 2, 0], torch.zeros(4, 3)).calibrate(3.5) == 3.5


def test_the_temperature_stays_within_bounds() -> None:
    """Always right: the colder the better; always wrong: the hotter."""
    logits = 0.3 * torch.eye(3)
    assert filled([0, 1, 2], logits).calibrate() == pytest.approx(0.05, rel=1e-3)
    assert filled([1, 2, 0], logits).calibrate() == pytest.approx(20, rel=1e-3)
    # However often it is fitted: a temperature that runs away takes the answers with it.
    fits = task(calibration="temperature")
    for _ in range(4):
        fits.fit(filled([1, 2, 0], logits, fits))
    assert fits.fitted()["temperature"] == pytest.approx(20, rel=1e-3)
    for _ in range(2):
        fits.fit(filled([0, 1, 2], logits, fits))
    assert fits.fitted()["temperature"] == pytest.approx(0.05, rel=1e-3)


def test_some_of_many_images_tell_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly: a folder has its classes one after the other. All are rescaled."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(400)
    logits = 4 * torch.randn(1200, 3, generator=generator) + 4 * F.one_hot(labels, 3)
    whole = filled(labels.tolist(), logits).calibrate()
    monkeypatch.setattr(module, "FITTED_ON", 300)
    some = filled(labels.tolist(), logits)
    temperature = some.calibrate()
    assert temperature == pytest.approx(whole, rel=0.2)
    assert temperature != whole
    scores = np.array(some.tables()["predictions"]["scores"].to_pylist())
    np.testing.assert_allclose(scores, (logits / temperature).softmax(1), atol=1e-5)


def test_known_temperatures() -> None:
    """By hand: of two classes, half of the answers right are a coin's; three of four right ask for
    logits that are log 3 apart."""
    two = torch.tensor([[2.0, -2.0]] * 4)
    of = task(["a", "b"])
    assert filled([0, 0, 1, 1], two, of).calibrate() == pytest.approx(20, rel=1e-3)
    expected = 4 / np.log(3)
    assert filled([0, 0, 0, 1], two, of).calibrate() == pytest.approx(expected, rel=1e-5)
    # What is impossible stays so, and disturbs nothing.
    three = torch.cat([two, torch.full((4, 1), -torch.inf)], 1)
    assert filled([0, 0, 0, 1], three).calibrate() == pytest.approx(expected, rel=1e-5)


def test_answers_that_are_no_numbers_have_no_temperature() -> None:
    assert filled([0, 1, 2, 0], torch.full((4, 3), torch.nan)).calibrate(2.0) == 2.0


# A cautious fit


def drawn(n: int, seed: int, sharpness: float = 1.0, skill: float = 2.0) -> tuple[Tensor, Tensor]:
    """Labels and logits that are right about themselves, times `sharpness`: what tells the three
    classes apart has unit spread, so that the exact logit is `skill` times what is seen."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    seen = torch.randn(n, 3, generator=generator) + skill * F.one_hot(labels, 3)
    return labels, sharpness * skill * seen


def cautiously(labels: Tensor, logits: Tensor) -> float:
    return filled(labels.tolist(), logits).calibrate(cautious=True)


@pytest.mark.parametrize("n", [2, 5, 20, 100])
def test_a_cautious_fit_does_no_harm_where_all_is_well(n: int) -> None:
    """On new images, over 60 validation splits of a network that is right about itself."""
    new_labels, new_logits = drawn(4000, 999)
    plain = losses_at([1.0], new_logits, new_labels)[0]
    found = [cautiously(*drawn(n, seed)) for seed in range(60)]
    assert sum(one != 1.0 for one in found) <= 9
    harm = losses_at(found, new_logits, new_labels) - plain
    assert harm.mean() < 0.005
    assert harm.max() < 0.15
    plunges = losses_at(
        [filled(*_listed(drawn(n, seed))).calibrate() for seed in range(60)],
        new_logits,
        new_labels,
    )
    assert harm.mean() < 0.5 * (plunges - plain).mean(), "than one that is not"


def _listed(pair: tuple[Tensor, Tensor]) -> tuple[list[Any], Tensor]:
    return pair[0].tolist(), pair[1]


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_a_cautious_fit_helps_where_much_is_wrong(sharpness: float) -> None:
    new_labels, new_logits = drawn(4000, 999, sharpness)
    before, best = losses_at([1.0, sharpness], new_logits, new_labels)
    for seed in range(20):
        found = cautiously(*drawn(150, seed, sharpness))
        after = losses_at([found], new_logits, new_labels)[0]
        assert before - after > 0.8 * (before - best)


def test_a_few_images_that_were_all_recognised_prove_no_certainty() -> None:
    """The plain fit goes to its bound, whence one mistake in a thousand costs the most."""
    labels = torch.arange(3).repeat(4)
    logits = 1.5 * F.one_hot(labels, 3)
    assert filled(labels.tolist(), logits).calibrate() == pytest.approx(0.05, rel=1e-3)
    assert cautiously(labels, logits) > 0.5


def test_a_cautious_fit_starts_anew_each_time() -> None:
    """What was divided by an older temperature is fitted as if it had not been, and left so: the
    figures of two epochs compare, whether or not they took one."""
    labels, logits = drawn(200, 0, 3.0)
    once = filled(labels.tolist(), logits)
    expected = once.calibrate(cautious=True)
    again = filled(labels.tolist(), logits / 2.5)
    assert again.calibrate(2.5, cautious=True) == pytest.approx(expected, rel=1e-4)
    raw = filled(labels.tolist(), logits).compute()["loss"]
    assert again.compute()["loss"] == pytest.approx(raw, rel=1e-4)
    assert once.compute()["loss"] == raw
    fine_labels, fine = drawn(200, 1)
    back = filled(fine_labels.tolist(), fine / 2.5)
    assert back.calibrate(2.5, cautious=True) == 1.0
    plain = filled(fine_labels.tolist(), fine).compute()["loss"]
    assert back.compute()["loss"] == pytest.approx(plain, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), n=st.integers(1, 40), sharpness=st.sampled_from([0.01, 0.3, 1, 9, 99])
)
def test_a_cautious_fit_is_bounded_helps_here_and_changes_no_answer(
    seed: int, n: int, sharpness: float
) -> None:
    labels, logits = drawn(n, seed, sharpness)
    found = cautiously(labels, logits)
    assert 0.05 * 0.999 <= found <= 20.001
    before, after = losses_at([1.0, found], logits, labels)
    assert found == 1.0 or n * (before - after) > 1.9
    of = Classification(["a", "b", "c"], None, {"temperature": found})
    best = [int(one.argmax()) for one in findings(logits, of)]
    assert best == logits.argmax(1).tolist()


def test_a_cautious_fit_takes_nothing_from_what_is_no_number() -> None:
    assert cautiously(LABELS, torch.full((4, 3), torch.nan)) == 1.0
    assert filled([None] * 4).calibrate(cautious=True) == 1.0
    assert filled([None] * 4).calibrate(2.0, cautious=True) == 1.0
    impossible = torch.cat([drawn(200, 0, 3.0)[1], torch.full((200, 1), -torch.inf)], 1)
    expected = cautiously(*drawn(200, 0, 3.0))
    four = filled(drawn(200, 0)[0].tolist(), impossible, task(["lily", "rose", "tulip", "yew"]))
    assert four.calibrate(cautious=True) == pytest.approx(expected, rel=1e-4)


def test_by_default_a_task_fits_cautiously() -> None:
    labels, logits = drawn(200, 0, 3.0)
    fits = task()
    chosen = fits.fit(filled(labels.tolist(), logits, fits))
    assert chosen["temperature"] == pytest.approx(cautiously(labels, logits))
    # The next epoch needs none: it is gone from the state, too.
    fine_labels, fine = drawn(200, 1)
    assert fits.fit(filled(fine_labels.tolist(), fine, fits)) == fits.state() == {}
    never = task(calibration="none")
    assert never.fit(filled(labels.tolist(), logits, never)) == never.state() == {}


def test_the_confusion_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def count(*arguments: Any) -> Any:
        counted.append(arguments)
        return confusion_of(*arguments)

    monkeypatch.setattr(module, "confusion_of", count)
    monkeypatch.setattr("retinue.evaluation.classification.confusion_of", count)
    meter = filled(LABELS.tolist())
    found, table = meter.compute(), meter.tables()["confusion"]
    assert len(counted) == 1
    assert sum(table["count"].to_pylist()) == 4
    meter.extend(filled([0, 0, 0, 0]).rows())  # what comes in is counted anew
    assert sum(meter.tables()["confusion"]["count"].to_pylist()) == 8
    assert meter.compute()["per_class"] != found["per_class"]
    assert len(counted) == 2


def test_a_task_keeps_its_temperature() -> None:
    labels: list[Any] = [0, 1, 1, 0]
    plain = task()
    assert plain.fit(filled(labels)) == {}
    assert plain.state() == plain.fitted() == {}
    fits = task(calibration="temperature")
    meter = filled(labels, 6 * LOGITS)
    chosen = fits.fit(meter)
    assert chosen.keys() == {"temperature"}
    assert chosen == fits.fitted() == fits.state()
    temperature = chosen["temperature"]
    assert temperature > 1.5
    again = type(fits)(fits.classes, fits.options, json.loads(json.dumps(fits.state())))
    assert again.state() == fits.state()
    expected = (6 * LOGITS / temperature).log_softmax(1)
    for one in (fits, again):
        torch.testing.assert_close(
            torch.from_numpy(np.stack(one.decode(6 * LOGITS, batch_of(4)))), expected
        )
    # What it says from now on is judged as the meter judged it.
    judged = filled(labels, 6 * LOGITS, again)
    assert judged.compute()["loss"] == pytest.approx(meter.compute()["loss"], rel=1e-5)
    # Fitted again on what is scaled already, it stays.
    assert again.fit(judged)["temperature"] == pytest.approx(temperature, rel=1e-3)
