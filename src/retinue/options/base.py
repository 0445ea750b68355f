"""The base of every options class: nothing unknown, immutable, and documented by its docstrings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Options(BaseModel):
    """Unknown keys, NaN and infinity are refused; a field's docstring is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    alone: ClassVar[str | None] = None
    """The field that is meant where a value stands in place of the options: `optimizer: sgd`."""

    own: ClassVar[frozenset[str]] = frozenset()
    """Of options in a list: the fields that a word for all of them does not mean."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_value_alone(cls, value: Any) -> Any:
        if cls.alone is None:
            return value
        if value is True and all(not f.is_required() for f in cls.model_fields.values()):
            return {}  # switched on, as it comes
        alone = isinstance(value, str | int | float | os.PathLike) and not isinstance(value, bool)
        return {cls.alone: value} if alone else value

    @classmethod
    def wanted(cls, field: str, values: Mapping[str, Any]) -> Any:
        """The type of `field`, where the others have `values`. Raises KeyError if there is none."""
        return cls.model_fields[field].annotation


@dataclass(frozen=True)
class Words:
    """Beside a pattern: what it asks for, in words."""

    text: str


class Contradiction(ValueError):  # noqa: N818 - it is what pydantic calls a ValueError
    """Values that are right each, but not together: raised by a validator of what holds them all.
    `keys` are where they stand from there, and `mend` what to do."""

    def __init__(self, what: str, *keys: tuple[str | int, ...], mend: str) -> None:
        super().__init__(what)
        self.keys = keys
        self.mend = mend
