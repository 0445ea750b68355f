"""The classification task: its loss by hand, its answers, its meter, its pictures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from retinue.errors import UsageError
from retinue.sample import Batch, Result, Sample
from retinue.tasks import captions
from retinue.tasks.classification import Classification, ClassificationOptions
from retinue.tasks.task import task_type

NAMES = ["lily", "rose", "tulip"]


def batch_of(labels: Tensor | None, n: int = 4, **more: Any) -> Batch:
    images = torch.zeros(n, 3, 4, 4, dtype=torch.uint8)
    paths = [f"{i}.jpg" for i in range(n)]
    return Batch(images, torch.arange(n), paths, labels=labels, **more)


def task(classes: list[str] = NAMES, **options: Any) -> Classification:
    return Classification(classes, ClassificationOptions(**options))


LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 3.0, 0.5], [0.1, 0.2, 0.3]])
LABELS = torch.tensor([0, 1, 2, 2])


def test_the_task_is_found_by_name() -> None:
    assert task_type("classification") is Classification
    with pytest.raises(UsageError, match="'classification'"):
        task_type("clasification")


def test_loss_by_hand() -> None:
    parts = task().loss({"logits": LOGITS}, batch_of(LABELS))
    assert list(parts) == ["cross_entropy"]
    assert parts["cross_entropy"].shape == (4,)
    expected = -(LOGITS.double().exp() / LOGITS.double().exp().sum(1, keepdim=True)).log()
    torch.testing.assert_close(parts["cross_entropy"], expected[torch.arange(4), LABELS].float())
    assert parts["cross_entropy"][1] == pytest.approx(np.log(3))


def test_soft_labels_of_one_class_equal_hard_ones() -> None:
    soft = F.one_hot(LABELS, 3).float()
    for options in ({}, {"label_smoothing": 0.1}, {"class_weights": [1.0, 2.0, 0.5]}):
        t = task(**options)
        hard = t.loss({"logits": LOGITS}, batch_of(LABELS))
        mixed = t.loss({"logits": LOGITS}, batch_of(soft))
        torch.testing.assert_close(hard["cross_entropy"], mixed["cross_entropy"])


def test_label_smoothing_by_hand() -> None:
    loss = task(label_smoothing=0.3).loss({"logits": LOGITS}, batch_of(LABELS))["cross_entropy"]
    target = 0.7 * F.one_hot(LABELS, 3) + 0.1
    torch.testing.assert_close(loss, -(target * LOGITS.log_softmax(1)).sum(1))


def test_class_weights_multiply_the_loss_of_their_class() -> None:
    plain = task().loss({"logits": LOGITS}, batch_of(LABELS))["cross_entropy"]
    loss = task(class_weights=[1.0, 2.0, 0.5]).loss({"logits": LOGITS}, batch_of(LABELS))
    torch.testing.assert_close(loss["cross_entropy"], plain * torch.tensor([1.0, 2.0, 0.5, 0.5]))


def test_balanced_weights_are_counted_from_the_training_split() -> None:
    t = task(class_weights="balanced")
    t.observe([Sample(f"{i}", label=label) for i, label in enumerate([0] * 6 + [1] * 2 + [2] * 4)])
    plain = task().loss({"logits": LOGITS}, batch_of(LABELS))["cross_entropy"]
    loss = t.loss({"logits": LOGITS}, batch_of(LABELS))["cross_entropy"]
    torch.testing.assert_close(loss, plain * torch.tensor([12 / 18, 12 / 6, 1.0, 1.0]))


def test_a_class_without_images_keeps_balanced_weights_finite() -> None:
    t = task(class_weights="balanced")
    t.observe([Sample("a", label=0), Sample("b", label=1)])
    assert torch.isfinite(t.loss({"logits": LOGITS}, batch_of(LABELS))["cross_entropy"]).all()


def test_auxiliary_heads_are_a_part_of_their_own() -> None:
    heads = torch.stack([LOGITS, 2 * LOGITS])
    parts = task().loss({"logits": LOGITS, "auxiliary": heads}, batch_of(LABELS))
    one = F.cross_entropy(LOGITS, LABELS, reduction="none")
    two = F.cross_entropy(2 * LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(parts["auxiliary"], 0.3 * (one + two))
    single = task().loss({"logits": LOGITS, "auxiliary": LOGITS}, batch_of(LABELS))
    torch.testing.assert_close(single["auxiliary"], 0.3 * one)


def test_running_accuracy_is_told_for_hard_and_soft_labels() -> None:
    for labels in (LABELS, F.one_hot(LABELS, 3) * 0.7 + 0.1):
        found = task().running({"logits": LOGITS}, batch_of(labels))
        assert found["top1"].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_bf16_logits_have_a_float32_loss() -> None:
    loss = task().loss({"logits": LOGITS.bfloat16()}, batch_of(LABELS))["cross_entropy"]
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("classes", [[], ["only"], ["a", "b", "a"]])
def test_too_few_or_doubled_classes_are_refused(classes: list[str]) -> None:
    with pytest.raises(UsageError):
        task(classes)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
def test_impossible_class_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="class_weights"):
        task(class_weights=weights)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        ClassificationOptions(label_smothing=0.1)  # type: ignore[call-arg]


def test_results_are_best_first_and_end_at_top_k() -> None:
    results = task(top_k=2).decode(LOGITS, batch_of(None))
    assert [r.path for r in results] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert [name for name, _ in results[0].classes] == ["lily", "tulip"]
    assert [name for name, _ in results[1].classes] == ["lily", "rose"]
    assert results[0].classes[0][1] == pytest.approx(float(LOGITS[0].softmax(0)[0]))
    assert len(task().decode(LOGITS, batch_of(None))[0].classes) == 3
    json.dumps(results[0].as_dict(), allow_nan=False)


def test_views_are_merged_by_mean_probability() -> None:
    other = torch.tensor([[0.0, 4.0, 0.0]] * 4)
    merged = task().merge_views([LOGITS, other])
    mean = (LOGITS.softmax(1) + other.softmax(1)) / 2
    torch.testing.assert_close(merged.exp(), mean)
    torch.testing.assert_close(merged.softmax(1), mean)
    torch.testing.assert_close(task().merge_views([LOGITS]).exp(), LOGITS.softmax(1))


def test_merging_extreme_views_stays_finite() -> None:
    views = [torch.tensor([[300.0, -300.0, 0.0]]), torch.tensor([[-300.0, 300.0, 0.0]])]
    assert torch.isfinite(task().merge_views(views)).all()


def test_the_meter_ignores_padding_and_dropped_rows() -> None:
    meter = task().meter()
    meter.update(LOGITS, batch_of(LABELS, weight=torch.tensor([1.0, 0.0, 1.0, 2.0])))
    found = meter.compute()
    assert found["images"] == 3
    assert found["top1"] == pytest.approx(2 / 3)
    assert meter.table()["path"].to_pylist() == ["0.jpg", "2.jpg", "3.jpg"]


def test_the_table_has_the_order_of_the_split_whatever_the_batches() -> None:
    meter = task().meter()
    late = batch_of(LABELS)
    late.index = torch.tensor([5, 4, 7, 6])
    meter.update(LOGITS, late)
    early = batch_of(None)
    early.paths = ["w", "x", "y", "z"]
    meter.update(LOGITS, early)
    table = meter.table()
    assert table.schema.names == ["path", "label", "scores"]
    assert [str(t) for t in table.schema.types[:2]] == ["string", "int32"]
    assert table["scores"].type.value_type == "float"
    expected = ["w", "x", "y", "z", "1.jpg", "0.jpg", "3.jpg", "2.jpg"]
    assert table["path"].to_pylist() == expected
    assert table["label"].to_pylist() == [-1, -1, -1, -1, 1, 0, 2, 2]
    assert table["scores"].to_pylist()[5] == pytest.approx(LOGITS[0].softmax(0).tolist())
    assert meter.compute()["images"] == 4  # those without a label are not judged


def test_an_empty_meter_has_null_figures_and_an_empty_table() -> None:
    meter = task().meter()
    assert json.loads(json.dumps(meter.compute(), allow_nan=False))["top1"] is None
    assert meter.table().num_rows == 0


def test_a_file_name_that_is_not_text_fits_into_the_table() -> None:
    meter = task().meter()
    batch = batch_of(LABELS)
    batch.paths[0] = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    meter.update(LOGITS, batch)
    assert meter.table()["path"].to_pylist()[0] == "caf\\udce9.jpg"


def test_soft_labels_are_judged_by_their_largest_share() -> None:
    meter = task().meter()
    meter.update(LOGITS, batch_of(F.one_hot(LABELS, 3) * 0.8 + 0.2 / 3))
    assert meter.table()["label"].to_pylist() == LABELS.tolist()


def test_drawing_changes_a_copy_at_the_top_only() -> None:
    image = np.full((200, 300, 3), 90, dtype=np.uint8)
    drawn = task().draw(image, Result("a", [("rose", 0.9), ("lily", 0.1)]))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == 90).all()
    assert drawn.max() > 200
    assert (drawn[100:] == 90).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (30, 30)])
def test_drawing_on_tiny_images_works(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    drawn = task().draw(image, Result("a", [("a rather long class name", 0.9)] * 3))
    assert drawn.shape == image.shape


@pytest.mark.parametrize("name", ["Löwenzahn", "одуванчик", "花", "دaن", "🌷", "a\nb\udce9"])
def test_names_of_any_script_are_drawn_and_differ(name: str) -> None:
    image = np.zeros((120, 400, 3), dtype=np.uint8)
    drawn = task().draw(image, Result("a", [(name, 0.5)]))
    other = task().draw(image, Result("a", [("", 0.5)]))
    assert (drawn != other).any()


def test_what_no_font_covers_is_written_as_its_code_point(monkeypatch: pytest.MonkeyPatch) -> None:
    dejavu = captions._font_files()[:1]
    monkeypatch.setattr(captions, "_font_files", lambda: dejavu)
    text, _ = captions._fit("花 rose é", 20, 1000)
    assert text == "\\u82b1 rose é"
    monkeypatch.setattr(captions, "_font_files", tuple)
    assert task().draw(np.zeros((50, 90, 3), np.uint8), Result("a", [("花", 1.0)])).max() > 200


def test_long_names_are_cut_with_an_ellipsis() -> None:
    text, font = captions._fit("tulip " * 50, 12, 100)
    assert text.endswith("…")
    assert font.getlength(text) <= 100
