"""What a network holds, as pictures: the first layer's kernels, the maps of its levels for an
image, and how alike the position embeddings of a transformer are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn

from retinue.errors import UsageError
from retinue.explaining.looking import seen, the_network
from retinue.explaining.pictures import FAINT, GROUND, INK
from retinue.inference.predictor import Predictor
from retinue.inference.tracing import evaluating
from retinue.models.network import Level, Network
from retinue.sample import Pixels, Sample
from retinue.tasks.lettering import fit

KERNELS, FEATURES, POSITIONS = SHEETS = ("kernels", "features", "positions")
_MOST_KERNELS, _COMPONENTS = 256, 28
"""Of more kernels, so many principal components are shown, as Dosovitskiy et al. (2020, figure 7)
do."""
_CHANNELS = 16
"""Of a level's maps on a sheet."""
_MOST_PLACES = 14
"""Rows and columns of a grid of positions whose maps are shown; of a larger grid evenly."""
_GAP, _LETTERS = 3, 14


def kernels(network: Network) -> Pixels:
    """The kernels of the layer that takes the image, RGB uint8: each from its lowest value, black,
    to its highest; of a layer that takes colours in colours. Of more than 256 the 28 leading
    principal components. UsageError for a network that begins otherwise."""
    layer = _input_layer(network)
    weight = layer.weight.detach().float().cpu()
    count = len(weight)
    said = f"{count} kernels of {weight.shape[2]} × {weight.shape[3]} pixels"
    if count > _MOST_KERNELS:
        flat = weight.flatten(1)
        _, _, basis = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        weight = basis[:_COMPONENTS].reshape(-1, *weight.shape[1:])
        said = f"{len(weight)} leading principal components of {said}"
    shown = [_colours(one) for one in weight.numpy()]
    side = max(48, 3 * weight.shape[-1])
    columns = math.ceil(math.sqrt(len(shown) * 1.6))
    return _sheet([(said, [_enlarged(one, side) for one in shown])], columns)


def feature_maps(predictor: Predictor, sample: Sample) -> Pixels:
    """What each level of the network makes of an image, RGB uint8: the channels that vary most,
    from dark, their lowest value, to bright. Raises BadImageError; UsageError for a network without
    levels."""
    network = the_network(predictor)
    levels = levels_of(network)
    batch = seen(predictor, sample)
    _, inputs = next(iter(predictor.inputs(batch)))
    with torch.inference_mode(), evaluating(network):
        maps = network.features(inputs)
    rows = [("input", [batch.images[0].permute(1, 2, 0).numpy()])]
    for level, found in zip(levels, maps, strict=True):
        one = found[0].float().cpu()
        most = one.flatten(1).var(1).argsort(descending=True)[:_CHANNELS].sort().values
        height, width = one.shape[1:]
        said = f"stride {level.stride}: {len(one)} channels of {height} × {width}"
        rows.append((said, [_viridis(_spread(one[k].numpy())) for k in most.tolist()]))
    side = 112
    return _sheet([(said, [_enlarged(x, side) for x in row]) for said, row in rows], _CHANNELS // 2)


def levels_of(network: Network) -> list[Level]:
    """Those of which there are maps. UsageError for a network without any."""
    levels = network.feature_levels
    if not levels:
        raise UsageError("the network has no feature levels", where=network.name or None)
    return levels


def position_maps(network: Network) -> Pixels:
    """How alike the position embedding of each patch is to those of all others, RGB uint8: a map a
    patch, where the patch lies; dark: the cosine is −1, bright: 1 (Dosovitskiy et al., 2020, figure
    7). UsageError for a network that has none."""
    positions = network.positions()
    if positions is None:
        raise UsageError(
            "the network has no position embeddings", where=network.name or None,
            mend="transformers that learn them have",
        )  # fmt: skip
    grid = positions.detach().float().cpu()
    rows, columns = grid.shape[:2]
    flat = F.normalize(grid.flatten(0, 1), dim=1)
    alike = (flat @ flat.T).reshape(rows, columns, rows, columns).numpy()
    chosen = [
        np.unique(np.linspace(0, count - 1, min(count, _MOST_PLACES)).round().astype(int))
        for count in (rows, columns)
    ]
    side = max(40, 2 * max(rows, columns))
    shown = [
        _enlarged(_viridis(_levels((alike[row, column] + 1) / 2)), side)
        for row in chosen[0]
        for column in chosen[1]
    ]
    said = f"{rows} × {columns} positions, of each how alike the others are"
    return _sheet([(said, shown)], len(chosen[1]))


def _input_layer(network: Network) -> nn.Conv2d:
    try:
        found: nn.Module | None = network.get_submodule(network.input_layer)
    except AttributeError:
        found = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if not isinstance(found, nn.Conv2d):
        raise UsageError("the network does not begin with kernels", where=network.name or None)
    return found


def _colours(kernel: npt.NDArray[np.float32]) -> Pixels:
    """(channels, height, width) as RGB; of other than three channels their mean, in grey."""
    rgb = kernel if len(kernel) == 3 else np.repeat(kernel.mean(0, keepdims=True), 3, 0)
    return _spread(rgb.transpose(1, 2, 0))


def _spread(values: npt.NDArray[np.float32]) -> Pixels:
    """From the lowest value, 0, to the highest, 255; one that does not vary is grey."""
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return _levels(share)


def _levels(share: npt.NDArray[np.float32]) -> Pixels:
    levels: Pixels = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _viridis(levels: Pixels) -> Pixels:
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1], np.uint8)


def _enlarged(picture: Pixels, side: int) -> Pixels:
    """With its longer side `side` pixels long, its own pixels as squares; a larger one shrunk."""
    height, width = picture.shape[:2]
    ratio = side / max(height, width)
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    how = cv2.INTER_NEAREST if ratio > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _sheet(groups: Sequence[tuple[str, Sequence[Pixels]]], columns: int) -> Pixels:
    """Groups of pictures below each other, each below what is said of it, `columns` in a row."""
    line = _LETTERS + 8
    tall = [max(one.shape[0] for one in pictures) + _GAP for _, pictures in groups]
    wide = [max(one.shape[1] for one in pictures) + _GAP for _, pictures in groups]
    rows = [-(-len(pictures) // columns) for _, pictures in groups]
    width = max(w * min(columns, len(p)) for w, (_, p) in zip(wide, groups, strict=True))
    width = max(width, 360) + 2 * _GAP
    height = sum(line + r * t for r, t in zip(rows, tall, strict=True)) + 2 * _GAP
    sheet = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for (said, pictures), t, w, count in zip(groups, tall, wide, rows, strict=True):
        text, font = fit(said, _LETTERS, width - 2 * _GAP)
        pen.text((_GAP, top), text, fill=INK if said == groups[0][0] else FAINT, font=font)
        top += line
        for number, picture in enumerate(pictures):
            place = (_GAP + number % columns * w, top + number // columns * t)
            sheet.paste(Image.fromarray(picture), place)
        top += count * t
    return np.asarray(sheet, dtype=np.uint8).copy()
