"""What a magnitude means, against torchvision's tables."""

from __future__ import annotations

from typing import Any

import pytest

from retinue.data.options import RandAugmentOptions, TrivialAugmentOptions
from retinue.data.policies import LARGEST, OPERATIONS, Policy, Step

NAMES = {"color": "saturation", "auto_contrast": "autocontrast"}


def _ours(name: str) -> str:
    plain = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return NAMES.get(plain, plain)


@pytest.mark.parametrize("kind", ["rand", "trivial"])
def test_every_magnitude_is_torchvisions(references: Any, kind: str) -> None:
    transforms = references.torchvision.transforms
    if kind == "rand":
        policy = Policy(RandAugmentOptions(), 0)
        table = transforms.RandAugment()._augmentation_space(31, (224, 320))
    else:
        policy = Policy(TrivialAugmentOptions(), 0)
        table = transforms.TrivialAugmentWide()._augmentation_space(31)
    assert {_ours(name) for name in table} == set(OPERATIONS)
    for name, (magnitudes, signed) in table.items():
        ours = _ours(name)
        assert signed == (ours in OPERATIONS[1:10])
        for magnitude in range(LARGEST + 1) if magnitudes.ndim else ():
            amount = policy.amount(Step(ours, magnitude, 1), (224, 320))
            assert amount == pytest.approx(float(magnitudes[magnitude]), abs=1e-4), (
                ours,
                magnitude,
            )
