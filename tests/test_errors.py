"""What failed, where, and how to mend it: the parts of a message."""

from __future__ import annotations

import pytest

from retinue.errors import BadImageError, RetinueError, UsageError


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (None, "m"),
        ("key target", "m, key target"),  # which has an m of its own
        ("m", "m"),
        ("m (IR version 11)", "m (IR version 11)"),
        ("m, key target", "m, key target"),
        ("mine", "m, mine"),
    ],
)
def test_a_place_is_named_once(where: str | None, told: str) -> None:
    error = UsageError("it failed", where=where, mend="try")
    error.name("m")
    assert str(error) == f"it failed, {told}, try"


def test_naming_a_place_keeps_the_rest() -> None:
    error = BadImageError({"a.jpg": "cut"})
    error.name("model")
    assert isinstance(error, RetinueError)
    assert error.reasons == {"a.jpg": "cut"}
    assert str(error) == "1 image cannot be read, model, 'a.jpg' (cut)"
