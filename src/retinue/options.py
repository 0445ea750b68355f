"""The base of every options class: nothing unknown, immutable, and documented by its docstrings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Unknown keys, NaN and infinity are refused; a field's docstring is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
