"""Errors, exit codes and start-up: what scripts rely on."""

import errno
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from retinue import api
from retinue.cli.app import app
from retinue.errors import BadImageError, Interrupted, RetinueError, UsageError

Command = Callable[..., Any]
COMMANDS = [
    "train", "recipes", "evaluate", "predict", "models", "report", "export", "import", "clean",
    "checks", "demo",
]  # fmt: skip


def failing(error: BaseException) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from retinue.cli.app import run
code = run(["--help"])
heavy = {"torch", "cv2", "matplotlib", "numpy", "pydantic", "pyarrow", "PIL", "jinja2", "ruamel"}
print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    assert done.stderr.strip() == "0 []"
    assert "train" in done.stdout


def test_recipes_are_listed_and_copied_without_the_network_library(tmp_path: Path) -> None:
    program = """
import sys
from retinue.cli.app import run
codes = [run(["recipes"]), run(["recipes", "finetune", "--copy", sys.argv[1]])]
print(codes, sorted({"torch", "cv2", "numpy", "pyarrow"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "mine.yaml")],
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert done.stderr.strip() == "[0, 0] []"
    assert (tmp_path / "mine.yaml").is_file()


@pytest.mark.parametrize(
    "command",
    [
        *([name] for name in COMMANDS),
        ["data", "check"],
        ["data", "convert"],
        ["data", "anchors"],
        [],
    ],
)
def test_every_help_has_an_example(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    if command:
        assert f"retinue {' '.join(command)}" in " ".join(done.output.split())
        assert "Example" in done.output


def test_version(retinue: Command) -> None:
    import retinue as package

    assert retinue("--version") == (0, f"retinue {package.__version__}\n", "")


def test_an_error_is_one_line_of_three_parts(
    retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RetinueError("the disk\nmelted", where="disk 2", mend="cool it")
    monkeypatch.setattr(api, "write_report", failing(error))
    code, out, err = retinue("report", "run")
    assert (code, out) == (1, "")
    assert err == "error: the disk\\nmelted, disk 2, cool it\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("no", mend="yes"), 2, "error: no, yes"),
        (Interrupted(2, mend="retinue train RUN --resume"), 130, "retinue train RUN --resume"),
        (Interrupted(15), 143, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BadImageError({"a\nb.jpg": "zero bytes"}), 1, r"'a\nb.jpg' (zero bytes)"),
        (MemoryError(), 1, "error: out of memory, a smaller batch_size"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/run"), 1,
         "error: the disk is full, '/data/run', make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 1,
         "error: Permission denied, '/data/x', change its permissions"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), 1,
         "error: Read-only file system, '/data/x', check the path, or choose another place"),
        (ZeroDivisionError("division\nby zero"), 1,
         "error: ZeroDivisionError: division, this is not expected, --debug shows"),
    ],
)  # fmt: skip
def test_every_failure_ends_in_one_line(
    retinue: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    monkeypatch.setattr(api, "write_report", failing(error))
    outcome = retinue("report", "run")
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback_and_then_the_line(
    retinue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "write_report", failing(ZeroDivisionError("oh")))
    code, _, err = retinue("report", "run", debug=True)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: ZeroDivisionError: oh")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_may_stand_anywhere(process: Command, place: int) -> None:
    line = ["report", "nowhere"]
    line.insert(place, "--debug")
    done = process(*line)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["trian"], "error: no such command 'trian', did you mean 'train'?"),
        (["train"], "error: missing argument 'RECIPE', see `retinue train --help`"),
        (["report", "x", "--foo"], "error: no such option: --foo"),
        (["models", "--sort", "weight"], "--sort"),
        (["evaluate", "x", "--split", "tset"], "did you mean 'test'?"),
        (["evaluate", "x", "--batch-size", "0"], "--batch-size"),
        (["predict", "x", "y", "--draw"], "add --out DIR"),
        (
            ["export", "x", "--to", "onx"],
            "error: 'onx' is not allowed: must be one of onnx, openvino, torchscript, torch-export,"
            " litert, timm, torchvision, savedmodel, keras, coreml, --to, did you mean 'onnx'?",
        ),
        (["evaluate", "x", "--engine", "onxruntime"], "--engine, did you mean 'onnxruntime'?"),
        (["evaluate", "x", "--tta", "flipp"], "--tta, did you mean 'flip'?"),
        (
            ["evaluate", "x", "--engine", "tensorrt"],
            "error: 'tensorrt' is not allowed: must be one of auto, torch, onnxruntime, openvino,"
            " --engine, see `retinue evaluate --help`",
        ),
        (
            ["evaluate", "x", "--batch-size", "0"],
            "error: '0' is not allowed: must be a whole number of at least 1, --batch-size, see",
        ),
        (["evaluate", "x", "--batch-size", "two"], "'two' is not allowed: must be a whole number"),
        (
            ["predict", "x", "y", "--overlap", "a"],
            "'a' is not allowed: must be a number, --overlap",
        ),
        (["explain", "x", "y", "--out", "z", "--method", "gradcan"], "did you mean 'gradcam'"),
        (["serve", "x", "-p", "70000"], "a whole number of at least 0 and at most 65535, --port"),
        (["evaluate", "x", "--bach-size", "3"], "--bach-size, did you mean '--batch-size'?"),
        (["train", "finetune", "seed"], "key=value"),
        (["train", "run", "seed=1", "--resume"], "this is no run folder"),
        (["train", "run", "--resume", "--out", "x"], "a training goes on in its own folder"),
        (["recipes", "fintune"], "did you mean 'finetune'?"),
        (["recipes", "--copy", "x.yaml"], "which recipe"),
        (["models", "resnt50"], "did you mean 'resnet50'"),
        (["models", "no*such"], "no network matches"),
        (["report", "/no/such/run"], "no such run folder"),
    ],
)
def test_usage_mistakes_are_one_line_and_exit_2(
    retinue: Command, line: list[str], words: str
) -> None:
    code, out, err = retinue(*line)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_without_arguments_there_is_help(retinue: Command) -> None:
    code, out, err = retinue()
    assert code == 2
    assert "Commands" in out + err
    assert "error:" not in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    """The pipe holds less than there is to say, so that the rest finds nobody."""
    line = [sys.executable, "-m", "retinue.cli", "checks", "--schema"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, pipesize=4096
    ) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        assert done.stdout.read(1) == b"{"
        done.stdout.close()
        assert done.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told() -> None:
    line = [sys.executable, "-m", "retinue.cli", "checks", "--schema"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full, make room, or choose another --out\n"


def test_schema_is_json_of_every_top_field(retinue: Command) -> None:
    code, out, _ = retinue("checks", "--schema")
    assert code == 0
    assert {"data", "model", "stages", "seed"} <= set(json.loads(out)["properties"])


def test_output_that_a_terminal_cannot_show(process: Command, tmp_path: Path) -> None:
    run = tmp_path / "猫"
    run.mkdir()
    (run / "recipe.yaml").write_text("task: classification\n")
    done = process("report", run, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\u732b" in done.stdout
    assert (run / "report.html").is_file()


def _texts(command: Any) -> Iterator[str]:
    """All that the help of a command, or of those below it, is written of."""
    yield from (command.help or "", command.epilog or "")
    yield from (getattr(parameter, "help", None) or "" for parameter in command.params)
    for below in getattr(command, "commands", {}).values():
        yield from _texts(below)


def test_no_word_of_a_help_is_taken_for_markup() -> None:
    """`retinue[sweep]` would be shown as `retinue`: brackets are written with a stroke before."""
    texts = list(_texts(typer.main.get_command(app)))
    assert len(texts) > 100
    assert not [text for text in texts if re.search(r"(?<!\\)\[/?[a-z]", text)]


def _commands(command: Any, line: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each that does something, with the words that name it."""
    below = getattr(command, "commands", {})
    if not below:
        yield line, command
    for name, one in below.items():
        yield from _commands(one, (*line, name))


def test_no_option_refuses_a_value_in_the_words_of_a_library(retinue: Command) -> None:
    tried = 0
    for line, command in _commands(typer.main.get_command(app)):
        wanted = typing.get_type_hints(command.callback, include_extras=True)
        for option in (one for one in command.params if one.param_type_name == "option"):
            if option.is_flag or str not in map(type, option.opts):
                continue
            kinds = str(wanted.get(option.name, ""))
            if not any(word in kinds for word in ("int", "float", "enum", "Enum")):
                continue
            for value in ("wörd", "-99999999"):
                _, _, err = retinue(*line, option.opts[0], value, *["x"] * 3)
                assert not re.search(
                    "[Vv]alue error|[Ii]nput should|unable to|is not one of '", err
                ), err
                tried += "is not allowed: must be" in err
    assert tried > 50
