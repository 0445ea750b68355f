"""How images are prepared for an exported network: in words, and as code for the other side.

The code does with Pillow and torchvision, which timm needs, too, what `data.views.EvalView` does:
the same sizes, rounded alike.
"""

from __future__ import annotations

from retinue.sample import Preprocessing

_BEFORE = """\
import numpy as np
from PIL import Image, ImageOps
from torchvision import transforms

def opaque(image):  # 16 bits to 8, transparency on its background
    if image.mode.startswith("I;"):
        values = np.minimum(np.asarray(image).astype("uint32"), {most})
        image = Image.fromarray(((values * 255 + {half}) // {most}).astype("uint8"))
    if image.has_transparency_data:
        flat = Image.new("RGBA", image.size, {background})
        image = Image.alpha_composite(flat, image.convert("RGBA"))
    return image.convert("RGB")
"""

_COMPOSE = """\
prepare = transforms.Compose([
    ImageOps.exif_transpose,
    opaque,
{steps}
    transforms.ToTensor(),
    transforms.Normalize({mean}, {std}),
])
# {answer}.softmax(1)"""
_LOGITS = 'network.eval()(prepare(Image.open("photo.jpg"))[None])'

_COVER = """
def resize(image):  # to cover a width of {wide} and a height of {tall}
    width, height = image.size
    size = max(({wide}, {wide} * height // width), ({tall} * width // height, {tall}))
    return image.resize(size, Image.Resampling.{method})
"""

_LETTERBOX = """
def letterbox(image):
    ratio = min({wide} / image.width, {tall} / image.height)
    size = [max(round(side * ratio), 1) for side in image.size]
    canvas = Image.new("RGB", ({wide}, {tall}), ({grey}, {grey}, {grey}))
    corner = (({wide} - size[0]) // 2, ({tall} - size[1]) // 2)
    canvas.paste(image.resize(size, Image.Resampling.{method}), corner)
    return canvas
"""


def code(how: Preprocessing, temperature: float = 1.0) -> str:
    """Python that defines `prepare`, from a Pillow image to float32 (3, height, width), and shows
    how probabilities are made of the logits, which are divided by `temperature`."""
    answer = _LOGITS if temperature == 1.0 else f"({_LOGITS} / {temperature:.6g})"
    tall, wide = how.size
    method = how.interpolation.upper()
    function = ""
    if how.fit == "squash":
        steps = [f"transforms.Resize(({tall}, {wide}), transforms.InterpolationMode.{method})"]
    elif how.fit == "letterbox":
        function = _LETTERBOX.format(tall=tall, wide=wide, grey=how.pad_value, method=method)
        steps = ["letterbox"]
    elif tall == wide:
        side, _ = how.covered
        steps = [
            f"transforms.Resize({side}, transforms.InterpolationMode.{method})",
            f"transforms.CenterCrop({tall})",
        ]
    else:
        cover_tall, cover_wide = how.covered
        function = _COVER.format(tall=cover_tall, wide=cover_wide, method=method)
        steps = ["resize", f"transforms.CenterCrop(({tall}, {wide}))"]
    compose = _COMPOSE.format(
        steps="\n".join(f"    {step}," for step in steps),
        mean=how.mean,
        std=how.std,
        answer=answer,
    )
    most = (1 << how.depth) - 1
    before = _BEFORE.format(most=most, half=most // 2, background=(*how.background, 255))
    return "\n".join(part for part in (before, function and function + "\n", compose) if part)


def words(how: Preprocessing) -> str:
    """The same as one line."""
    tall, wide = how.size
    filtered = how.interpolation + (", antialiased" if how.interpolation != "nearest" else "")
    if how.fit == "squash":
        part = f"resized to {tall}×{wide} ({filtered}), the aspect ratio given up"
    elif how.fit == "letterbox":
        part = f"resized to fit {tall}×{wide} ({filtered}), padded with grey {how.pad_value}"
    else:
        cover_tall, cover_wide = how.covered
        part = f"the shorter side resized to {cover_tall}"
        if tall != wide:
            part = f"resized to cover {cover_tall}×{cover_wide}"
        part += f" ({filtered}), of that the middle {tall}×{wide}"
    if how.background != (255, 255, 255):
        part = f"transparency on {how.background}, {part}"
    if how.depth != 16:
        part = f"16-bit grey of {how.depth} bits, {part}"
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (how.mean, how.std))
    return f"RGB, {part}, values / 255, minus {mean}, divided by {std}"
