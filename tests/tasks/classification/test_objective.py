"""What a classifier learns by: each part by hand, and labels of every kind alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from flowers import LABELS, LOGITS, samples, task
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.sample import Sample
from retinue.tasks.classification.objective import ClassificationObjective
from retinue.tasks.classification.task import Classification, ClassificationOptions

NETWORK = Network.__new__(Network)
"""The classifier's objective asks nothing of it."""


def parts(
    outputs: dict[str, Tensor], label: Tensor, taught: Tensor | None = None, **options: Any
) -> dict[str, Tensor]:
    found = task(**options).objective(NETWORK)(outputs, {"label": label}, taught).parts
    assert all(isinstance(part, Tensor) for part in found.values())
    return found


def cross_entropy(label: Tensor, **options: Any) -> Tensor:
    return parts({"logits": LOGITS}, label, **options)["cross_entropy"]


def test_loss_by_hand() -> None:
    found = parts({"logits": LOGITS}, LABELS)
    assert list(found) == ["cross_entropy"]
    assert found["cross_entropy"].shape == (4,)
    expected = -(LOGITS.double().exp() / LOGITS.double().exp().sum(1, keepdim=True)).log()
    torch.testing.assert_close(found["cross_entropy"], expected[torch.arange(4), LABELS].float())
    assert found["cross_entropy"][1] == pytest.approx(np.log(3))


def test_soft_labels_of_one_class_equal_hard_ones() -> None:
    soft = F.one_hot(LABELS, 3).float()
    for options in ({}, {"label_smoothing": 0.1}, {"class_weights": [1.0, 2.0, 0.5]}):
        torch.testing.assert_close(cross_entropy(LABELS, **options), cross_entropy(soft, **options))


def test_label_smoothing_by_hand() -> None:
    target = 0.7 * F.one_hot(LABELS, 3) + 0.1
    torch.testing.assert_close(
        cross_entropy(LABELS, label_smoothing=0.3), -(target * LOGITS.log_softmax(1)).sum(1)
    )


def test_class_weights_multiply_the_loss_of_their_class() -> None:
    loss = cross_entropy(LABELS, class_weights=[1.0, 2.0, 0.5])
    torch.testing.assert_close(loss, cross_entropy(LABELS) * torch.tensor([1.0, 2.0, 0.5, 0.5]))


def test_class_weights_of_shares_by_hand() -> None:
    """Each share counts as much as its class does, as in the mixup of Zhang et al."""
    label = torch.tensor([[0.25, 0.75, 0.0]])
    logits, weights = LOGITS[:1], [1.0, 2.0, 0.5]
    found = parts({"logits": logits}, label, class_weights=weights)["cross_entropy"]
    log = logits.log_softmax(1)[0]
    assert found.item() == pytest.approx((-0.25 * log[0] - 2 * 0.75 * log[1]).item())


def balanced(labels: list[int]) -> Classification:
    options = ClassificationOptions(class_weights="balanced")
    return Classification.prepared(["lily", "rose", "tulip"], options, samples(labels))


def test_balanced_weights_are_counted_from_the_training_samples() -> None:
    prepared = balanced([0] * 6 + [1] * 2 + [2] * 4)
    plain, expected = cross_entropy(LABELS), torch.tensor([12 / 18, 12 / 6, 1.0, 1.0])
    again = type(prepared)(prepared.classes, prepared.options, prepared.state())
    for one in (prepared, again):
        loss = one.objective(NETWORK)({"logits": LOGITS}, {"label": LABELS}).parts
        torch.testing.assert_close(loss["cross_entropy"], plain * expected)


def test_a_class_without_images_keeps_balanced_weights_finite() -> None:
    loss = balanced([0, 1]).objective(NETWORK)({"logits": LOGITS}, {"label": LABELS}).parts
    assert torch.isfinite(loss["cross_entropy"]).all()


def test_balanced_weights_need_a_task_that_was_prepared() -> None:
    with pytest.raises(RuntimeError, match="prepared"):
        task(class_weights="balanced").objective(NETWORK)
    assert "class_weights" not in task().state()


def test_auxiliary_heads_are_a_part_of_their_own() -> None:
    heads = torch.stack([LOGITS, 2 * LOGITS])
    one = F.cross_entropy(LOGITS, LABELS, reduction="none")
    two = F.cross_entropy(2 * LOGITS, LABELS, reduction="none")
    several = parts({"logits": LOGITS, "auxiliary": heads}, LABELS)
    torch.testing.assert_close(several["auxiliary"], 0.3 * (one + two))
    single = parts({"logits": LOGITS, "auxiliary": LOGITS}, LABELS, auxiliary_weight=0.5)
    torch.testing.assert_close(single["auxiliary"], 0.5 * one)
    torch.testing.assert_close(single["cross_entropy"], one)


CENTRES = torch.tensor([[0.0, 0], [1, 2], [5, 5]])


def _near(label: Tensor, **more: Tensor) -> tuple[Tensor, ClassificationObjective, Tensor]:
    """The part of the distance to `CENTRES`, of features (3, 0) and (1, 1)."""
    objective = ClassificationObjective(centre_weight=0.25, centres=(3, 2))
    with torch.no_grad():
        objective.centres.copy_(CENTRES)
    feature = torch.tensor([[3.0, 0], [1, 1]], requires_grad=True)
    outputs = {"logits": torch.zeros(2, 3), "feature": feature}
    part = objective(outputs, {"label": label, **more}).parts["centre"]
    assert isinstance(part, Tensor)
    return part, objective, feature


def test_distance_to_the_centre_by_hand() -> None:
    part, objective, feature = _near(torch.tensor([0, 1]))
    assert part.tolist() == pytest.approx([0.25 * 9, 0.25 * 1])  # squared, without a half
    part.sum().backward()
    # d(0.25 |f − c|²)/df = 0.5 (f − c), and the other way round for the centres
    assert feature.grad is not None
    assert objective.centres.grad is not None
    assert feature.grad.tolist() == [[1.5, 0], [0, -0.5]]
    assert objective.centres.grad.tolist() == [[-1.5, 0], [0, 0.5], [0, 0]]


def test_distance_of_shared_labels_is_the_mean_by_their_shares() -> None:
    shares = torch.tensor([[0.5, 0, 0.5], [0, 0.25, 0.75]])
    by_hand = [0.25 * (9 + 29) / 2, 0.25 * (0.25 * 1 + 0.75 * 32)]
    assert _near(shares)[0].tolist() == pytest.approx(by_hand)
    both, _, _ = _near(
        torch.tensor([0, 1]), other=torch.tensor([2, 2]), share=torch.tensor([0.5, 0.25])
    )
    assert both.tolist() == pytest.approx(by_hand)


def test_centres_need_a_feature() -> None:
    task = Classification(["a", "b"], ClassificationOptions(centre_weight=0.25))
    with pytest.raises(
        UsageError, match=r"no feature.*task_options\.centre_weight.*model\.head=glu"
    ):
        task.objective(create_model("alexnet_half", num_classes=2))


def test_distillation_by_hand() -> None:
    """Hinton et al., 2015: T² times the divergence of the softened answers."""
    taught, t, share = torch.flip(LOGITS, [1]), 3.0, 0.25
    outputs = {"logits": LOGITS, "auxiliary": 2 * LOGITS}
    options = {"distillation_weight": share, "distillation_temperature": t}
    found = parts(outputs, LABELS, taught, **options)
    assert list(found) == ["cross_entropy", "auxiliary", "distillation"]
    p, q = (taught.double() / t).softmax(1), (LOGITS.double() / t).softmax(1)
    divergence = (p * (p / q).log()).sum(1) * t**2
    torch.testing.assert_close(found["distillation"], (share * divergence).float())
    plain = parts(outputs, LABELS)
    for name in ("cross_entropy", "auxiliary"):
        torch.testing.assert_close(found[name], (1 - share) * plain[name])
    # A teacher of the same opinion has nothing to teach.
    agreed = parts({"logits": LOGITS}, LABELS, LOGITS + 5, **options)
    torch.testing.assert_close(agreed["distillation"], torch.zeros(4), atol=1e-6, rtol=0)


def test_a_teacher_of_two_of_the_classes_is_followed_among_these() -> None:
    """Li & Hoiem, 2016: both answers are divided among the old classes alone."""
    own = Classification(["tulip", "daisy", "rose"], ClassificationOptions(distillation_weight=1.0))
    own.learn_from(Classification(["rose", "tulip"]), [])
    logits = torch.tensor([[1.0, 9.0, 3.0]], requires_grad=True)  # tulip 1, rose 3
    taught = torch.tensor([[5.0, 1.0]])  # rose 5, tulip 1
    found = own.objective(NETWORK)({"logits": logits}, {"label": torch.tensor([1])}, taught).parts
    p = 1 / (1 + math.exp(-(5 - 1) / 2))  # of the rose, at T = 2
    q = 1 / (1 + math.exp(-(3 - 1) / 2))
    divergence = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    told = found["distillation"]
    assert isinstance(told, Tensor)
    assert told.item() == pytest.approx(divergence, rel=1e-5)
    told.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0  # the new class is none of its business
    with pytest.raises(UsageError, match="knows 1 class that the data has not: iris"):
        own.learn_from(Classification(["rose", "iris"]), [])


def test_old_classes_without_images_are_not_taught_never_to_occur() -> None:
    """Cross entropy is over the others: of the first logit, 2-way, by hand; smoothing, weights and
    shares by those of two classes."""
    own = Classification(
        ["old", "new", "newer"], ClassificationOptions(distillation_weight=0.0, label_smoothing=0.2)
    )
    images = [Sample(str(k), target=OneClass(k, 3)) for k in (1, 2)]
    own.learn_from(Classification(["old", "new"]), images)
    logits = torch.tensor([[9.0, 2.0, 1.0]], requires_grad=True)
    made = own.objective(NETWORK)
    found = made({"logits": logits}, {"label": torch.tensor([2])}, torch.zeros(1, 2)).parts
    q = 1 / (1 + math.exp(2.0 - 1.0))  # of the newer one
    told = found["cross_entropy"]
    assert isinstance(told, Tensor)
    assert told.item() == pytest.approx(-(0.9 * math.log(q) + 0.1 * math.log(1 - q)), rel=1e-5)
    told.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    shares = torch.tensor([[0.0, 0.0, 1.0]])
    soft = made({"logits": logits}, {"label": shares}, torch.zeros(1, 2)).parts
    torch.testing.assert_close(soft["cross_entropy"], told)
    # With an image of the old class, it has its part.
    own.learn_from(Classification(["old", "new"]), [*images, Sample("o", target=OneClass(0, 3))])
    whole = own.objective(NETWORK)
    plain = whole({"logits": logits}, {"label": torch.tensor([2])}, torch.zeros(1, 2)).parts
    assert plain["cross_entropy"] > 5  # type: ignore[operator]


def test_distillation_alone_does_not_look_at_the_labels() -> None:
    taught = torch.flip(LOGITS, [0])
    found = [
        parts({"logits": LOGITS}, label, taught, distillation_weight=1.0)
        for label in (LABELS, LABELS.flip(0))
    ]
    for each in found:
        assert not each["cross_entropy"].any()
    torch.testing.assert_close(found[0]["distillation"], found[1]["distillation"])


def test_running_accuracy_is_told_for_labels_of_every_kind() -> None:
    objective = task().objective(NETWORK)
    soft = F.one_hot(LABELS, 3) * 0.7 + 0.1
    # Mixed: it is the larger share that counts, at a tie its own.
    share = torch.tensor([0.6, 0.5, 0.4, 0.2])
    mixed = {
        "label": torch.where(share >= 0.5, LABELS, 0),
        "other": torch.where(share >= 0.5, 1, LABELS),
        "share": share,
    }
    for targets in ({"label": LABELS}, {"label": soft}, mixed):
        found = objective({"logits": LOGITS}, targets).running
        assert found["top1"].tolist() == [1.0, 0.0, 0.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    smoothing=st.sampled_from([0.0, 0.2]),
    weighted=st.booleans(),
    heads=st.integers(0, 2),
    taught=st.booleans(),
)
def test_a_label_with_another_is_the_dense_label_of_both(
    seed: int, smoothing: float, weighted: bool, heads: int, taught: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, classes = 5, 4
    label, other = torch.randint(classes, (2, n), generator=generator)
    share = torch.rand(n, generator=generator)
    share[0] = 1.0
    logits, auxiliary = torch.randn(1 + heads, n, classes, generator=generator).split([1, heads])
    outputs = {"logits": logits[0], **({"auxiliary": auxiliary} if heads else {})}
    teacher = torch.randn(n, classes, generator=generator) if taught else None
    objective = ClassificationObjective(
        label_smoothing=smoothing,
        class_weights=[0.5, 3.0, 1.0, 0.25] if weighted else None,
    )
    mixed = objective(outputs, {"label": label, "other": other, "share": share}, teacher)
    rows = share[:, None] * F.one_hot(label, classes)
    rows = rows + (1 - share[:, None]) * F.one_hot(other, classes)
    dense = objective(outputs, {"label": rows}, teacher)
    assert mixed.parts.keys() == dense.parts.keys()
    for name, part in dense.parts.items():
        torch.testing.assert_close(mixed.parts[name], part, atol=1e-5, rtol=1e-5)
    apart = (share - 0.5).abs() > 1e-3
    assert torch.equal(mixed.running["top1"][apart], dense.running["top1"][apart])


def test_bf16_logits_have_a_float32_loss() -> None:
    for label in (LABELS, F.one_hot(LABELS, 3).float()):
        for weights in ("none", [1.0, 2.0, 0.5]):
            found = parts({"logits": LOGITS.bfloat16()}, label, LOGITS.bfloat16(),
                          class_weights=weights)  # fmt: skip
            assert {part.dtype for part in found.values()} == {torch.float32}


def test_images_without_labels_are_no_training() -> None:
    with pytest.raises(UsageError, match="labels"):
        task().objective(NETWORK)({"logits": LOGITS}, {})


def test_nothing_of_it_is_a_part_of_the_checkpoint() -> None:
    assert not task(class_weights=[1.0, 2.0, 0.5]).objective(NETWORK).state_dict()


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"class_weights": [1.0, 2.0, 0.5]}, {"focal": 2.0}],
    ids=str,
)
def test_an_image_without_a_label_costs_nothing_but_what_its_teacher_says(
    options: dict[str, Any],
) -> None:
    taught = LOGITS.flip(0)
    whole = parts({"logits": LOGITS}, LABELS, taught, **options)
    known = torch.tensor([1.0, 0.0, 1.0, 0.0])
    hard = torch.where(known > 0, LABELS, -1)
    soft = F.one_hot(LABELS, 3).float() * known[:, None]
    for label in (hard, soft):
        found = parts({"logits": LOGITS}, label, taught, **options)
        torch.testing.assert_close(found["cross_entropy"], whole["cross_entropy"] * known)
        torch.testing.assert_close(found["distillation"], whole["distillation"])
    objective = task(**options).objective(NETWORK)
    mixed = {"label": hard, "other": hard.flip(0), "share": torch.full((4,), 0.75)}
    found_mixed = objective({"logits": LOGITS}, mixed, taught)
    other = parts({"logits": LOGITS}, LABELS.flip(0), taught, **options)["cross_entropy"]
    wanted = 0.75 * whole["cross_entropy"] * known + 0.25 * other * known.flip(0)
    torch.testing.assert_close(found_mixed.parts["cross_entropy"], wanted)
    # What it is shown to be right about is then what the teacher says.
    meant = torch.where(known > 0, LABELS, taught.argmax(1))
    right = objective({"logits": LOGITS}, {"label": hard}, taught).running["top1"]
    assert right.tolist() == (LOGITS.argmax(1) == meant).float().tolist()


def test_of_images_without_any_label_the_teacher_is_all_there_is() -> None:
    found = task().objective(NETWORK)({"logits": LOGITS}, {}, LOGITS.flip(0)).parts
    whole = parts({"logits": LOGITS}, LABELS, LOGITS.flip(0))
    assert isinstance(found["cross_entropy"], Tensor)
    assert isinstance(found["distillation"], Tensor)
    assert found["cross_entropy"].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(found["distillation"], whole["distillation"])


def test_a_label_of_a_class_that_only_the_teacher_knows_is_no_other_ones() -> None:
    """Of pseudo-labels and validation images that come later."""
    logits = torch.tensor([[3.0, 1.0, 2.0]]).expand(3, 3)
    objective = ClassificationObjective(distillation_weight=0.0, told_apart=[0, 2])
    taught = torch.zeros(3, 3)
    found = objective({"logits": logits}, {"label": torch.tensor([0, 1, 2])}, taught).parts
    a = 1 / (1 + math.exp(2 - 3))
    of = found["cross_entropy"]
    assert isinstance(of, Tensor)
    assert of.tolist() == pytest.approx([-math.log(a), 0, -math.log(1 - a)], rel=1e-5)
    shares = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = objective({"logits": logits}, {"label": shares}, taught).parts
    of = found["cross_entropy"]
    assert isinstance(of, Tensor)
    mixed = -(2 * math.log(a) + math.log(1 - a)) / 3
    assert of.tolist() == pytest.approx([mixed, 0, -math.log(a)], rel=1e-5)
