"""A classifier's answers, written on a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from retinue.tasks.lettering import fit


def caption(image: npt.NDArray[np.uint8], lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A copy of `image`, RGB uint8 (height, width, 3), with `lines` on a dark band at its top.

    The text's height follows the image's; a line that is too long is cut with an ellipsis.
    """
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    size = max(10, min(picture.size) // 20)
    pad = size // 3
    band = Image.new("RGB", (picture.width, min(picture.height, len(lines) * (size + pad) + pad)))
    pen = ImageDraw.Draw(band)
    for i, line in enumerate(lines):
        text, font = fit(line, size, picture.width - 2 * pad)
        pen.text((pad, pad // 2 + i * (size + pad)), text, fill=(255, 255, 255), font=font)
    under = picture.crop((0, 0, band.width, band.height))
    picture.paste(Image.blend(under, band, 0.65), (0, 0))
    # The blend dims the letters; drawing them again at full strength keeps them readable.
    pen = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        text, font = fit(line, size, picture.width - 2 * pad)
        pen.text((pad, pad // 2 + i * (size + pad)), text, fill=(255, 255, 255), font=font)
    return np.asarray(picture, dtype=np.uint8).copy()
