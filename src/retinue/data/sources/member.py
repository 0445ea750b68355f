"""Images that lie in one file with others: archives, and other shards."""

from __future__ import annotations

from dataclasses import dataclass

from retinue.files import open_file


@dataclass(frozen=True, slots=True)
class Member:
    """A range of bytes of a file, as a `Read`. Raises OSError."""

    file: str
    offset: int
    length: int

    def __call__(self) -> bytes:
        """The bytes, all of them."""
        with open_file(self.file) as file:
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) < self.length:
            lacking = self.length - len(content)
            raise OSError(f"truncated: {self.file!r} ends {lacking} bytes before the image does")
        return content
