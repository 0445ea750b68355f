"""What `import retinue` offers."""

from __future__ import annotations

import retinue


def test_everything_that_is_offered_is_there() -> None:
    assert set(retinue.__all__) == {*retinue._PUBLIC, "__version__"}
    for name in retinue.__all__:
        assert getattr(retinue, name) is not None
    assert dir(retinue) == sorted(retinue.__all__)
