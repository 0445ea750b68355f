"""Images that lie in one file with others: archives, and other shards."""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from retinue.data.on_demand import Column, Positions, Repeated
from retinue.files import open_file


@dataclass(frozen=True, slots=True)
class Member:
    """A range of bytes of a file, as a `Read`. Raises OSError."""

    file: str
    offset: int
    length: int
    checksum: int | None = None
    """CRC-32C that the bytes had when the file was looked through; None: it is not known."""

    def __call__(self) -> bytes:
        """The bytes, all of them."""
        with open_file(self.file) as file:
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) < self.length:
            lacking = self.length - len(content)
            raise OSError(f"truncated: {self.file!r} ends {lacking} bytes before the image does")
        if self.checksum is not None and google_crc32c.value(content) != self.checksum:
            raise OSError(f"other bytes than when {self.file!r} was first looked through")
        return content


class Members(Column[Member]):
    """Many members in 24 bytes each: `files` (n,) have them, from `offsets` (n,) on for `lengths`
    (n,) bytes, with these `checksums` (n,)."""

    def __init__(
        self,
        files: Repeated,
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        checksums: npt.NDArray[np.uint32],
    ) -> None:
        self.files = files
        self.offsets = offsets
        self.lengths = lengths
        self.checksums = checksums

    def __len__(self) -> int:
        return len(self.offsets)

    def _value(self, k: int) -> Member:
        return Member(
            self.files[k], int(self.offsets[k]), int(self.lengths[k]), int(self.checksums[k])
        )

    def take(self, positions: Positions) -> Members:
        """See `Column`."""
        return Members(
            self.files.take(positions),
            self.offsets[positions],
            self.lengths[positions],
            self.checksums[positions],
        )
