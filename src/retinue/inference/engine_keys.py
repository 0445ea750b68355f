"""What a compiled graph is found by in the cache: what it computes, with which weights, and by
which versions on which processor; and checksums. Without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retinue.data.cpus import usable_cpus
from retinue.documents import json_text, parse_json
from retinue.files import read_file
from retinue.processor import cpu_flags, cpu_name

FORMAT = 1
"""Counts up when the same network comes to other graphs."""
PACKAGES = ("retinue", "torch", "openvino", "onnxruntime", "onnx", "onnxscript", "timm")
"""What has a say in how a network is converted and run."""
DIGEST = 16
"""Bytes of a checksum."""
_PIECE = 16 << 20

Buffer = bytes | memoryview
Tensors = Sequence[tuple[str, str, Sequence[int], Buffer]]
"""Of each its name, its type as safetensors call it (`F32`), its shape and its bytes in C order."""


def facts(
    computed: Mapping[str, Any],
    weights: str,
    inputs: Sequence[tuple[str, Sequence[int]]],
    precision: str = "fp32",
) -> dict[str, Any]:
    """What tells a graph from every other: JSON values, to be made a key by `key_of`.

    `computed`: which function of the weights and inputs it is, `of_model` say;
    `weights`: `weights_of_file`, or the same of tensors; `inputs`: of each leaf the type
    (`float32`) and the shape without the batch's.
    """
    return {
        "format": FORMAT,
        "computed": dict(computed),
        "weights": weights,
        "inputs": [[kind, list(shape)] for kind, shape in inputs],
        "precision": precision,
        "versions": versions(),
        "code": _code(),
        "processor": [cpu_name(), *cpu_flags()],
    }


def of_model(
    task: str, network: str, arguments: Mapping[str, Any], task_state: Mapping[str, Any]
) -> dict[str, Any]:
    """What a model file's network computes, by what the file says of itself, for `facts`."""
    return {
        "task": task, "network": network, "arguments": dict(arguments), "state": dict(task_state)
    }  # fmt: skip


def key_of(facts: Mapping[str, Any]) -> str:
    """32 hex digits for `facts`."""
    text = json_text(facts, ordered=True).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=DIGEST).hexdigest()


def choice_key(facts: Mapping[str, Any]) -> str:
    """32 hex digits for what the speed of a network depends on: `facts` but for its weights, and
    for what a task has learnt beside them."""
    computed = {k: v for k, v in facts["computed"].items() if k != "state"}
    return key_of({**facts, "computed": computed, "weights": ""})


def versions() -> dict[str, str]:
    """Of each of the `PACKAGES` that is installed."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _code() -> str:
    """What the networks' own files say: with other lines the same weights may mean another
    function."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for file in sorted((Path(__file__).parent.parent / "models").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + read_file(file))
    return digest.hexdigest()


def weights_of(tensors: Tensors) -> str:
    """32 hex digits for the tensors, in whatever order they come."""
    ordered = sorted(tensors, key=lambda one: one[0])
    sums = checksums([content for *_, content in ordered])
    said = [
        [name, kind, list(shape), one.hex()]
        for (name, kind, shape, _), one in zip(ordered, sums, strict=True)
    ]
    return key_of({"tensors": said})


def weights_of_file(path: Path) -> str:
    """`weights_of` the tensors of a safetensors file. OSError or ValueError where it is none."""
    content = memoryview(read_file(path))
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError("no safetensors file")
    header = parse_json(bytes(content[8:start]))
    tensors = []
    for name, one in header.items():
        if name != "__metadata__":
            first, last = one["data_offsets"]
            tensors.append(
                (name, one["dtype"], one["shape"], content[start + first : start + last])
            )
    return weights_of(tensors)


def checksums(buffers: Sequence[Buffer]) -> list[bytes]:
    """16 bytes for each of the buffers: BLAKE2b of the BLAKE2b of its pieces of 16 MB, of which
    several are read at a time."""
    pieces = [
        (number, memoryview(buffer)[start : start + _PIECE])
        for number, buffer in enumerate(buffers)
        for start in range(0, len(buffer), _PIECE)
    ]

    def read(piece: tuple[int, Buffer]) -> bytes:
        return _digest(piece[1])

    with ThreadPoolExecutor(min(usable_cpus(), 8), thread_name_prefix="retinue-sums") as pool:
        # A thread costs more than it saves where there is little to read.
        several = sum(len(piece) for _, piece in pieces) > _PIECE
        sums = list((pool.map if several else map)(read, pieces))
    found = [b""] * len(buffers)
    for (number, _), one in zip(pieces, sums, strict=True):
        found[number] += one
    return [_digest(one) for one in found]


def _digest(content: Buffer) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
