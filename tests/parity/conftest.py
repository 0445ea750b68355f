"""The reference implementations, and the rule by which networks are compared with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from retinue.models.registry import create_model
from retinue.weights.loading import load_into
from retinue.weights.translation import recognise

TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def references() -> SimpleNamespace:
    """`references.torchvision`, `references.timm`."""
    if not hasattr(torch.ops.torchvision, "nms"):
        # A CPU-only torch lacks torchvision's compiled operators; its import only names them.
        library = torch.library.Library("torchvision", "FRAGMENT")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define("nms" + boxes)
        library.define("qnms" + boxes)
    torchvision = pytest.importorskip("torchvision")
    timm = pytest.importorskip("timm")
    return SimpleNamespace(torchvision=torchvision, timm=timm)


@torch.no_grad()
def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter and every BatchNorm statistic, so that none can hide behind a 0 or 1.

    The statistics are drawn around those of a batch of noise, so that activations stay where
    their functions bend, in a network of any depth.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape).uniform_(low, high, generator=generator)

    def draw_statistics(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.running_mean.copy_(mean + variance.sqrt() * uniform(mean, -0.5, 0.5))
        norm.running_var.copy_(variance * uniform(variance, 0.5, 1.5))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = math.sqrt(1 / module.weight[0].numel())
            module.weight.normal_(std=gain, generator=generator)
            if module.bias is not None:
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(uniform(module.weight, 0.5, 1.5))
            module.bias.copy_(uniform(module.bias, -0.5, 0.5))
            hooks.append(module.register_forward_pre_hook(draw_statistics))
    network.eval()(torch.randn(4, 3, 65, 98, generator=generator))
    for hook in hooks:
        hook.remove()
    return network


@torch.no_grad()
def relative_error(
    ours: nn.Module, reference: nn.Module, size: tuple[int, int] = (65, 98)
) -> float:
    """The largest difference of logits, in units of how much the reference's logits differ from
    image to image: what all images share does not count as agreement."""
    images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = reference(images)
    spread = (expected - expected.mean(0)).std()
    assert torch.isfinite(spread)
    assert spread > 1e-6 * expected.abs().max(), "the reference ignores its input"
    return float((ours(images) - expected).abs().max() / spread)


def carry_over(name: str, state: Mapping[str, Tensor], **arguments: object) -> nn.Module:
    """Our network `name` with a reference's weights, through our own loaders."""
    network = create_model(name, **arguments)
    report = load_into(network, recognise(state).translate(state))
    assert report.complete, report.describe()
    assert not report.reinitialised
    return network.eval()


@pytest.fixture
def parity() -> Iterator[SimpleNamespace]:
    """The functions above, for the tests of this folder; on small inputs, threads cost more than
    they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SimpleNamespace(
        tolerance=TOLERANCE,
        randomise=randomise,
        relative_error=relative_error,
        carry_over=carry_over,
    )
    torch.set_num_threads(threads)
