"""Where images and labels come from. `open_dataset` recognises the format and says what it found.

A format is a `Reader`, which makes a `Listing`; everything after that (classes, splits, notes) is
the same for all. Which formats there are is the task's affair.
"""

from __future__ import annotations

from retinue.data.sources.dataset import Dataset, judged_split, open_dataset
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.member import Member
from retinue.data.sources.records import Record, Records

__all__ = [
    "Dataset",
    "Listing",
    "Member",
    "Reader",
    "Record",
    "Records",
    "judged_split",
    "open_dataset",
]
