"""Ray: started or joined, and parts sent through its actors. The only file that imports it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from retinue.bulk.actors import Answering, Order, raised
from retinue.data.cpus import usable_cpus
from retinue.errors import RetinueError, UsageError
from retinue.text import first_line

OBJECT_STORE = 200 * 2**20
"""Bytes of shared memory of a Ray that is started here: rows and answers are small."""
RESTARTS = 2
"""How often a part is tried anew, and an actor started anew, after a death."""


def refuse_absent() -> None:
    """UsageError where Ray Data is not installed."""
    try:
        there = importlib.util.find_spec("ray.data") is not None
    except (ImportError, ValueError):  # without ray, or with another package of that name
        there = False
    if not there:
        raise UsageError(
            "the engine ray is not installed",
            where="engine",
            mend="pip install 'retinue[ray]'; on one machine `predict` is quicker without it",
        )


@contextmanager
def connected() -> Iterator[tuple[int, int]]:
    """Processors and GPUs of the cluster that is there: of this process, of `RAY_ADDRESS`, or else
    one on this machine, which ends with the context. Raises RetinueError where there is none."""
    refuse_absent()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent that nobody asked for
    ray: Any = importlib.import_module("ray")
    own = not ray.is_initialized()
    if own:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not os.environ.get("RAY_ADDRESS"):
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own account of restarts
            quiet |= {
                "address": "local",
                "num_cpus": usable_cpus(),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
            }
        ending = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**quiet)
            if threading.current_thread() is threading.main_thread():
                # Ray puts a handler of its own beneath, which aborts three seconds later.
                signal.signal(signal.SIGTERM, ending)
        except Exception as error:  # whatever it finds
            raise RetinueError(
                f"Ray cannot be reached: {first_line(error, type(error).__name__)}",
                where=os.environ.get("RAY_ADDRESS", "this machine"),
                mend="start it (`ray start --head`), or unset RAY_ADDRESS",
            ) from error
    with redirect_stdout(sys.stderr):  # where Ray tells of deaths; ours is for the outcome
        try:
            resources: Mapping[str, float] = ray.cluster_resources()
            yield int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        finally:
            if own:
                ray.shutdown()


def answered(
    order: Order, parts: list[dict[str, Any]], *, actors: int, cpus: int, gpus: int
) -> Iterator[tuple[int, bytes]]:
    """Number and lines of each of the `parts` as they are done, in any order. Closing the iterator
    ends the work.

    Raises RetinueError: what an actor told, or that actors died more often than `RESTARTS`.
    """
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data: Any = ray.data.from_items(parts, override_num_blocks=len(parts))
    with warnings.catch_warnings():
        # By default an actor is started anew for ever, and a model that is too large hangs. What
        # follows on these arguments is not there yet; the extra ends where they do.
        warnings.filterwarnings("ignore", ".*ray_remote_args.*")
        data = data.map_batches(
            Answering,
            fn_constructor_args=(order,),
            batch_size=1,
            compute=ActorPoolStrategy(size=actors),
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
    try:
        for row in data.iter_rows():
            if problem := bytes(row["problem"]):
                raised(problem)
            yield int(row["part"]), bytes(row["lines"])
    except (KeyboardInterrupt, GeneratorExit, RetinueError):
        raise
    except Exception as error:
        raise _ours(error) from error


_DEATHS = {"ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "OutOfMemoryError"}


def _ours(error: BaseException) -> RetinueError:
    """What Ray raises: mostly, that an actor died."""
    if any(kind.__name__ in _DEATHS for kind in type(error).__mro__):
        return RetinueError(
            "an actor died, and died again when it was started anew",
            where="Ray",
            mend="is there memory enough? Take fewer actors (--actors) or a smaller --batch-size;"
            " the same command goes on from what is done",
        )
    said = first_line(error, "no more is known")
    return RetinueError(f"Ray failed: {type(error).__name__}: {said}", where="Ray")
