"""Any network of timm (PyTorch Image Models, Wightman), as `timm/NAME`, where timm is installed.

This file alone imports it, when such a network is first asked for. What timm makes of an image, its
pooled feature, is the one place where these networks are cut; their groups of parameters are timm's
own (`group_matcher`), so that rates by depth and `trainable` know the blocks.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.anatomy import count_macs
from retinue.models.blocks import initialise
from retinue.models.names import Called
from retinue.models.network import Halves, Level, Network, State, Tokens, Unit, joined
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing, Size
from retinue.weights import catalogue
from retinue.weights.catalogue import Hub, WeightsEntry

PREFIX = "timm/"
FAMILY = "timm"
USUAL = "imagenet"
"""What the first of timm's sets of weights for a network is called here, beside its own tag."""
BODY = "body"
CLASSES = 1000

_operators: list[Any] = []
"""Kept, since what they define goes with them."""
_untyped: Any = torch.library.Library


class Timm(Network):
    """`body`, timm's network without its classifier, gives the pooled feature; `head` is ours."""

    def __init__(
        self,
        body: nn.Module,
        *,
        num_classes: int = CLASSES,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = body
        width = getattr(body, "head_hidden_size", None) or body.num_features
        self.head = _Head(int(width), num_classes, dropout)  # type: ignore[arg-type]

    def units(self) -> list[Unit]:
        """timm's groups of parameters, in forward order; what a group holds is named by the first
        of it."""
        return [
            Unit(f"{BODY}.{names[0]}", _Group(self.body, names)) for names in _groups(self.body)
        ]

    def cuts(self) -> list[int]:
        """Before everything, and behind the pooled feature."""
        return [0, len(self.units())]

    @property
    def feature_levels(self) -> list[Level]:
        """The last of timm's maps at each stride of a power of 2, where it gives maps at all."""
        return [Level(k, one["num_chs"], 2**k) for k, (_, one) in self._maps().items()]

    def tokens(self, size: Size) -> Tokens | None:
        """See `Network`: of timm's networks those that say how many tokens go before those of the
        image."""
        prefix = getattr(self.body, "num_prefix_tokens", None)
        patches: Any = getattr(self.body, "patch_embed", None)
        if not isinstance(prefix, int) or not hasattr(patches, "dynamic_feat_size"):
            return None
        rows, columns = patches.dynamic_feat_size(size)
        of_one = getattr(self.body, "global_pool", "") == "token"
        return Tokens(prefix, int(rows), int(columns), read=0 if of_one else None)

    def positions(self) -> Tensor | None:
        """See `Network`: of timm's networks with a row of them, a place each behind the prefix."""
        learnt = getattr(self.body, "pos_embed", None)
        grid = getattr(getattr(self.body, "patch_embed", None), "grid_size", None)
        if not isinstance(learnt, nn.Parameter) or learnt.ndim != 3 or grid is None:
            return None
        rows, columns = grid
        places = learnt[0, learnt.shape[1] - rows * columns :]
        return places.reshape(rows, columns, -1) if len(places) == rows * columns else None

    def halves(self, size: Size, cut: int | None = None) -> Halves:
        """See `Network`: before what timm calls its head. UsageError for a network whose answer is
        read off one token there."""
        tokens = self.tokens(size)
        if tokens is not None and tokens.read is not None:
            raise UsageError(
                "the answer is read off one token, and behind its last block no other counts",
                where=self.name or None,
                mend="choose rollout",
            )

        def first(x: Tensor) -> Tensor:
            found = self.body.forward_features(x)  # type: ignore[operator]
            if isinstance(found, Tensor) and (found.ndim == 4 or (found.ndim == 3 and tokens)):
                return found
            raise UsageError("timm's features of it are no single map", where=self.name or None)

        def as_map(x: Tensor) -> Tensor:
            if x.ndim == 3 and tokens is not None:
                return tokens.as_map(x)
            last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
            return x.permute(0, 3, 1, 2) if last else x

        def second(x: Tensor) -> Any:
            return self.head(self.body.forward_head(x))  # type: ignore[operator]

        return Halves(first, as_map, second)

    def _maps(self) -> dict[int, tuple[int, Mapping[str, Any]]]:
        """k → the place among timm's maps, and what it says of it."""
        told = getattr(self.body, "feature_info", None)
        if told is None or not hasattr(self.body, "forward_intermediates"):
            return {}
        rows = told if isinstance(told, list) else told.info
        found = {}
        for place, one in enumerate(rows):
            k = int(one["reduction"]).bit_length() - 1
            if one["reduction"] == 2**k:
                found[k] = (place, one)
        return dict(sorted(found.items()))

    def tapped_units(self, levels: Collection[int], prefix: str) -> list[Unit]:
        """One unit, which gives all the maps."""
        places = [place for k, (place, _) in self._maps().items() if k in levels]
        return [Unit(f"{prefix}{BODY}", _Maps(self.body, places), max(levels), joins=True)]

    def leave_out_beyond(self, levels: Collection[int], reached: int) -> None:
        """As timm leaves it out."""
        places = [place for k, (place, _) in self._maps().items() if k in levels]
        self.body.prune_intermediate_layers(places)  # type: ignore[operator]
        self.body.__dict__.pop("_retinue_groups", None)

    def features(self, x: Tensor) -> list[Tensor]:
        """See `Network`."""
        places = [place for place, _ in self._maps().values()]
        return _maps_of(self.body, x, places) if places else []

    def run(self, x: State, *, start: int = 0, stop: int | None = None, taps: bool = True) -> State:
        """Images to pooled features, (n, width), or these as they are: nothing lies between."""
        count = len(_groups(self.body))
        stop = count if stop is None else stop
        if start >= stop:
            return x
        if (start, stop) != (0, count):
            raise ValueError(f"{self.name} is cut before unit 0 or {count}, not {start} to {stop}")
        found: Tensor = self.body(x)
        return found

    def forward(self, x: State, *, start: int = 0) -> Any:
        """See `Network`."""
        answer = self.head(self.body(x) if start == 0 else x)
        return {"logits": answer} if self.training and isinstance(answer, Tensor) else answer


class _Maps(nn.Module):
    """timm's maps at some places, as a state: the deepest first, then the others, finest first."""

    def __init__(self, body: nn.Module, places: list[int]) -> None:
        super().__init__()
        self.body = body
        self._places = places

    def forward(self, x: Tensor) -> State:
        *finer, deepest = _maps_of(self.body, x, self._places)
        return joined(deepest, tuple(finer))


def _maps_of(body: nn.Module, x: Tensor, places: list[int]) -> list[Tensor]:
    maps: list[Tensor] = body.forward_intermediates(  # type: ignore[operator]
        x, indices=places, intermediates_only=True, output_fmt="NCHW"
    )
    return list(maps)


class _Head(nn.Module):
    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        initialise(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(x))
        return logits


class _Group(nn.Module):
    """Modules and parameters of `body`, by their names, as one module; it does not own them."""

    def __init__(self, body: nn.Module, names: list[str]) -> None:
        super().__init__()
        for name in names:
            owner, _, leaf = name.rpartition(".")
            part = getattr(body.get_submodule(owner), leaf)
            register = (
                self.register_parameter if isinstance(part, nn.Parameter) else self.add_module
            )
            register(name.replace(".", "_"), part)


def _groups(body: nn.Module) -> list[list[str]]:
    """The names of modules, and of parameters that no whole module of a group holds, group by
    group: the largest modules all of whose parameters are of one."""
    kept = body.__dict__.get("_retinue_groups")
    if kept is not None:
        return kept  # type: ignore[no-any-return]
    grouped = library().models.group_parameters(body, body.group_matcher(coarse=False))  # type: ignore[operator]
    order = {key: place for place, key in enumerate(sorted(grouped))}
    of = {name: order[key] for key, names in grouped.items() for name in names}
    found: list[list[str]] = [[] for _ in order]

    def walk(module: nn.Module, prefix: str) -> None:
        own = {of[f"{prefix}{name}"] for name, _ in module.named_parameters()}
        if prefix and len(own) == 1:
            found[own.pop()].append(prefix[:-1])
            return
        for name, _ in module.named_parameters(recurse=False):
            found[of[f"{prefix}{name}"]].append(f"{prefix}{name}")
        for name, child in module.named_children():
            walk(child, f"{prefix}{name}.")

    walk(body, "")
    body.__dict__["_retinue_groups"] = kept = [names for names in found if names]
    return kept


# --- the library ---------------------------------------------------------------------------------


@cache
def library() -> Any:
    """timm itself. Raises UsageError where it is not installed, or cannot be imported."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        if error.name != "timm":
            raise _unfit(error) from error
        raise UsageError(
            "networks of timm need timm, which is not installed",
            where="key model.name",
            mend="`pip install timm`, or beside a CPU-only torch `pip install --no-deps timm"
            " torchvision`",
        ) from error
    except RuntimeError:
        # torchvision's compiled operators are for another build of torch: timm only names them.
        for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[name]
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators: Any = _untyped("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                operators.define(name + boxes)
        _operators.append(operators)
        try:
            return importlib.import_module("timm")
        except (ImportError, RuntimeError) as error:
            raise _unfit(error) from error


def _unfit(error: Exception) -> UsageError:
    return UsageError(
        f"timm cannot be imported ({type(error).__name__}: {error})",
        where="key model.name",
        mend="install a timm and torchvision that fit this torch",
    )


def look_up(name: str) -> tuple[NetworkEntry, Called]:
    """The entry of `timm/NAME` or `timm/NAME.TAG`, and what the name means; its weights are in the
    catalogue from then on. Raises UsageError for a network, or weights, that timm does not have."""
    timm = library()
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UsageError(
            f"timm has no network {architecture!r}",
            where="key model.name",
            mend=f"did you mean {' or '.join(PREFIX + one for one in near)}?"
            if near
            else "timm.list_models() lists them",
        )
    entry = _entry(architecture)
    tags = [one.tag for one in catalogue.entries(entry.name)]
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=3)
        raise UsageError(
            f"{entry.name} has no weights called {tag!r}",
            where="key model.name",
            mend=f"it has {', '.join(near or tags) or 'none'}",
        )
    return entry, Called(entry.name, tag or None)


@cache
def _entry(architecture: str) -> NetworkEntry:
    timm = library()
    usual = timm.get_pretrained_cfg(architecture)
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    catalogue.register(_weights(architecture, usual, known))

    def build(
        *,
        num_classes: int = CLASSES,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        image_size: "int | None" = None,  # noqa: UP037 - the registry reads it as text
    ) -> Network:
        wishes: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels}
        if drop_path:
            wishes["drop_path_rate"] = drop_path
        if image_size is not None:
            wishes["img_size"] = image_size
        return Timm(
            timm.create_model(architecture, **wishes), num_classes=num_classes, dropout=dropout
        )

    with torch.device("meta"):  # no memory, no random draws
        sketch = build()
    preprocessing = _preprocessing(usual)
    return NetworkEntry(
        name=PREFIX + architecture,
        family=FAMILY,
        build=build,
        made_by=timm.models.model_entrypoint(architecture),
        preprocessing=preprocessing,
        parameters=sum(p.numel() for p in sketch.parameters()),
        macs=count_macs(sketch, preprocessing.size),
        paper="see timm's model card",
        reference=f"timm.create_model({architecture!r})",
    )


def _preprocessing(cfg: Any) -> Preprocessing:
    """How images are prepared as timm's `pretrained_cfg` says; what it leaves open as its default,
    224 pixels by ImageNet's colours."""
    if cfg is None:
        return Preprocessing(size=(224, 224), crop_fraction=0.875)
    _, height, width = cfg.input_size
    ways: Mapping[str, Any] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos",
                               "nearest": "nearest"}  # fmt: skip
    fit: Any = "squash" if cfg.crop_mode == "squash" else "crop"
    return Preprocessing(
        size=(height, width),
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        interpolation=ways.get(cfg.interpolation, "bilinear"),
        fit=fit,
        crop_fraction=min(cfg.crop_pct, 1.0),
    )


def _weights(architecture: str, usual: Any, known: Mapping[str, Any]) -> Iterator[WeightsEntry]:
    """timm's sets for a network that lie on the hub; the first one under the usual name, too."""
    sets = {"": usual, **known}
    for name, cfg in sets.items():
        if cfg is None or not cfg.hf_hub_id or not isinstance(cfg.classifier, str | None):
            continue
        _, _, tag = name.partition(".")
        yield WeightsEntry(
            network=PREFIX + architecture,
            tag=tag or USUAL,
            places=(Hub(cfg.hf_hub_id, "main", cfg.hf_hub_filename or "model.safetensors"),),
            licence=cfg.license or "see its model card",
            layout=FAMILY,
            classes=cfg.num_classes,
            preprocessing=_preprocessing(cfg),
        )
