"""Files of `torch.export`, run by PyTorch."""

from __future__ import annotations

import ast
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from retinue.documents import parse_json
from retinue.errors import RetinueError
from retinue.files import read_file
from retinue.inference.runtimes import Opened, unloadable
from retinue.inference.runtimes.torchscript import FILE, ProgramEngine

_KNOWN = re.compile(
    r"[^/]*/(archive_format|archive_version|byteorder|\.data/\w+|extra/[^/]+|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt)"
)
"""What there is in a file of tensors and a graph alone."""
_WORD = re.compile(r"[A-Za-z0-9_.]*")
_TREE = r'[\[\]{}:, 1]|null|"(null|\[\]|type|context|children_spec|builtins\.(tuple|list|dict))"'
_TEXTS = {
    "name": re.compile(r"[A-Za-z0-9_]*"),
    "as_name": re.compile(r"[A-Za-z0-9_]*"),
    "as_float": re.compile(r"-?Infinity|NaN"),
    "in_spec": re.compile(f"({_TREE})*"),
    "out_spec": re.compile(f"({_TREE})*"),
    "torch_version": re.compile(r"[A-Za-z0-9_.+-]*"),
    "stack_trace": re.compile(r"(?s).*"),  # nobody reads it
    "nn_module_stack": re.compile(r"[A-Za-z0-9_.,;@]*"),
    "torch_fn": re.compile(r"[A-Za-z0-9_.,;]*"),
}
"""Of the texts in the graph: key → what may stand there; elsewhere a word."""
_OPERATION = re.compile(
    r"torch\.ops\.aten\.(?!from_file\.)\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+", re.ASCII
)
_SIZE = re.compile(r"[A-Za-z0-9_(),=' .+-]*")
_FUNCTION = re.compile(
    r"Integer|Float|Rational|Add|Mul|Pow|Mod|Max|Min|Abs|floor|ceiling|FloorDiv|ModularIndexing"
    r"|Where|PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|PowByNatural|FloatTrueDiv|IntTrueDiv"
    r"|TruncToFloat|TruncToInt|RoundToInt|ToFloat|Identity|Equality|Unequality|StrictGreaterThan"
    r"|StrictLessThan|GreaterThan|LessThan|And|Or|Not"
)
"""What sizes are computed with."""


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`."""
    content = read_file(path)
    _refuse_code(content, path)
    found = {FILE: ""}
    try:
        program: Any = torch.export.load(io.BytesIO(content), extra_files=found)
        module = program.module().to(device)
    except Exception as error:
        raise unloadable(path, f"PyTorch {torch.__version__}", "torch", error) from error
    return Opened(
        found[FILE] or None,
        lambda signature, precision: ProgramEngine(module, signature, precision, device),
    )


def _refuse_code(content: bytes, path: Path) -> None:
    """Raise RetinueError for a file whose reading could execute what stands in it: tensors may be
    kept as pickles, and objects of any kind and compiled code beside them; of the graph, PyTorch
    makes Python code, and evaluates the sizes in it. Ours has none but of the plainest."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            odd = [name for name in names if not _KNOWN.fullmatch(name)]
            odd += [name for name in set(names) if names.count(name) > 1]
            for name in names:
                if name.endswith("_config.json"):
                    config = parse_json(archive.read(name), foreign=True)["config"]
                    odd += [key for key, meta in config.items() if meta["use_pickle"] is not False]
                elif name.endswith("/sample_inputs/model.pt"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                elif name.endswith("/model.json"):
                    odd += _odd(parse_json(archive.read(name), foreign=True))
    except Exception as error:
        library = f"PyTorch {torch.__version__}"
        raise unloadable(path, library, "torch", error, whole=False) from error
    if odd:
        raise RetinueError(
            f"it contains more than tensors and a graph ({odd[0]!r}), which might be executed",
            where=str(path),
            mend="export the model anew with retinue",
        )


def _odd(graph: Any) -> Iterator[str]:
    """The texts in a graph that are more than names, sizes and known operations."""
    if graph["guards_code"] != []:
        yield "guards_code"
    left = [("", graph)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += ((name, inner) for name, inner in value.items())
            if not all(_WORD.fullmatch(name) for name in value):
                yield next(name for name in value if not _WORD.fullmatch(name))
            if "inputs" in value and "target" in value:  # a node
                left.append(("operation", value["target"]))
        elif isinstance(value, list):
            left += ((key, inner) for inner in value)
        elif isinstance(value, str) and not _may_stand(key, value):
            yield f"{key}: {value}"[:100]


def _may_stand(key: str, text: str) -> bool:
    if key == "expr_str":
        return _is_size(text)
    if key == "operation":
        return _OPERATION.fullmatch(text) is not None
    word = key not in ("name", "as_name") and _WORD.fullmatch(text)
    return bool(word) or _TEXTS.get(key, _WORD).fullmatch(text) is not None


def _is_size(text: str) -> bool:
    """Whether it is composed of numbers, symbols and known functions alone."""
    if not _SIZE.fullmatch(text):
        return False
    try:
        left: list[ast.AST] = [ast.parse(text, mode="eval").body]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    while left:
        match left.pop():
            case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))], assumed):
                if not name.isidentifier():
                    return False
                left += [one.value for one in assumed]
            case ast.Call(ast.Name(name), arguments, []) if _FUNCTION.fullmatch(name):
                left += arguments
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float())):
                pass
            case ast.Constant(int() | float()) | ast.Name("true" | "false" | "oo"):
                pass
            case _:
                return False
    return True
