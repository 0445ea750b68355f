"""What a classifier learns by: cross entropy, auxiliary heads, centres of classes, a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinue.errors import UsageError
from retinue.tasks.objective import Losses, Objective, Part

_LEAST = 1e-7


class ClassificationObjective(Objective):
    """Cross entropy of the logits, plus `auxiliary_weight` times that of each auxiliary head, plus
    `centre_weight` times the squared distance of the head's feature to the centre of its class.

    `centres` (classes, feature_width) learn along, by their gradient (after Wen et al., 2016, "A
    discriminative feature learning approach for deep face recognition", without its ½ and its own
    rule for the centres).

    With `focal` above 0 each −log p is multiplied by (1 − p)^focal (Lin et al., 2017); with
    `logit_adjustment` τ, τ · log of each class's share is added to its logits first (Menon et al.,
    2021, equation 10).
    """

    class_weights: Tensor | None
    adjustment: Tensor | None
    taught: Tensor | None
    told_apart: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        focal: float = 0.0,
        logit_adjustment: float = 0.0,
        class_shares: Sequence[float] | None = None,
        auxiliary_weight: float = 0.3,
        distillation_weight: float = 0.5,
        distillation_temperature: float = 2.0,
        centre_weight: float = 0.0,
        centres: tuple[int, int] | None = None,
        taught: Sequence[int] | None = None,
        told_apart: Sequence[int] | None = None,
    ) -> None:
        """`class_shares`: of the training images, where `logit_adjustment` is above 0. `centres`:
        how many classes, and how wide a feature, where `centre_weight` is above 0. `taught`: the
        teacher's classes, in its order, by their places among ours; None: they are ours.
        `told_apart`: the classes that the cross entropy is over, ascending; None: all."""
        super().__init__()
        self.label_smoothing = label_smoothing
        self.focal = focal
        self.auxiliary_weight = auxiliary_weight
        self.distillation_weight = distillation_weight
        self.distillation_temperature = distillation_temperature
        self.centre_weight = centre_weight
        if centres is not None:
            self.centres = nn.Parameter(torch.empty(centres).uniform_(-0.05, 0.05))  # as Keras does
        told = None if told_apart is None else torch.tensor(told_apart)
        self.register_buffer("told_apart", told, persistent=False)
        weights = None if class_weights is None else torch.tensor(class_weights)
        weights = weights if weights is None or told is None else weights[told]
        self.register_buffer("class_weights", weights, persistent=False)
        added = None
        if logit_adjustment:
            added = logit_adjustment * torch.tensor(class_shares).log()
            added = added if told is None else added[told]
        self.register_buffer("adjustment", added, persistent=False)
        places = None if taught is None else torch.tensor(taught)
        self.register_buffer("taught", places, persistent=False)

    def forward(
        self, outputs: dict[str, Tensor], targets: dict[str, Any], taught: Tensor | None = None
    ) -> Losses:
        """`cross_entropy` and, where there are auxiliary heads, centres or a teacher, `auxiliary`,
        `centre` and `distillation`: (n,) each.

        `outputs["logits"]` is (n, classes), `outputs["auxiliary"]` the same or (heads, n, classes),
        `outputs["feature"]` (n, feature_width); `targets` as `OneClass` collates them; `taught`
        logits (n, the teacher's classes). Class weights are multiplied in, of shares with each
        share, but not into the distance to the centres. An image without a label has the teacher's
        part alone. The running figure `top1` is 1 where the
        best class is the one with the largest share of the label, or without a label the teacher's.
        """
        logits = outputs["logits"]
        if "label" not in targets:  # nothing is known of any of the images
            if taught is None:
                raise UsageError("training needs images with labels")
            targets = {**targets, "label": torch.full_like(logits[:, 0], -1, dtype=torch.int64)}
        parts = {"cross_entropy": self._cross_entropy(logits, targets)}
        if "auxiliary" in outputs:
            auxiliary = outputs["auxiliary"]
            heads = auxiliary if auxiliary.dim() == 3 else auxiliary[None]
            losses = torch.stack([self._cross_entropy(head, targets) for head in heads])
            parts["auxiliary"] = self.auxiliary_weight * losses.sum(0)
        if self.centre_weight:
            parts["centre"] = self.centre_weight * self._distance_to_centres(outputs, targets)
        if taught is not None:
            share = self.distillation_weight
            parts = {name: (1 - share) * loss for name, loss in parts.items()}
            parts["distillation"] = share * self._distance(logits, taught)
        shown: dict[str, Part] = {**parts}
        meant = _largest(targets)
        if taught is not None:
            best = taught.argmax(1)
            meant = torch.where(
                meant < 0, best if self.taught is None else self.taught[best], meant
            )
        return Losses(shown, {"top1": (logits.argmax(1) == meant).float()})

    def _cross_entropy(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        if self.told_apart is not None:
            logits = logits[:, self.told_apart]

        kinds: list[str] = [key for key in ("label", "other") if key in targets]
        told = {key: self._among_told(targets[key]) for key in kinds}
        return _linear(lambda label: self._of_label(logits, label), {**targets, **told})

    def _among_told(self, label: Tensor) -> Tensor:
        """A label, or shares, by the places among the classes that are told apart; −1, or shares
        of nothing, where it is of another: one that a teacher alone speaks of."""
        told = self.told_apart
        if told is None:
            return label
        if label.dim() == 2:
            shares = label[:, told]
            return shares / shares.sum(1, keepdim=True).clamp(min=_LEAST)
        place = torch.searchsorted(told, label).clamp(max=len(told) - 1)
        return torch.where(told[place] == label, place, -1)

    def _of_label(self, logits: Tensor, label: Tensor) -> Tensor:
        logits, smoothing = logits.float(), self.label_smoothing
        if self.adjustment is not None:
            logits = logits + self.adjustment
        if self.focal:
            return self._focal(logits, label)
        if label.dim() == 2 and self.class_weights is not None:
            # Linear in the shares: the sum over the classes of what each as a label would cost.
            log, shares = logits.log_softmax(1), label * self.class_weights
            own = (1 - smoothing) * (shares * log).sum(1)
            return -own - smoothing * shares.sum(1) * log.mean(1)
        loss = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
        return loss if self.class_weights is None else loss * self.class_weights[label]

    def _focal(self, logits: Tensor, label: Tensor) -> Tensor:
        """(n,): each class's −(1 − p)^γ log p by its share of the label, smoothed; class weights as
        everywhere."""
        log = logits.log_softmax(1)
        # At p = 1 itself, a root has no gradient.
        costs = -log * (1 - log.exp()).clamp(min=_LEAST) ** self.focal
        spread = self.label_smoothing * costs.mean(1)
        weights = self.class_weights
        if label.dim() == 2:
            shares = label if weights is None else label * weights
            return (1 - self.label_smoothing) * (shares * costs).sum(1) + shares.sum(1) * spread
        own = costs.gather(1, label[:, None])[:, 0]
        loss = (1 - self.label_smoothing) * own + spread
        return loss if weights is None else loss * weights[label]

    def _distance_to_centres(
        self, outputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> Tensor:
        """(n,); of several classes the mean by their shares."""
        feature, centres = outputs["feature"].float(), self.centres.float()

        def of(label: Tensor) -> Tensor:
            return (feature - centres[label]).square().sum(1)

        label = targets["label"]
        if label.dim() == 2:
            squares = feature.square().sum(1, keepdim=True) + centres.square().sum(1)
            return (label * (squares - 2 * feature @ centres.T)).sum(1)
        return _linear(of, targets)

    def _distance(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the teacher's softened answer, times T², so that its
        gradient has the size of the labels' (Hinton et al., 2015, section 2). Of a teacher that
        knows fewer classes, both answer among these (Li & Hoiem, "Learning without Forgetting",
        ECCV 2016)."""
        logits = logits if self.taught is None else logits[:, self.taught]
        t = self.distillation_temperature
        ours, theirs = (logits.float() / t).log_softmax(1), (taught.float() / t).log_softmax(1)
        return (theirs.exp() * (theirs - ours)).sum(1) * t * t


def _linear(of: Callable[[Tensor], Tensor], targets: dict[str, Tensor]) -> Tensor:
    """(n,): the loss `of` a label, where two are mixed by their shares; 0 where none is known."""

    def known(label: Tensor) -> Tensor:
        if label.dim() == 2:
            return of(label) * (label.sum(1) > 0)
        return of(label.clamp(min=0)) * (label >= 0)

    own = known(targets["label"])
    if "other" not in targets:
        return own
    return torch.lerp(known(targets["other"]), own, targets["share"])


def _largest(targets: dict[str, Tensor]) -> Tensor:
    label = targets["label"]
    if label.dim() == 2:
        return torch.where(label.sum(1) > 0, label.argmax(1), -1)
    if "other" in targets:
        return torch.where(targets["share"] >= 0.5, label, targets["other"])
    return label
