"""The commands put together, and the contract that all of them keep about errors and exit codes."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from retinue.cli import (
    bench,
    benchmark,
    checks,
    clean,
    combine,
    data,
    demo,
    drift,
    evaluate,
    explain,
    export,
    hub,
    import_,
    line,
    models,
    predict,
    rates,
    recipes,
    report,
    serve,
    sweep,
    train,
)
from retinue.cli.failures import GONE, describe, hush, refuse_no_folder, secure_streams
from retinue.cli.options import add
from retinue.run.stopping import terminable

app = typer.Typer(
    name="retinue",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 mistake in what was asked, 3 done but files were "
    "skipped, 130 and 143 interrupted.",
)

add(app, "train", train.train, train.EXAMPLES, line.TAKE_ANY)
add(app, "rates", rates.rates, rates.EXAMPLES, line.TAKE_ANY)
add(app, "recipes", recipes.recipes, recipes.EXAMPLES)
add(app, "evaluate", evaluate.evaluate, evaluate.EXAMPLES)
add(app, "predict", predict.predict, predict.EXAMPLES)
add(app, "explain", explain.explain, explain.EXAMPLES)
add(app, "models", models.models, models.EXAMPLES)
app.add_typer(data.app, name="data")
add(app, "sweep", sweep.sweep, sweep.EXAMPLES, line.TAKE_ANY)
add(app, "drift", drift.drift, drift.EXAMPLES)
add(app, "soup", combine.soup, combine.SOUP_EXAMPLES)
add(app, "ensemble", combine.ensemble, combine.ENSEMBLE_EXAMPLES)
add(app, "report", report.report, report.EXAMPLES)
add(app, "export", export.export, export.EXAMPLES)
app.add_typer(bench.app, name="bench")
add(app, "benchmark", benchmark.benchmark, benchmark.EXAMPLES, hidden=True)
add(app, "serve", serve.serve, serve.EXAMPLES)
add(app, "import", import_.import_, import_.EXAMPLES)
add(app, "push", hub.push, hub.PUSH_EXAMPLES)
add(app, "pull", hub.pull, hub.PULL_EXAMPLES)
add(app, "clean", clean.clean, clean.EXAMPLES)
add(app, "checks", checks.checks, checks.EXAMPLES)
add(app, "demo", demo.demo, demo.EXAMPLES)


def _version(wanted: bool) -> None:
    if wanted:
        import retinue

        typer.echo(f"retinue {retinue.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere in the line).")
    ] = False,
) -> None:
    """Image recognition you can trust: train, evaluate and use classifiers and detectors on your
    own pictures."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; see docs/errors.md for the contract."""
    secure_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    if debug:
        given.remove("--debug")
    end(run(given, debug=debug))


def _tell(line: str) -> None:
    """On standard error; where that is full or has no reader, the exit code has to say it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        hush(sys.stderr)


def end(code: int) -> NoReturn:
    """End the process: at once where PyTorch was loaded, after all that is registered for the end.
    A thread that comes back from native code (a model being compiled, `torch.distributed`) while
    the interpreter is taken down aborts the process, and taking PyTorch down takes seconds."""
    if "torch" in sys.modules:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str], *, debug: bool = False) -> int:
    """The exit code of one command; everything that goes wrong ends as one line on stderr. SIGTERM
    ends it in good order, as Ctrl-C does."""
    with terminable() as heard:
        code = _run(arguments, debug)
    return 128 + signal.SIGTERM if heard.terminated and code == 130 else code


def _run(arguments: list[str], debug: bool) -> int:
    try:
        refuse_no_folder()
        code = app(arguments, prog_name="retinue", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit:  # a broken pipe, as Rich and Typer see it
        hush()
        return GONE
    except BaseException as error:
        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, BrokenPipeError):
            hush()
        line, code = describe(error)
        if line:
            _tell(line)
        return code
    if code == 130:  # Typer has caught a Ctrl-C
        _tell("interrupted")
    return code if isinstance(code, int) else 0
