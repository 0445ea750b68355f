"""What a recipe says about the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from retinue.errors import UsageError
from retinue.options import Options


class ModelOptions(Options):
    """The network, and where its first weights come from."""

    alone: ClassVar[str | None] = "name"

    name: str
    """The network; `retinue models` lists them. Names of timm, torchvision, Keras and transformers
    are understood."""
    weights: str | None = "imagenet"
    """A tag of the catalogue such as `imagenet`, a file, or null (`None`) for fresh weights."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Probability before the classifier; null: as published."""
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    """Stochastic depth: rises evenly from 0 at the first block towards this rate; null: as
    published."""
    head: dict[str, Any] | None = None
    """What makes logits of the pooled feature: `{name: linear}` or `{name: mlp, hidden: [256],
    input_dropout: 0.0, dropout: 0.0, activation: relu}`; null: as the weights have it, else linear.
    Weights that have another come without it."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keywords of the family, such as `width`."""

    @field_validator("weights", mode="before")
    @classmethod
    def _none_is_null(cls, weights: Any) -> Any:
        """Python's word for YAML's null; no set of weights is called so."""
        is_none = isinstance(weights, str) and weights.lower() in ("none", "null")
        return None if is_none else weights

    @field_validator("head", mode="before")
    @classmethod
    def _whole_head(cls, head: Any) -> Any:
        """A name alone will do; all options are written down."""
        if not isinstance(head, str | dict):
            return head
        from retinue.models.heads import head_choice  # brings torch, as in `_known`

        try:
            return head_choice(head)
        except UsageError as error:
            raise ValueError(str(error)) from error

    @field_validator("arguments")
    @classmethod
    def _not_decided_elsewhere(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("in_channels", 3) != 3:
            raise ValueError("images are read in colour, grey ones too: in_channels is always 3")
        if "num_classes" in arguments:
            raise ValueError(
                "num_classes is the number of classes in the data (data.classes chooses among them)"
            )
        if "weights" in arguments:
            raise ValueError("weights are no argument, model.weights names them")
        if "head" in arguments:
            raise ValueError("the head is no argument, model.head chooses it")
        return arguments

    @model_validator(mode="before")
    @classmethod
    def _by_its_own_name(cls, values: Any) -> Any:
        """Other libraries' names are understood, and a file that describes a network; ours is
        written down, and the weights that the name tells."""
        name = values.get("name") if isinstance(values, Mapping) else values
        if not isinstance(name, str):
            return values
        # brings torch, which a mere --help must not
        from retinue.models.described import description_of
        from retinue.models.registry import called, with_tag

        given = dict(values) if isinstance(values, Mapping) else {}
        if (described := description_of(name)) is not None:
            network, keyword = described
            arguments = {keyword: name, **(given.get("arguments") or {})}
            return {"weights": None, **given, "name": network, "arguments": arguments}
        try:
            meant = called(name)
        except UsageError:
            return values  # `_known` says it
        if meant.tag:
            given["weights"] = with_tag(meant, given.get("weights", "imagenet"))
        return {**given, "name": meant.network}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        from retinue.models.registry import find

        try:
            find(name)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return name
