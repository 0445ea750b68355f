"""Where images and labels come from. `open_dataset` recognises the format and says what it found.

A format is a function from options to a `Listing`; everything after that (classes, splits, notes)
is the same for all.
"""

from __future__ import annotations

from retinue.data.sources.dataset import Dataset, open_dataset
from retinue.data.sources.listing import Listing, Record
from retinue.data.sources.recognise import read_listing, recognise

__all__ = ["Dataset", "Listing", "Record", "open_dataset", "read_listing", "recognise"]
