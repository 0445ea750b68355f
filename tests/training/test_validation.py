"""Which figures of a validation are watched."""

from retinue.figures import Figure
from retinue.training.validation import scalars


def test_what_is_declared_is_a_figure_whatever_kind_of_number_it_is() -> None:
    declared = [Figure("missed", "Missed", "count"), Figure("gap", "Gap"), Figure("auc", "AUC")]
    values = {"images": 9, "gap": 0.5, "missed": 3, "auc": None, "seconds": 1.5, "rows": [0.1]}
    found = scalars(values, declared)
    assert found == {"missed": 3.0, "gap": 0.5}
    assert [type(value) for value in found.values()] == [float, float]
