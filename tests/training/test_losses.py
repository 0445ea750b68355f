"""From parts to the loss of a portion: by hand, and whoever computes which rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.tasks.task import Losses, Part
from retinue.training.losses import Sums, add_up, portion_loss


def _alone(value: Tensor) -> Tensor:
    return value


def _loss(
    parts: dict[str, Part],
    weights: Sequence[float],
    *,
    total: float | None = None,
    portions: int = 1,
    processes: int = 1,
    over_all: Callable[[Tensor], Tensor] = _alone,
    running: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Sums]:
    return portion_loss(
        Losses(parts, running or {}),
        torch.tensor(weights, dtype=torch.float32),
        sum(weights) if total is None else total,
        portions=portions,
        processes=processes,
        over_all=over_all,
    )


def test_a_part_an_image_is_the_mean_by_the_images_weights() -> None:
    """(1·2 + 3·4 + 0·100) / 4 = 3.5: the last row only fills the batch."""
    each = torch.tensor([2.0, 4.0, 100.0], requires_grad=True)
    loss, shown = _loss({"a": each}, [1, 3, 0], running={"hits": torch.tensor([1.0, 0.0, 1.0])})
    assert loss.item() == 3.5
    loss.backward()
    assert each.grad is not None
    assert each.grad.tolist() == [0.25, 0.75, 0.0]
    assert {name: value.item() for name, value in shown.items()} == {
        "loss": 3.5,
        "hits": 0.25,
        "": 1.0,
    }
    assert not any(value.requires_grad for value in shown.values())


def test_a_part_by_counts_is_divided_by_all_of_them() -> None:
    """(1·6 + 2·5) / (1·3 + 2·1) = 3.2: an image without any neither counts nor divides."""
    sums, counts = torch.tensor([6.0, 5.0, 0.0, 9.0]), torch.tensor([3.0, 1.0, 0.0, 2.0])
    loss, _ = _loss({"a": (sums, counts)}, [1, 2, 1, 0])
    assert loss.item() == pytest.approx(3.2)


def test_a_part_of_columns_has_a_fraction_for_each() -> None:
    """(6 + 2·5) / (3 + 2·1) + (1 + 0) / max(0.5, 1) = 4.2: padding is in neither."""
    sums = torch.tensor([[6.0, 1.0], [5.0, 0.0], [9.0, 9.0]])
    counts = torch.tensor([[3.0, 0.5], [1.0, 0.0], [2.0, 9.0]])
    loss, _ = _loss({"a": (sums, counts)}, [1, 2, 0])
    assert loss.item() == pytest.approx(4.2)


def test_nothing_counted_is_no_division_by_zero() -> None:
    sums = torch.zeros(2, requires_grad=True)
    loss, _ = _loss({"a": (sums, torch.zeros(2))}, [1, 1])
    assert loss.item() == 0
    loss.backward()
    assert sums.grad is not None
    assert sums.grad.tolist() == [1.0, 1.0]  # Σ / max(Σ counts, 1)
    loss, _ = _loss({"a": torch.ones(2)}, [0, 0])
    assert loss.item() == 0


def test_parts_are_added_up_and_shown_each() -> None:
    """Mean of 2 and 4, plus 6 / 3."""
    parts: dict[str, Part] = {
        "sure": torch.tensor([2.0, 4.0]),
        "place": (torch.tensor([6.0, 0.0]), torch.tensor([3.0, 0.0])),
    }
    loss, shown = _loss(parts, [1, 1])
    assert loss.item() == 5
    told = {name: value.item() for name, value in shown.items()}
    assert told == {"loss_sure": 3, "loss_place": 2, "loss": 5, "": 1}


def test_half_precision_is_summed_in_full() -> None:
    each = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    loss, _ = _loss({"a": each}, [1.0] * 4096)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(torch.tensor(0.1, dtype=torch.bfloat16)), rel=1e-6)


def _shared_out(
    values: Tensor, counts: Tensor, weights: list[float], processes: int, portions: int
) -> tuple[float, Tensor, dict[str, float]]:
    """The step's loss, its gradient by `values`, and the epoch's figures, as the processes get them
    together: gradients averaged over them and added up over the portions, figures added up."""
    n = len(weights)
    filled = n + -n % (processes * portions)
    place = np.resize(np.arange(n), filled).reshape(portions, processes, -1)
    real = (np.arange(filled) < n).reshape(portions, processes, -1)
    total, gradient, figures = 0.0, torch.zeros_like(values), {}
    for portion in range(portions):
        mine = [
            [weights[p] * there for p, there in zip(places, counted, strict=True)]
            for places, counted in zip(place[portion].tolist(), real[portion].tolist(), strict=True)
        ]
        whole = sum(
            float((torch.tensor(w) * counts[torch.tensor(p)]).sum())
            for w, p in zip(mine, place[portion].tolist(), strict=True)
        )
        for rank in range(processes):
            rows = torch.tensor(place[portion, rank].tolist())
            leaf = values.clone().requires_grad_()
            loss, shown = _loss(
                {"each": leaf[rows], "found": (leaf[rows] * counts[rows], counts[rows])},
                mine[rank],
                total=sum(weights),
                portions=portions,
                processes=processes,
                over_all=lambda _, whole=whole: torch.tensor(whole),
                running={"value": leaf[rows]},
            )
            loss.backward()
            assert leaf.grad is not None
            gradient += leaf.grad / processes
            total += loss.item() / processes
            for name, value in shown.items():
                figures[name] = figures.get(name, 0.0) + value.item()
    weight = figures.pop("")
    return total, gradient, {name: value / weight for name, value in figures.items()}


@pytest.mark.parametrize(("processes", "portions"), [(2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("count", [4, 7])
def test_processes_and_portions_come_to_the_same(count: int, processes: int, portions: int) -> None:
    generator = torch.Generator().manual_seed(count)
    values = torch.rand(count, generator=generator, dtype=torch.float64).float()
    weights = (0.5 + torch.rand(count, generator=generator)).tolist()
    # With portions, each divides by its own counts: the same everywhere, they divide alike.
    counts = torch.tensor([2.0] * count) if portions > 1 else torch.arange(count).float()
    whole = _shared_out(values, counts, weights, 1, 1)
    parted = _shared_out(values, counts, weights, processes, portions)
    by_hand = float((torch.tensor(weights) * values).sum() / sum(weights))
    assert whole[2]["value"] == pytest.approx(by_hand, rel=1e-5)
    if portions > 1:  # the mean over portions, as each is a batch of its own for such a part
        assert parted[2]["loss_each"] == pytest.approx(whole[2]["loss_each"], rel=1e-5)
        assert parted[2]["value"] == pytest.approx(by_hand, rel=1e-5)
        return
    assert parted[0] == pytest.approx(whole[0], rel=1e-5)
    assert torch.allclose(parted[1], whole[1], rtol=1e-5)
    assert parted[2] == pytest.approx(whole[2], rel=1e-5)


def test_a_part_by_counts_is_the_mean_over_portions() -> None:
    """(10 / 5 + 3 / 1) / 2 = 2.5, where one batch would give 13 / 6."""
    losses = [
        _loss({"a": (torch.tensor([s]), torch.tensor([c]))}, [1.0], total=2.0, portions=2)[0]
        for s, c in ((10.0, 5.0), (3.0, 1.0))
    ]
    assert sum(float(loss) for loss in losses) == 2.5


def test_only_counts_go_over_the_processes_and_without_gradients() -> None:
    asked: list[Tensor] = []

    def over_all(value: Tensor) -> Tensor:
        asked.append(value)
        assert not value.requires_grad
        return value * 2

    sums, counts = torch.tensor([4.0]), torch.tensor([2.0], requires_grad=True)
    loss, _ = _loss(
        {"a": (sums, counts), "b": torch.tensor([1.0])},
        [1.0],
        total=2.0,
        processes=2,
        over_all=over_all,
    )
    assert [value.tolist() for value in asked] == [2.0]
    assert loss.item() == 4 * 2 / 4 + 1.0


def test_sums_are_kept_in_the_widest_numbers() -> None:
    sums: Sums = {}
    for _ in range(1000):
        add_up(sums, {"loss": torch.tensor(0.1)})
    add_up(sums, {"more": torch.tensor(1.0)})
    assert sums["loss"].dtype == torch.float64
    assert sums["loss"].item() == pytest.approx(1000 * float(torch.tensor(0.1)), rel=1e-12)
    assert sums["more"].item() == 1
