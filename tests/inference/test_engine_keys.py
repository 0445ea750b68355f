"""What a graph is found by is of everything that matters, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from retinue.inference import engine_keys
from retinue.inference.engine_keys import (
    checksums,
    facts,
    key_of,
    weights_of,
    weights_of_file,
)


def test_a_key_is_of_everything_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(**changed: object) -> str:
        given = {
            "computed": {"network": "n", "arguments": {"a": 1, "b": 2}}, "weights": "w",
            "inputs": [("float32", (3, 8, 8))], "precision": "fp32",
        } | changed  # fmt: skip
        return key_of(facts(**given))  # type: ignore[arg-type]

    first = key()
    assert first == key(computed={"arguments": {"b": 2, "a": 1}, "network": "n"})
    assert first == key(inputs=[("float32", [3, 8, 8])])
    others = [
        key(computed={"network": "n", "arguments": {"a": 1, "b": 3}}),
        key(weights="x"),
        key(inputs=[("float32", (3, 8, 9))]),
        key(inputs=[("float64", (3, 8, 8))]),
        key(precision="bf16"),
    ]
    monkeypatch.setattr(engine_keys, "version", lambda name: "9")
    others.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(engine_keys, "cpu_flags", lambda: ["mmx"])
    others.append(key())
    assert len({first, *others}) == len(others) + 1


def test_weights_are_told_apart_by_every_bit_name_type_and_shape(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32), np.arange(4, dtype=np.int64)
    save_file({"b": b, "a": a.reshape(2, 3)}, tmp_path / "w.safetensors", {"note": "x"})
    own = [("a", "F32", (2, 3), a.tobytes()), ("b", "I64", (4,), b.tobytes())]
    said = weights_of(own)
    assert weights_of_file(tmp_path / "w.safetensors") == said == weights_of(own[::-1])
    changed = a.copy()
    changed[5] = np.nextafter(np.float32(5), np.float32(6))
    for other in (
        [("a", "F32", (2, 3), changed.tobytes()), own[1]],
        [("a", "F32", (3, 2), a.tobytes()), own[1]],
        [("a", "I32", (2, 3), a.tobytes()), own[1]],
        [("c", "F32", (2, 3), a.tobytes()), own[1]],
        own[:1],
    ):
        assert weights_of(other) != said  # type: ignore[arg-type]


def test_a_file_that_is_no_safetensors_has_no_weights(tmp_path: Path) -> None:
    file = tmp_path / "w"
    for content in (b"", b"1234567", (1 << 40).to_bytes(8, "little") + b"{}", bytes(8)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="no safetensors file"):
            weights_of_file(file)


def test_sums_of_many_pieces_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_keys, "_PIECE", 10)
    buffers = [b"", b"0123456789", b"0123456789a", b"01234567890123456789"]
    assert checksums(buffers) == [checksums([one])[0] for one in buffers]
    assert len(set(checksums(buffers))) == 4
