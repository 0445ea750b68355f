"""Which images cannot be used: a quick first pass over headers and ends, or a full decode."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from retinue.data.decode import Encoded, check_size, is_jpeg, naming, open_pillow, read_image
from retinue.errors import BadImageError
from retinue.sample import Sample

_JPEG_SCAN, _JPEG_END, _PNG, _PNG_END = b"\xff\xda", b"\xff\xd9", b"\x89PNG\r\n\x1a\n", b"IEND"


def unreadable(samples: Sequence[Sample], thorough: bool, *, workers: int = 4) -> dict[str, str]:
    """Path → reason, for every sample whose image cannot be read.

    Quick: the file can be read, its header makes sense, its size is allowed, and a JPEG or PNG
    reaches its end marker. `thorough`: every pixel is decoded.
    """

    def reasons_of(sample: Sample) -> dict[str, str]:
        try:
            refuse_unreadable(sample, thorough)
        except BadImageError as error:
            return error.reasons
        return {}

    bad: dict[str, str] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="retinue-readable") as pool:
        for reasons in pool.map(reasons_of, samples):
            bad.update(reasons)
    return bad


def refuse_unreadable(sample: Sample, thorough: bool) -> None:
    """Raises `BadImageError` if the sample's image cannot be used."""
    source = read_image(sample.key, sample.read)
    if thorough or not isinstance(source, bytes):
        Encoded(source, path=sample.key).decode()
        return
    with naming(sample.key):
        if not source:
            raise ValueError("zero bytes")
        if is_jpeg(source):
            Encoded(source, path=sample.key)
            # Within a scan, 0xFF is always followed by 0 or a restart marker; a thumbnail's end
            # marker lies before the last scan begins.
            if source.rfind(_JPEG_END) < source.rfind(_JPEG_SCAN):
                raise ValueError("truncated: no end marker")
            return
        check_size(*open_pillow(source).size)
        if source.startswith(_PNG) and _PNG_END not in source[-4096:]:
            raise ValueError("truncated: no end marker")
