"""A network, its objective and its teacher as one module."""

from __future__ import annotations

import pytest
import torch
from tiny import Tiny
from torch import Tensor, nn

from retinue.tasks.learner import TAUGHT, Learner
from retinue.tasks.task import Losses, Objective

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Noting(Objective):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.ones(3))

    def forward(self, outputs: Tensor, targets: dict, taught: Tensor | None = None) -> Losses:
        self.asked = outputs, targets, taught
        return Losses({"part": outputs["logits"].sum(1) * self.margin.sum()}, {})


class Teacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.dropout(images.mean((2, 3)) * self.scale)


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(Tiny(num_classes=3, norm=False), Noting(), Teacher()).train()


def test_the_teacher_is_run_along_frozen(learner: Learner) -> None:
    targets = {"label": torch.zeros(2)}
    learner(IMAGES, targets)
    outputs, asked, taught = learner.objective.asked
    assert asked is targets
    torch.testing.assert_close(taught, IMAGES.mean((2, 3)) * 2)  # no dropout
    assert not taught.requires_grad
    assert outputs["logits"].requires_grad


def test_the_teacher_is_no_part_of_what_learns(learner: Learner) -> None:
    names = set(learner.state_dict())
    assert "objective.margin" in names
    assert not any("scale" in name or "teacher" in name for name in names)
    assert {id(p) for p in learner.parameters()} == {
        id(p) for part in (learner.network, learner.objective) for p in part.parameters()
    }
    teacher = learner.teacher
    assert teacher is not None
    learner.train().to(torch.float64)
    assert not teacher.training
    assert teacher.scale.dtype == torch.float32
    assert not teacher.scale.requires_grad
    own = learner.network_state(learner.state_dict())
    assert own.keys() == learner.network.state_dict().keys()


def test_what_is_known_of_the_teacher_is_not_asked_again(learner: Learner) -> None:
    known = torch.ones(2, 3)
    learner(IMAGES, {TAUGHT: known})
    assert learner.objective.asked[2] is known
    assert learner.teacher.calls == 0
    with torch.no_grad():
        state = learner.network.run(IMAGES, start=0, stop=2)
    learner(state, {TAUGHT: known}, 2)
    assert learner.objective.asked[2] is known
    with pytest.raises(ValueError, match="teacher needs the images"):
        learner(state, {}, 2)


def test_a_network_goes_on_from_its_trunk() -> None:
    torch.manual_seed(0)
    learner = Learner(Tiny(num_classes=3, norm=False, dropout=0.0), Noting()).train()
    whole = learner(IMAGES, {}).parts["part"]
    state = learner.network.run(IMAGES, start=0, stop=2)
    torch.testing.assert_close(learner(state, {}, 2).parts["part"], whole)
    assert learner.teacher is None
    assert learner.objective.asked[2] is None
