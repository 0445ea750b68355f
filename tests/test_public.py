"""What `import retinue` offers."""

from __future__ import annotations

import pkgutil

import retinue


def test_everything_that_is_offered_is_there() -> None:
    assert set(retinue.__all__) == {*retinue._PUBLIC, "__version__"}
    for name in retinue.__all__:
        assert getattr(retinue, name) is not None
    assert dir(retinue) == sorted(retinue.__all__)


def test_no_room_hides_what_is_offered() -> None:
    """Importing `retinue.NAME` would put the module in the place of a function of that name."""
    rooms = {module.name for module in pkgutil.iter_modules(retinue.__path__)}
    assert rooms
    assert not rooms & set(retinue._PUBLIC)
