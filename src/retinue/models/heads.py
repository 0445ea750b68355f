"""What makes logits of the pooled feature, by name: the head that any network can be given.

The pooled feature, float (n, features), is what a family's own last linear layer takes, so that
hidden layers of a family's (VGG's, MobileNetV3's) stay. A head of one's own is registered with
`register_head`; the networks know none by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch import Tensor, nn

from retinue.errors import UsageError, suggest
from retinue.models.blocks import Activation, hard_swish, initialise, relu, silu
from retinue.options import Options
from retinue.options.wording import at, what_is_wrong

LINEAR: Mapping[str, Any] = {"name": "linear"}
"""What every family has of its own."""

HeadBuilder = Callable[[int, int, Any], nn.Module]
"""(features, classes, options) to a module that makes of the pooled feature, float (n, features),
logits (n, classes), or a dict with `logits` and what else the losses need: training mode answers
all of it, eval mode what the module gives then.

Its attribute `classifiers` names, within it, the linear layers that are as wide as there are
classes (by default `fc`): they are renewed where the classes change, and published weights are
never expected to have them.
"""


@dataclass(frozen=True)
class HeadEntry:
    """A kind of head."""

    name: str
    options_type: type[Options]
    build: HeadBuilder


_HEADS: dict[str, HeadEntry] = {}


def register_head(name: str, options_type: type[Options], builder: HeadBuilder) -> None:
    """Make a kind of head known: `model.head: {name: NAME, …}`, with the fields of `options_type`
    (plain JSON values). Raises ValueError if the name is taken."""
    if name in _HEADS:
        raise ValueError(f"head {name!r} is already registered")
    _HEADS[name] = HeadEntry(name, options_type, builder)


def list_heads() -> list[str]:
    """The names of all kinds of heads, sorted."""
    return sorted(_HEADS)


def head_choice(head: str | Mapping[str, Any]) -> dict[str, Any]:
    """`head`, a name or a mapping with `name` and options, checked and with every option spelled
    out. Raises UsageError for what is unknown or impossible."""
    given = {"name": head} if isinstance(head, str) else dict(head)
    name = given.pop("name", None)
    if name not in _HEADS:
        mend = suggest(str(name), _HEADS) or f"there are {', '.join(list_heads())}"
        raise UsageError(f"unknown head {name!r}", mend=mend)
    entry = _HEADS[name]
    try:
        options = entry.options_type.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = entry.options_type.model_fields
        if first["type"] == "extra_forbidden":
            mend = suggest(key, known) or f"it takes {', '.join(known) or 'nothing'}"
            raise UsageError(f"the head {name} takes no {key!r}", mend=mend) from error
        said = what_is_wrong(first, *at(entry.options_type, given, first["loc"]))
        raise UsageError(f"the head {name}'s {key}: {said}") from error
    return {"name": name, **options.model_dump(mode="json")}


def build_head(choice: Mapping[str, Any], features: int, num_classes: int) -> nn.Module:
    """The head of a `head_choice`, for a pooled feature as wide as `features`."""
    entry = _HEADS[choice["name"]]
    options = entry.options_type.model_validate({k: v for k, v in choice.items() if k != "name"})
    return entry.build(features, num_classes, options)


def head_builder(name: str) -> HeadBuilder:
    """What builds the heads called `name`. KeyError for an unknown one."""
    return _HEADS[name].build


class LinearOptions(Options):
    """There is nothing to choose."""


def linear(features: int, num_classes: int, options: LinearOptions) -> nn.Module:
    """One linear layer, drawn as the families draw theirs."""
    layer = nn.Linear(features, num_classes)
    initialise(layer)
    return layer


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": relu,
    "gelu": nn.GELU,
    "silu": silu,
    "hard_swish": hard_swish,
    "tanh": nn.Tanh,
}


class MLPOptions(Options):
    """Hidden layers before the classifier."""

    hidden: list[Annotated[int, Field(ge=1)]] = Field(default=[256], min_length=1)
    """Width of each hidden layer."""
    input_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability on the pooled feature itself, in any network; `model.dropout` is that of networks
    that bring one there, and comes on top."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability behind each hidden layer."""
    activation: Literal["relu", "gelu", "silu", "hard_swish", "tanh"] = "relu"
    """What follows each hidden layer."""


class MLP(nn.Module):
    """Dropout, hidden layers, each with activation and dropout, then the classifier: (n, features)
    to logits (n, classes)."""

    def __init__(self, features: int, num_classes: int, options: MLPOptions) -> None:
        super().__init__()
        widths = [features, *options.hidden]
        layers = [nn.Linear(*sides) for sides in pairwise(widths)]
        self.input_dropout = nn.Dropout(options.input_dropout)
        self.hidden = nn.ModuleList(layers)
        self.act = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        for layer in layers:  # variance 2 / fan-in, as their input has no norm before it
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        initialise(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_dropout(x)
        for layer in self.hidden:
            x = self.dropout(self.act(layer(x)))
        logits: Tensor = self.fc(x)
        return logits


class GLUOptions(Options):
    """A gate that narrows the feature, before the classifier."""

    features: Annotated[int, Field(ge=1)] = 64
    """Width of the feature that the gate lets through: fewer than there are classes, where its
    distance to their centres is a loss, too."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability behind the gate."""
    auxiliary: bool = False
    """Whether a second classifier takes the pooled feature as it is."""


class GLU(nn.Module):
    """Gated linear unit (Dauphin et al., 2017, "Language modeling with gated convolutional
    networks"): `value(x) · σ(gate(x))`, then the classifier.

    (n, features) to logits (n, classes); in training mode to a dict with `logits`, `feature`,
    float (n, `feature_width`), what the gate has let through, and, if asked for, `auxiliary`, the
    logits of the second classifier, (n, classes), which eval mode gives, too.
    """

    def __init__(self, features: int, num_classes: int, options: GLUOptions) -> None:
        super().__init__()
        self.feature_width = options.features
        self.value = nn.Linear(features, options.features)
        self.gate = nn.Linear(features, options.features)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(options.features, num_classes)
        self.classifiers: tuple[str, ...] = ("fc",)
        for layer in (self.value, self.gate):  # as Keras draws what it calls Dense
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        initialise(self.fc)
        if options.auxiliary:
            self.auxiliary = nn.Linear(features, num_classes)
            self.classifiers = ("fc", "auxiliary")
            initialise(self.auxiliary)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        feature = self.value(x) * self.gate(x).sigmoid()
        logits: Tensor = self.fc(self.dropout(feature))
        given = {"logits": logits}
        if "auxiliary" in self.classifiers:
            given["auxiliary"] = self.auxiliary(x)
        if self.training:
            given["feature"] = feature
        return given if len(given) > 1 else logits


register_head("linear", LinearOptions, linear)
register_head("mlp", MLPOptions, MLP)
register_head("glu", GLUOptions, GLU)
