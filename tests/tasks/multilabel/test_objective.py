"""What is learnt of any number of labels an image, against PyTorch's own and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import UsageError
from retinue.tasks.multilabel.objective import MultilabelObjective
from retinue.tasks.task import Losses
from retinue.training.losses import portion_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [-0.5, 0.1, 40.0]])
TARGETS = SeveralLabels.collate(
    [SeveralLabels((0, 2), 3), SeveralLabels((), 3, (1,)), SeveralLabels((1,), 3, (0, 2))]
)


def loss(losses: Losses, weight: Tensor | None = None) -> float:
    weight = torch.ones(3) if weight is None else weight
    total, _ = portion_loss(
        losses, weight, float(weight.sum()), portions=1, processes=1, over_all=lambda x: x
    )
    return float(total)


def said(**options: Any) -> float:
    return loss(MultilabelObjective(**options)({"logits": LOGITS}, TARGETS))


def test_it_is_the_mean_of_what_is_known() -> None:
    known = TARGETS["known"].bool()
    theirs = F.binary_cross_entropy_with_logits(LOGITS[known], TARGETS["labels"][known])
    assert said() == pytest.approx(float(theirs), rel=1e-6)


def test_what_is_unknown_has_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    losses = MultilabelObjective(gamma_negative=2.0, margin=0.05)({"logits": logits}, TARGETS)
    total, _ = portion_loss(
        losses, torch.ones(3), 3.0, portions=1, processes=1, over_all=lambda x: x
    )
    total.backward()
    assert logits.grad is not None
    assert ((logits.grad != 0) <= TARGETS["known"].bool()).all()
    assert (logits.grad[0] != 0).all()


def test_images_count_by_their_weight() -> None:
    losses = MultilabelObjective()({"logits": LOGITS}, TARGETS)
    alone = MultilabelObjective()(
        {"logits": LOGITS[:1]}, {name: value[:1] for name, value in TARGETS.items()}
    )
    first = loss(losses, torch.tensor([1.0, 0.0, 0.0]))
    total, _ = portion_loss(
        alone, torch.ones(1), 1.0, portions=1, processes=1, over_all=lambda x: x
    )
    assert first == pytest.approx(float(total))


def test_positive_weights_are_those_of_pytorch() -> None:
    weights = [2.0, 0.5, 7.0]
    known = TARGETS["known"]
    theirs = F.binary_cross_entropy_with_logits(
        LOGITS, TARGETS["labels"], pos_weight=torch.tensor(weights), weight=known, reduction="sum"
    )
    assert said(positive_weights=weights) == pytest.approx(float(theirs / known.sum()), rel=1e-6)


def test_focal_and_asymmetric_loss_by_hand() -> None:
    def one(logit: float, label: float, **options: Any) -> float:
        targets = {"labels": torch.tensor([[label]]), "known": torch.ones(1, 1)}
        losses = MultilabelObjective(**options)({"logits": torch.tensor([[logit]])}, targets)
        sums, _ = losses.parts["cross_entropy"]
        return float(sums[0])

    p = 1 / (1 + math.exp(-0.5))
    focal = {"gamma_positive": 2.0, "gamma_negative": 2.0}
    assert one(0.5, 1, **focal) == pytest.approx(-((1 - p) ** 2) * math.log(p))
    assert one(0.5, 0, **focal) == pytest.approx(-(p**2) * math.log(1 - p))
    apart = {"gamma_positive": 1.0, "gamma_negative": 4.0, "margin": 0.05}
    lowered = p - 0.05
    assert one(0.5, 1, **apart) == pytest.approx(-(1 - p) * math.log(p))
    assert one(0.5, 0, **apart) == pytest.approx(-(lowered**4) * math.log(1 - lowered))
    assert one(-4.0, 0, **apart) == 0.0, "below the margin"
    assert one(0.5, 1, label_smoothing=0.2) == pytest.approx(
        -0.9 * math.log(p) - 0.1 * math.log(1 - p)
    )


@pytest.mark.parametrize("far", [-1e4, 1e4])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_it_is_finite_however_sure_the_network_is(far: float, margin: float) -> None:
    logits = torch.full((3, 3), far, requires_grad=True)
    objective = MultilabelObjective(gamma_positive=2.0, gamma_negative=0.5, margin=margin)
    losses = objective({"logits": logits}, TARGETS)
    sums, _ = losses.parts["cross_entropy"]
    sums.sum().backward()
    assert sums.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_auxiliary_heads_and_a_teacher_join() -> None:
    heads = torch.stack([LOGITS, -LOGITS])
    outputs = {"logits": LOGITS, "auxiliary": heads}
    parts = MultilabelObjective(auxiliary_weight=0.3)(outputs, TARGETS).parts
    both = [MultilabelObjective()({"logits": h}, TARGETS).parts["cross_entropy"][0] for h in heads]
    torch.testing.assert_close(parts["auxiliary"][0], 0.3 * (both[0] + both[1]))
    taught = MultilabelObjective(distillation_weight=0.4)({"logits": LOGITS}, TARGETS, LOGITS)
    torch.testing.assert_close(taught.parts["distillation"][0], torch.zeros(3), atol=1e-5, rtol=0)
    (sums, _), (own, _) = (
        taught.parts["cross_entropy"],
        MultilabelObjective()({"logits": LOGITS}, TARGETS).parts["cross_entropy"],
    )
    torch.testing.assert_close(sums, 0.6 * own)
    other = MultilabelObjective(distillation_weight=1.0, distillation_temperature=1.0)(
        {"logits": torch.zeros(1, 1)},
        {"labels": torch.zeros(1, 1), "known": torch.zeros(1, 1)},
        {"logits": torch.tensor([[math.log(3.0)]])},
    )
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(other.parts["distillation"][0][0]) == pytest.approx(by_hand)


def test_targets_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError):
        MultilabelObjective()({"logits": LOGITS}, {"label": torch.zeros(3)})
