"""What people set: the base of every options class, and how what they write becomes its values."""

from __future__ import annotations

from retinue.options.base import Contradiction, Options, Words
from retinue.options.resuming import OnResume

__all__ = ["Contradiction", "OnResume", "Options", "Words"]
