"""Focal loss and logit adjustment, by hand and by what they promise."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from flowers import LABELS, LOGITS, NAMES, samples, task
from torch import Tensor
from torch.nn import functional as F

from retinue.errors import RetinueError
from retinue.models.network import Network
from retinue.tasks.classification.objective import ClassificationObjective
from retinue.tasks.classification.task import Classification, ClassificationOptions

NETWORK = Network.__new__(Network)
SHARES = [0.5, 0.25, 0.25]


def loss(label: Tensor, logits: Tensor = LOGITS, **options: Any) -> Tensor:
    part = ClassificationObjective(**options)({"logits": logits}, {"label": label}).parts
    assert isinstance(part["cross_entropy"], Tensor)
    return part["cross_entropy"]


def test_focal_loss_by_hand() -> None:
    p = LOGITS.softmax(1)[torch.arange(4), LABELS]
    torch.testing.assert_close(loss(LABELS, focal=2.0), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(loss(LABELS, focal=1e-6), loss(LABELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_focal_loss_of_shares_is_that_of_labels(
    weights: list[float] | None, smoothing: float
) -> None:
    options: dict[str, Any] = {"focal": 1.5, "class_weights": weights, "label_smoothing": smoothing}
    soft = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(loss(LABELS, **options), loss(soft, **options))
    mixed = 0.3 * soft + 0.7 * soft.roll(1, 0)
    both = 0.3 * loss(LABELS, **options) + 0.7 * loss(LABELS.roll(1), **options)
    torch.testing.assert_close(loss(mixed, **options), both)
    targets = {"label": LABELS, "other": LABELS.roll(1), "share": torch.full((4,), 0.3)}
    paired = ClassificationObjective(**options)({"logits": LOGITS}, targets).parts
    torch.testing.assert_close(paired["cross_entropy"], both)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_finite_however_sure_the_network_is(gamma: float) -> None:
    logits = torch.tensor([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]], requires_grad=True)
    found = loss(torch.tensor([0, 0]), logits, focal=gamma)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_logit_adjustment_by_hand() -> None:
    adjusted = LOGITS + 0.7 * torch.tensor(SHARES).log()
    found = loss(LABELS, logit_adjustment=0.7, class_shares=SHARES)
    torch.testing.assert_close(found, F.cross_entropy(adjusted, LABELS, reduction="none"))


def test_with_τ_1_the_logits_of_a_perfect_fit_are_those_of_even_classes() -> None:
    """Menon et al.: the classifier that minimises the loss on uneven classes ranks by the balanced
    posterior. Here nothing can be told from the images: all logits become the same."""
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 4)
    for options, even in (({"logit_adjustment": 1.0, "class_shares": SHARES}, True), ({}, False)):
        logits = torch.zeros(3, requires_grad=True)
        for _ in range(300):
            found = loss(labels, logits.expand(16, 3), **options).mean()
            (gradient,) = torch.autograd.grad(found, logits)
            logits = (logits - gradient).detach().requires_grad_()
        assert (float(logits.detach().std()) < 1e-3) == even


def test_shares_are_counted_from_the_training_images_and_kept() -> None:
    options = ClassificationOptions(logit_adjustment=1.0)
    made = Classification.prepared(NAMES, options, samples([0, 0, 1, None, 0]))
    assert made.state() == {"class_shares": [3 / 5, 1 / 5, 1 / 5]}, "of no image: as if of one"
    again = Classification(NAMES, options, json.loads(json.dumps(made.state())))
    adjustment = again.objective(NETWORK).adjustment
    assert adjustment is not None
    torch.testing.assert_close(adjustment, torch.tensor([3 / 5, 1 / 5, 1 / 5]).log())
    with pytest.raises(RuntimeError, match="prepared"):
        task(logit_adjustment=1.0).objective(NETWORK)
    with pytest.raises(RetinueError, match=r"task_state\.class_shares"):
        Classification(NAMES, options, {"class_shares": [0.5]})
    assert task().state() == {}
