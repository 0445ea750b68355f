"""The helper that catches reads catches each kind of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reads import DeviceReadError, counted_reads, no_reads
from torch import Tensor, nn


@pytest.mark.parametrize(
    "read",
    [
        Tensor.item,
        float,
        bool,
        int,
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        np.asarray,
        torch.nonzero,
        lambda x: torch.where(x > 0),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        torch.unique,
        lambda x: x.repeat_interleave(x.long()),
        lambda x: range(x.long()),
        lambda x: f"{x[0]:.1f}",
    ],
)
def test_a_read_is_caught(read: Callable[[Tensor], object]) -> None:
    x = torch.ones(1)
    read(x)
    with pytest.raises(DeviceReadError, match=r"test_reads\.py"), no_reads():
        read(x)
    read(x)


def test_a_step_of_training_reads_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    x, y, share = torch.randn(2, 3, 4, 4), torch.tensor([0, 1]), torch.tensor([0.5, 0.5])
    with no_reads():
        loss = (nn.functional.cross_entropy(network(x), y, reduction="none") * share).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        x[torch.tensor([1, 0])] = x.where(x > 0, 0.0)
        x[x > 0] = 0.0
    with pytest.raises(DeviceReadError), no_reads():
        loss.item()


def test_reads_are_counted_with_their_places() -> None:
    x = torch.ones(2)
    with counted_reads() as reads:
        x.sum().item()
        x.tolist()
    assert [what for what, _ in reads] == ["aten._local_scalar_dense.default", "Tensor.tolist"]
    assert all("test_reads.py" in place for _, place in reads)
    x.tolist()
    assert len(reads) == 2


def test_another_thread_and_ignored_files_may_read() -> None:
    x = torch.ones(2)
    with counted_reads() as reads:
        thread = threading.Thread(target=x.tolist)
        thread.start()
        thread.join()
    assert not reads
    with counted_reads(ignore=["tests/test_reads.py"]) as reads:
        x.tolist()
    assert not reads
