"""Run as a script by tests that kill a prediction: `python by_ray.py MODEL OUT ACTORS SOURCE…`, on
a Ray of two processors and 200 MiB of shared memory. `DIE=FILE`: an actor that comes to that file
ends itself."""

from __future__ import annotations

import logging
import os
import sys


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
    from retinue.bulk.actors import Answering
    from retinue.errors import RetinueError

    class Mortal(Answering):
        def __call__(self, batch: dict[str, object]) -> dict[str, object]:
            if os.environ["DIE"].encode() in bytes(batch["rows"][0]):  # type: ignore[index]
                os._exit(9)
            return super().__call__(batch)

    if "DIE" in os.environ:
        cluster.Answering = Mortal  # type: ignore[misc]
    model, out, actors, *sources = sys.argv[1:]
    try:
        done = retinue.predict(
            model, sources, out=out, engine="ray", actors=int(actors), batch_size=4
        )
    except RetinueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(done.images, len(done.skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
