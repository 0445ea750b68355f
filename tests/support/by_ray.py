"""Run as a script by tests that kill a prediction: `python by_ray.py MODEL OUT ACTORS SOURCE…`, on
a Ray of two processors and 200 MiB of shared memory. `DIE=FILE`: an actor that comes to that image
ends itself, with `ONCE=PLACE` only if there is no file PLACE yet. `RAISE=later`: it raises an error
in place of that; `RAISE=first`: it gets another model than was meant."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa


def main() -> int:
    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    import retinue
    from retinue.bulk import cluster
    from retinue.bulk.actors import Answering, Order
    from retinue.errors import RetinueError

    class Mortal(Answering):
        def __init__(self, order: Order) -> None:
            if os.environ.get("RAISE") == "first":
                order = replace(order, digests=("0" * 64,))
            super().__init__(order)

        def answer(self, start: int, rows: pa.Table) -> bytes:
            paths = b"\n".join(rows["path"].to_pylist())
            if os.environ.get("DIE", "no such image").encode() in paths:
                if os.environ.get("RAISE") == "later":
                    raise ZeroDivisionError("no luck")
                place = Path(os.environ.get("ONCE", "no such place"))
                if not place.exists():
                    if "ONCE" in os.environ:
                        place.touch()
                    os._exit(9)
            return super().answer(start, rows)

    cluster.Answering = Mortal  # type: ignore[misc]
    model, out, actors, *sources = sys.argv[1:]
    try:
        done = retinue.predict(
            model, sources, out=out, engine="ray", actors=int(actors), batch_size=4
        )
    except RetinueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("done", done.images, len(done.skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
