"""What a classifier of any number of labels learns by: a binary cross entropy a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retinue.errors import UsageError
from retinue.tasks.objective import Losses, Objective, Part

_LEAST = 1e-7
"""Below it a probability is taken for this much where its logarithm is needed."""


class MultilabelObjective(Objective):
    """The mean, over all labels that are known, of the binary cross entropy of each, plus
    `auxiliary_weight` times that of each auxiliary head.

    With a `gamma_…` above 0 a label that is nearly right counts less: times (1 − p)^γ, p being the
    probability of what is true (focal loss; Lin et al., 2017). With different ones for what is and
    what is not there, and `margin`, by which the probability of what is not there is lowered first,
    it is the asymmetric loss (Ridnik et al., 2021).
    """

    positive_weights: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        positive_weights: Sequence[float] | None = None,
        gamma_positive: float = 0.0,
        gamma_negative: float = 0.0,
        margin: float = 0.0,
        auxiliary_weight: float = 0.3,
        distillation_weight: float = 0.5,
        distillation_temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.margin = margin
        self.auxiliary_weight = auxiliary_weight
        self.distillation_weight = distillation_weight
        self.distillation_temperature = distillation_temperature
        weights = None if positive_weights is None else torch.tensor(positive_weights)
        self.register_buffer("positive_weights", weights, persistent=False)

    def forward(
        self, outputs: dict[str, Tensor], targets: dict[str, Any], taught: Any = None
    ) -> Losses:
        """`cross_entropy` and, where there are auxiliary heads or a teacher, `auxiliary` and
        `distillation`: sums over the classes, and of how many, (n,) each.

        `outputs["logits"]` is (n, classes), `outputs["auxiliary"]` the same or (heads, n, classes);
        `targets` as `SeveralLabels` collates them, labels also between 0 and 1; `taught` logits
        (n, classes), by themselves or under that key, of which all are followed, also where nobody
        knows.
        """
        if "labels" not in targets:  # nothing is known of any of the images
            if taught is None:
                raise UsageError("training needs images with labels")
            nothing = torch.zeros_like(outputs["logits"], dtype=torch.float32)
            targets = {**targets, "labels": nothing, "known": nothing}
        labels, known = targets["labels"], targets["known"]
        counts = known.sum(1)
        sums = {"cross_entropy": (self._of(outputs["logits"], labels) * known).sum(1)}
        if "auxiliary" in outputs:
            auxiliary = outputs["auxiliary"]
            heads = auxiliary if auxiliary.dim() == 3 else auxiliary[None]
            of_heads = torch.stack([(self._of(head, labels) * known).sum(1) for head in heads])
            sums["auxiliary"] = self.auxiliary_weight * of_heads.sum(0)
        parts: dict[str, Part] = {name: (value, counts) for name, value in sums.items()}
        if taught is not None:
            share = self.distillation_weight
            parts = {name: ((1 - share) * value, counts) for name, value in sums.items()}
            distance = self._distance(outputs["logits"], taught)
            parts["distillation"] = (share * distance.sum(1), torch.ones_like(distance).sum(1))
        return Losses(parts, {})

    def _of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(n, classes): what each label costs, linear in the label."""
        logits = logits.float()
        labels = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        # Powers of probabilities by their logarithms: of 0 itself, a root has no gradient.
        log_there, log_absent = F.logsigmoid(logits), F.logsigmoid(-logits)
        there, absent = -log_there, -log_absent
        if self.gamma_positive:
            there = there * (self.gamma_positive * log_absent).exp()
        if self.margin:
            lowered = (log_there.exp() - self.margin).clamp(min=0)
            absent = -(1 - lowered).clamp(min=_LEAST).log()
            log_there = lowered.clamp(min=_LEAST).log()
        if self.gamma_negative:
            absent = absent * (self.gamma_negative * log_there).exp()
        if self.positive_weights is not None:
            there = there * self.positive_weights
        return labels * there + (1 - labels) * absent

    def _distance(self, logits: Tensor, taught: Any) -> Tensor:
        """(n, classes): Kullback-Leibler divergence of each answer from the teacher's softened one,
        times T² (Hinton et al., 2015, section 2)."""
        t = self.distillation_temperature
        theirs = taught["logits"] if isinstance(taught, dict) else taught
        ours, theirs = logits.float() / t, theirs.float() / t
        share = torch.sigmoid(theirs)
        there = share * (F.logsigmoid(theirs) - F.logsigmoid(ours))
        absent = (1 - share) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
        return (there + absent) * t * t
