"""`python -m retinue.cli`, which is also how `torchrun -m` starts it."""

from __future__ import annotations

from retinue.cli.app import main

if __name__ == "__main__":
    main()
