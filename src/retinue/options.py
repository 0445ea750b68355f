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


class Contradiction(ValueError):  # noqa: N818 - it is what pydantic calls a ValueError
    """Values that are right each, but not together: raised by a validator of what holds them all.
    `keys` are where they stand from there, and `mend` what to do."""

    def __init__(self, what: str, *keys: tuple[str | int, ...], mend: str) -> None:
        super().__init__(what)
        self.keys = keys
        self.mend = mend
