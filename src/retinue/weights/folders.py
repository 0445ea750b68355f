"""Folders of weights: Hugging Face transformers', timm's, TensorFlow.js', and our own runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor

from retinue.errors import RetinueError, UsageError
from retinue.sample import Interpolation, Preprocessing
from retinue.weights import keras
from retinue.weights.contents import Contents
from retinue.weights.guard import inside, load_json

BEST = "best.safetensors"
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = tuple(f"{name}.index.json" for name in WHOLE)

_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "efficientnet": {"batch_norm_eps": "norm_eps"},
    "mobilenet_v1": {"tf_padding": "same_padding", "layer_norm_eps": "norm_eps"},
    "mobilenet_v2": {"tf_padding": "same_padding", "layer_norm_eps": "norm_eps"},
    "vit": {
        "layer_norm_eps": "norm_eps",
        "num_attention_heads": "heads",
        "image_size": "image_size",
    },
}
"""What transformers' configurations say of the network, and our keywords for it."""

_MUST_BE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "efficientnet": {"hidden_act": ("swish", "silu"), "pooling_type": ("mean",)},
    "mobilenet_v1": {"hidden_act": ("relu6",)},
    "mobilenet_v2": {"hidden_act": ("relu6",), "output_stride": (32,)},
    "resnet": {"hidden_act": ("relu",), "downsample_in_first_stage": (False,)},
    "vit": {"hidden_act": ("gelu",), "qkv_bias": (True,), "pooler_act": ("tanh",)},
}
"""What no keyword of ours changes."""

_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which transformers' configurations have."""


Reader = Callable[[Path], Contents]
"""How a file in a folder is read."""


def read(folder: Path, file: Reader) -> Contents:
    """The weights in `folder`, whose files `file` reads, and what its configuration says of them.

    Raises:
        UsageError: no folder of a known kind.
        RetinueError: a file of it is missing, damaged, or elsewhere.
    """
    if (folder / BEST).is_file():
        return file(folder / BEST)
    if (folder / "model.json").is_file():
        tensors, paths = keras.read_tfjs(folder)
        return Contents(tensors=tensors, paths=paths)
    if not (folder / "config.json").is_file():
        raise UsageError("not a folder of weights", where=str(folder), mend=_what_else(folder))
    config = load_json(folder / "config.json")
    tensors, paths = _tensors(folder, file)
    try:
        if "architecture" in config or "pretrained_cfg" in config:
            return _of_timm(config, tensors, paths)
        return _of_transformers(folder, config, tensors, paths)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RetinueError(f"damaged configuration: {error!r}", where=str(folder)) from error


def _what_else(folder: Path) -> str:
    if (folder / "saved_model.pb").is_file():
        return "TensorFlow turns it into what is read: load_model(FOLDER).save('model.h5')"
    return (
        f"it has neither config.json (transformers, timm) nor model.json (TensorFlow.js) nor {BEST}"
        " (a run); to train from a file, name the file"
    )


def _tensors(folder: Path, file: Reader) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """All tensors, whole or in shards, and where they lie."""
    for name in WHOLE:
        if (folder / name).is_file():
            return file(folder / name).tensors, (folder / name,)
    for name in INDEX:
        if (folder / name).is_file():
            return _shards(folder, folder / name, file)
    raise RetinueError(
        "a configuration, but no weights beside it",
        where=str(folder),
        mend=f"it needs {' or '.join(WHOLE)}",
    )


def _shards(folder: Path, index: Path, file: Reader) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    places = load_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise RetinueError("damaged index: no weight_map", where=str(index))
    paths = tuple(inside(folder, name, index) for name in sorted(set(places.values())))
    read = {path.relative_to(folder).as_posix(): file(path).tensors for path in paths}
    tensors: dict[str, Tensor] = {}
    for key, name in places.items():
        if key not in read[Path(name).as_posix()]:
            raise RetinueError(
                f"the shard {name!r} lacks {key}", where=str(index), mend="copy the folder whole"
            )
        tensors[key] = read[Path(name).as_posix()][key]
    return tensors, paths


def _of_timm(
    config: Mapping[str, Any], tensors: dict[str, Tensor], paths: tuple[Path, ...]
) -> Contents:
    published = config.get("pretrained_cfg") or {}
    preprocessing = None
    if {"input_size", "mean", "std"} <= set(published):
        fits: dict[str, Literal["crop", "squash", "letterbox"]] = {
            "center": "crop", "squash": "squash", "border": "letterbox",
        }  # fmt: skip
        preprocessing = Preprocessing(
            size=_pair(published["input_size"][1:]),
            mean=_triple(published["mean"]),
            std=_triple(published["std"]),
            interpolation=cast(Interpolation, str(published.get("interpolation", "bilinear"))),
            fit=fits[published.get("crop_mode", "center")],
            crop_fraction=float(published.get("crop_pct", 0.875)),
        )
        if preprocessing.interpolation not in _RESAMPLE.values():
            preprocessing = replace(preprocessing, interpolation="bicubic")
    arguments: dict[str, Any] = {}
    if preprocessing and str(config.get("architecture")).startswith("vit_"):
        arguments = {"image_size": preprocessing.size[0]}  # which the position embeddings are of
    if made := re.match(r"(tf_)?(efficientnet_|mobilenetv)", str(config.get("architecture"))):
        from_tensorflow = made[1] is not None  # which no tensor shows
        arguments = {"same_padding": from_tensorflow, "norm_eps": 1e-3 if from_tensorflow else 1e-5}
    names = config.get("label_names") or published.get("label_names") or ()
    return Contents(
        tensors=tensors,
        paths=paths,
        preprocessing=preprocessing,
        arguments=arguments,
        classes=tuple(map(str, names)),
    )


def _of_transformers(
    folder: Path, config: Mapping[str, Any], tensors: dict[str, Tensor], paths: tuple[Path, ...]
) -> Contents:
    preprocessing, remark = None, ""
    described = folder / "preprocessor_config.json"
    if described.is_file():
        preprocessing = _preprocessing(load_json(described))
        if preprocessing is None:
            remark = "its preprocessing has no equal here: that of the network is used"
    kind = str(config.get("model_type", ""))
    arguments = _arguments(kind, config, folder)
    # The trunk alone is saved without the name that it has inside a classifier.
    if kind and not any(key.startswith((f"{kind}.", "classifier.")) for key in tensors):
        tensors = {f"{kind}.{key}": tensor for key, tensor in tensors.items()}
    return Contents(
        tensors=tensors,
        paths=paths,
        preprocessing=preprocessing,
        arguments=arguments,
        classes=_classes(config),
        remark=remark,
    )


def _arguments(kind: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Our keywords for what the configuration says.

    Raises:
        RetinueError: it asks for what our network of that kind does not compute.
    """
    for key, known in _MUST_BE.get(kind, {}).items():
        if key in config and config[key] not in known:
            raise RetinueError(
                f"its {key} is {config[key]!r}, and ours is always {known[0]!r}",
                where=str(folder / "config.json"),
            )
    says = _ARGUMENTS.get(kind, {})
    arguments: dict[str, Any] = {}
    for key, name in says.items():
        value = config.get(key)
        if isinstance(value, list) and len(set(value)) == 1:  # both sides of an image
            value = value[0]
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{key} is {value!r}")
        if value is not None:
            arguments[name] = value
    if kind == "resnet":
        arguments["stride_on"] = "1x1" if config.get("downsample_in_bottleneck") else "3x3"
    return arguments


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or {}
    numbered = sorted((int(k), str(v)) for k, v in names.items())
    if all(name == f"LABEL_{number}" for number, name in numbered):  # nobody has named them
        return ()
    return tuple(name for _, name in numbered)


class _Fit(NamedTuple):
    size: tuple[int, int]
    fit: Literal["crop", "squash"]
    fraction: float = 1.0


def _preprocessing(given: Mapping[str, Any]) -> Preprocessing | None:
    """What a transformers image processor does, of its `preprocessor_config.json`; None where
    that cannot be said with ours."""
    fit = _fit(given)
    resample = given.get("resample", 2)
    if fit is None or resample not in _RESAMPLE:
        return None
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if given.get("do_normalize", True):
        if "image_mean" not in given or "image_std" not in given:
            return None
        mean, std = _triple(given["image_mean"]), _triple(given["image_std"])
        if given.get("include_top") and "EfficientNet" in _processor(given):
            std = _triple([s * s for s in std])  # it divides by them twice
    # From its pixels, which may lie between −1 and 1, to ours between 0 and 1.
    scale = (
        255 * float(given.get("rescale_factor", 1 / 255)) if given.get("do_rescale", True) else 255
    )
    offset = 1.0 if given.get("rescale_offset") else 0.0
    return Preprocessing(
        size=fit.size,
        mean=_triple([(m + offset) / scale for m in mean]),
        std=_triple([s / scale for s in std]),
        interpolation=_RESAMPLE[resample],
        fit=fit.fit,
        crop_fraction=fit.fraction,
    )


def _processor(given: Mapping[str, Any]) -> str:
    return str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")


def _fit(given: Mapping[str, Any]) -> _Fit | None:
    """Size and crop: a fixed size, or the shortest edge and then the centre."""
    size = given.get("size", 224)
    if isinstance(size, int):  # older files; whether it is an edge depends on who reads it
        crops = given.get("do_center_crop") or "ConvNext" in _processor(given)
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    edge = size.get("shortest_edge")
    if edge is None:
        fixed = _pair([size["height"], size["width"]])
        if not given.get("do_center_crop") or _crop_size(given, fixed) == fixed:
            return _Fit(fixed, "squash")
        return None
    if given.get("crop_pct") is not None:  # ConvNeXt's processor, which ResNet has
        square = (int(edge), int(edge))
        if edge >= 384:
            return _Fit(square, "squash")
        return _Fit(square, "crop", float(given["crop_pct"]))
    if not given.get("do_center_crop"):
        return None
    crop = _crop_size(given, (int(edge), int(edge)))
    return _Fit(crop, "crop", min(crop) / int(edge))


def _crop_size(given: Mapping[str, Any], default: tuple[int, int]) -> tuple[int, int]:
    crop = given.get("crop_size") or default
    if isinstance(crop, Mapping):
        return _pair([crop["height"], crop["width"]])
    return (crop, crop) if isinstance(crop, int) else _pair(crop)


def _pair(values: Any) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
