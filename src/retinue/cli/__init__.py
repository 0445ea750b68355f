"""The command line: one file a command, each parses, calls `retinue.api` and prints.

Nothing heavy is imported before a command runs, so that `retinue --help` answers at once.
"""

from __future__ import annotations

from retinue.cli.app import main

__all__ = ["main"]
