"""New images beside the training data, from a run to sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import retinue
from retinue import api
from retinue.errors import UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny.register()
    root = tmp_path_factory.mktemp("drift")
    data = tiny.write_pictures(root / "photos", each=40)
    recipe = tiny.recipe(data, evaluation={"keep": "last"})
    for stage in recipe["stages"]:
        stage.update(epochs=1)
    done = api.train(recipe, out=root / "run", report=False, quiet=True)
    return Path(done.folder)


def fresh(place: Path, count: int = 30, dim: float = 1.0) -> Path:
    """Pictures like those of the training, but drawn anew, times `dim`."""
    place.mkdir()
    draws = np.random.default_rng(5)
    for k in range(count):
        colour = np.array(list(tiny.COLOURS.values())[k % 3])
        noise = draws.normal(0, 60, (40, 40, 3)) + draws.normal(0, 40, 3)
        pixels = ((colour + noise).clip(0, 255) * dim).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{k}.png")
    return place


def test_images_of_the_same_kind_are_told_to_be_alike(run: Path, tmp_path: Path) -> None:
    found = retinue.drift(run, fresh(tmp_path / "new"), engine="torch")
    assert not found.drifted
    assert found.told()[0] == "like the training data, as far as 30 images can tell"
    assert {one.name for one in found.shifts} >= {"brightness", "sharpness", "confidence"}
    assert found.features is not None
    assert found.features.verdict == "same"
    assert found.features.low <= 0.5


def test_darker_images_are_told_to_be_darker(run: Path, tmp_path: Path) -> None:
    found = retinue.drift(run, fresh(tmp_path / "new", dim=0.2), engine="torch")
    assert found.drifted
    assert "very unlike the training data in:" in found.told()[0]
    (line,) = [line for line in found.told() if line.startswith("brightness:")]
    assert "darker" in line
    told = found.as_dict()
    assert told["drifted"] is True
    assert told["features"]["verdict"] == "far off"
    assert any(line.startswith("features: new images are told from known") for line in found.told())
    assert abs(sum(now for _, now in found.shares.values()) - 1) < 1e-9


def test_an_export_has_no_features_to_compare(run: Path, tmp_path: Path) -> None:
    new = fresh(tmp_path / "new")
    export = retinue.export(run, "torchscript", out=tmp_path / "best.torchscript", images=new)
    found = retinue.drift(export.path, new, against=fresh(tmp_path / "old", dim=0.98))
    assert found.new == 30
    assert found.features is None
    assert found.as_dict()["features"] is None
    assert not any("features" in line for line in found.told())


def test_images_that_cannot_be_read_are_named_and_left_out(run: Path, tmp_path: Path) -> None:
    place = fresh(tmp_path / "new")
    (place / "bad.png").write_bytes(b"\x89PNG no")
    found = retinue.drift(run, place, engine="torch")
    assert list(found.skipped) == [str(place / "bad.png")]
    assert found.new == 30


def test_known_images_that_cannot_be_read_are_told_and_not_counted(
    run: Path, tmp_path: Path
) -> None:
    old, new = fresh(tmp_path / "old"), fresh(tmp_path / "new", dim=0.98)
    (old / "3.png").write_bytes(b"\x89PNG no")
    found = retinue.drift(run, new, against=old, engine="torch")
    assert (found.known, found.new, found.skipped) == (29, 30, {})
    assert any(
        line.startswith("1 known image cannot be read") and "3.png" in line for line in found.told()
    )
    for file in old.iterdir():
        file.write_bytes(b"\x89PNG no")
    with pytest.raises(UsageError, match=r"only 0 known images can be read.*\.png"):
        retinue.drift(run, new, against=old, engine="torch")


def test_too_few_images_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="new data has 5 images: too few"):
        retinue.drift(run, fresh(tmp_path / "new", count=5), engine="torch")


def test_a_model_alone_wants_to_be_told_its_data(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "best.safetensors"
    alone.write_bytes((run / "best.safetensors").read_bytes())
    new = fresh(tmp_path / "new")
    with pytest.raises(UsageError, match=r"where its data is.*--against"):
        retinue.drift(alone, new, engine="torch")
    assert retinue.drift(alone, new, against=new, engine="torch").known == 30


def test_the_same_images_are_told_to_be_the_same(run: Path, tmp_path: Path) -> None:
    data = run.parent / "photos"
    found = retinue.drift(run, data)
    count = len(list(data.rglob("*.png")))
    assert found.told() == [f"the same images: all {count} are known ones, byte for byte"]
    assert (found.drifted, found.new, found.same) == (False, 0, count)
    assert found.as_dict()["same"] == count


def test_copies_of_known_images_are_counted_and_left_out(run: Path, tmp_path: Path) -> None:
    """Learnt as known, an image's copy is taken for known."""
    new = fresh(tmp_path / "new")
    for file in sorted((run.parent / "photos").rglob("*.png")):
        (new / f"{file.parent.name} {file.name}").write_bytes(file.read_bytes())
    copied = len(list(new.iterdir())) - 30
    found = retinue.drift(run, new, engine="torch")
    assert (found.new, found.same) == (30, copied)
    assert f"{copied} new images are known ones, byte for byte, and left out" in found.told()
    assert found.features is not None
    assert found.features.high > 0.5
    for file in list(fresh(tmp_path / "few", count=5).iterdir()):
        file.rename(new / f"few {file.name}")
    for file in new.glob("[0-9]*.png"):
        file.unlink()
    with pytest.raises(UsageError, match=f"has 5 images, and {copied} that are known ones: too"):
        retinue.drift(run, new)


def test_paths_of_what_cannot_be_read_are_whole(run: Path, tmp_path: Path) -> None:
    place = tmp_path / ("a long name " * 8) / "猫 & dog"
    place.parent.mkdir()
    old = fresh(place)
    bad = old / "corrupt.png"
    bad.write_bytes(b"\x89PNG no")
    found = retinue.drift(run, fresh(tmp_path / "new", dim=0.9), against=old, engine="torch")
    assert any(repr(str(bad)) in line for line in found.told())


def test_what_is_too_few_is_told_before_a_model_is_opened(run: Path, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"no model")
    with pytest.raises(UsageError, match="new data has 5 images: too few"):
        retinue.drift(
            tmp_path / "best.safetensors",
            fresh(tmp_path / "new", count=5),
            against=fresh(tmp_path / "old", dim=0.9),
        )
