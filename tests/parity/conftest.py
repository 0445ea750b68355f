"""The reference implementations, and the rule by which networks are compared with them."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinue.models.registry import create_model, find
from retinue.weights import files
from retinue.weights.layout import recognise, translate
from retinue.weights.loading import load_into

TOLERANCE = 1e-4

Reference = Callable[[Tensor], Tensor]
"""Images float32 (n, 3, height, width) to logits (n, classes)."""


class References:
    """`.torchvision`, `.timm`, `.keras`, `.transformers`: each imported when it is first used."""

    def __init__(self) -> None:
        if hasattr(torch.ops.torchvision, "nms"):
            return
        # A CPU-only torch lacks torchvision's compiled operators; its import, which is also part
        # of timm's and transformers', only names them. They are forgotten with the library.
        self._library = torch.library.Library("torchvision", "FRAGMENT")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        self._library.define("nms" + boxes)
        self._library.define("qnms" + boxes)

    @cached_property
    def torchvision(self) -> ModuleType:
        return pytest.importorskip("torchvision")

    @cached_property
    def timm(self) -> ModuleType:
        return pytest.importorskip("timm")

    @cached_property
    def keras(self) -> ModuleType:
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "torch"
        keras = pytest.importorskip("keras")
        assert keras.backend.backend() == "torch"
        return keras

    @cached_property
    def transformers(self) -> ModuleType:
        return pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def references() -> References:
    """`references.torchvision`, `.timm`, `.keras`, `.transformers`."""
    return References()


class Draws:
    """Where the random values of a reference come from."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape).uniform_(low, high, generator=self.generator)

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * std

    def shift(self, like: Tensor) -> Tensor:
        """What a norm of maps adds. Mostly above 0, where activations pass their input on: if they
        cut off half of it, rounding would grow by a fifth from layer to layer (Yang et al., 2019,
        "A Mean Field Theory of Batch Normalization") and reach the tolerance in deep networks."""
        return self.uniform(like, 0.0, 1.0)

    def statistics(self, inputs: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """A running mean and variance around those of a batch, so that activations stay where
        their functions bend, in a network of any depth."""
        variance, mean = torch.var_mean(inputs, axes)
        drawn = mean + variance.sqrt() * self.uniform(mean, -0.5, 0.5)
        return drawn, variance * self.uniform(variance, 0.5, 1.5)


@torch.no_grad()
def randomise(
    network: Any, seed: int = 0, size: tuple[int, int] = (65, 98), *, channels: int = 3
) -> Any:
    """Draw every parameter and every BatchNorm statistic, so that none can hide behind a 0 or 1.

    `network` is a torch module or a Keras model, and comes back in eval mode. `size`: height and
    width of the noise that BatchNorms' statistics are drawn around (a Keras model has its own).
    """
    draws = Draws(seed)
    if "keras" in sys.modules and isinstance(network, sys.modules["keras"].Model):
        return _randomise_keras(network, draws)
    hooks = []

    def draw_statistics(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = draws.statistics(inputs[0], (0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    for module in network.modules():
        normalises = isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if normalises and name == "weight":
                parameter.copy_(draws.uniform(parameter, 0.5, 1.5))
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                parameter.copy_(draws.shift(parameter))
            elif name.endswith("bias"):
                parameter.copy_(draws.uniform(parameter, -0.5, 0.5))
            elif name.endswith("weight"):  # of a convolution, a linear layer, fused q, k and v
                gain = math.sqrt(1 / parameter[0].numel())
                parameter.copy_(draws.normal(*parameter.shape, std=gain))
            else:  # class token, position embeddings, layer scale
                parameter.copy_(draws.normal(*parameter.shape, std=0.5))
        if isinstance(module, nn.BatchNorm2d):  # some, of auxiliary heads, see no image below
            module.running_mean.copy_(draws.uniform(module.running_mean, -0.5, 0.5))
            module.running_var.copy_(draws.uniform(module.running_var, 0.5, 1.5))
            hooks.append(module.register_forward_pre_hook(draw_statistics))
    network.eval()
    if hooks:
        network(draws.normal(4, channels, *size))
    for hook in hooks:
        hook.remove()
    return network


def _randomise_keras(model: Any, draws: Draws) -> Any:
    """As `randomise`; the statistics that a Normalization layer was adapted to are no weights of
    the network, and stay."""

    def measuring(layer: Any, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def measured(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            mean, variance = draws.statistics(inputs, (0, 1, 2))
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
            return call(inputs, *args, **kwargs)

        return measured

    norms = []
    for layer in model._flatten_layers(include_self=False):
        if type(layer).__name__ == "Normalization":
            continue
        for variable in layer._trainable_variables:
            value = variable.value
            if variable.name == "gamma":
                drawn = draws.uniform(value, 0.5, 1.5)
            elif type(layer).__name__ == "BatchNormalization":
                drawn = draws.shift(value)
            elif variable.name in ("bias", "beta"):
                drawn = draws.uniform(value, -0.5, 0.5)
            else:
                depthwise = "Depthwise" in type(layer).__name__ or "depth" in variable.name
                inputs = math.prod(value.shape[: 2 if depthwise else -1])
                drawn = draws.normal(*value.shape, std=math.sqrt(1 / inputs))
            variable.assign(drawn)
        if type(layer).__name__ == "BatchNormalization":
            norms.append(layer)
            layer.call = measuring(layer, layer.call)
    height, width, channels = model.input_shape[1:]
    from_keras(model)(draws.normal(4, channels, height, width))
    for layer in norms:
        del layer.call
    return model


def from_keras(model: Any) -> Reference:
    """A Keras model, channels last and made with `classifier_activation=None`, as a reference.

    Its images are what comes out of a Rescaling at its beginning, since ours takes them so.
    """

    def reference(images: Tensor) -> Tensor:
        images = images.permute(0, 2, 3, 1)
        for layer in model.layers:
            if type(layer).__name__ == "Rescaling":
                images = (images - layer.offset) / layer.scale
        return model(images, training=False).detach().reshape(len(images), -1)

    return reference


def from_transformers(model: nn.Module, **options: Any) -> Reference:
    """An image classifier of Hugging Face's as a reference; `options` go to its forward."""

    def reference(images: Tensor) -> Tensor:
        return model(pixel_values=images, **options).logits

    return reference


def keras_state(model: Any, suffix: str = ".keras") -> dict[str, Tensor]:
    """The state of a Keras model, `LAYER/VARIABLE`, as our reader finds it in a file of Keras."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model" + suffix)
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        return files.read(path).tensors


@torch.no_grad()
def relative_error(
    ours: nn.Module,
    reference: Reference,
    size: tuple[int, int] = (65, 98),
    *,
    channels: int = 3,
    fields: int | None = None,
) -> float:
    """The largest difference of logits, in units of how much the reference's logits differ from
    image to image: what all images share does not count as agreement. Computed in the precision of
    our parameters.

    The images are noise, or so many `fields` of one colour on each side.
    """
    noise = size if fields is None else (fields, fields)
    images = torch.randn(4, channels, *noise, generator=torch.Generator().manual_seed(1))
    images = nn.functional.interpolate(images, size=size).to(next(ours.parameters()).dtype)
    expected = reference(images)
    spread = (expected - expected.mean(0)).std()
    assert torch.isfinite(spread)
    assert spread > 1e-6 * expected.abs().max(), "the reference ignores its input"
    return float((ours(images) - expected).abs().max() / spread)


def carry_over(name: str, state: Mapping[str, Tensor], **arguments: object) -> nn.Module:
    """Our network `name` with a reference's weights, through our own loaders. The layout's
    arguments are passed on, as they are for a file."""
    layout = recognise(state, find(name).family)
    network = create_model(name, **{**layout.arguments, **arguments})
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    report = load_into(network, translate(layout, state, shapes))
    assert report.complete, report.describe()
    assert not report.reinitialised, report.describe()
    assert not report.adapted, report.describe()
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
        from_keras=from_keras,
        from_transformers=from_transformers,
        keras_state=keras_state,
    )
    torch.set_num_threads(threads)
