"""Batches mixed by mixup or cutmix, smoothed labels, their loss, and the step of a training.

Random numbers come from numpy's global generator, which the loop seeds for each step.

Shapes: B samples, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn

from eva_engine.config import MixingConfig

_LEAST_SHARE = 0.02  # that a label names; smoothing gives less to each of many classes


class OfficialMixup(Mixup):  # type: ignore[misc]  # timm has no types
    """timm's Mixup with the boxes of timm 0.4.12, which the official code uses: even sides."""

    def _mix_batch(self, x: Tensor) -> float:
        share, cuts = self._params_per_batch()
        other = x.flip(0)
        if not cuts:
            x.mul_(share).add_(other.mul_(1 - share))
            return float(share)
        box, side = [], np.sqrt(1 - share)
        for length in x.shape[-2:]:
            half, centre = int(length * side) // 2, np.random.randint(0, length)  # noqa: NPY002
            box.append(slice(max(centre - half, 0), min(centre + half, length)))
        x[..., box[0], box[1]] = other[..., box[0], box[1]]
        (height, width), whole = x[0, 0, box[0], box[1]].shape, x[0, 0].numel()
        return 1 - height * width / whole


class MixedTargets:
    """Mixes a batch of K classes and makes the loss that goes with it."""

    def __init__(self, config: MixingConfig, *, num_classes: int) -> None:
        self.smoothing, self.pairing = config.label_smoothing, config.pairing
        self._mix: Any = None
        if config.mixup or config.cutmix:
            self._mix = OfficialMixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                num_classes=num_classes,
                switch_prob=config.mixup_switch,
                label_smoothing=config.label_smoothing,
            )

    def mix(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix inputs and labels where the recipe wants it.

        Args:
            inputs: Images (B, 3, H, W), or clips (B, T, 3, H, W), whose frames are mixed alike.
            labels: (B,) int64.

        Returns:
            Inputs, and labels (B,) or, mixed, probabilities (B, K).
        """
        if self._mix is None:
            return inputs, labels
        size = len(inputs)
        # (B, T, 3, H, W) -> (B, T * 3, H, W): timm takes the third dimension for the height
        flat = inputs.flatten(1, -3)
        if self.pairing == "permute":
            # timm mixes sample i with sample -1 - i: here that is the one at place i of the order
            order = torch.from_numpy(np.random.permutation(size)).to(labels.device)  # noqa: NPY002
            flat = torch.cat([flat, flat[order].flip(0)])
            labels = torch.cat([labels, labels[order].flip(0)])
        mixed, targets = self._mix(flat, labels)
        return mixed[:size].view(inputs.shape), targets[:size]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean cross-entropy of logits (B, K) in float32.

        Targets are those of `mix`; probabilities are smoothed already.
        """
        smoothing = self.smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


class ClassificationStep:
    """The step function of a classifier: mix, classify, cross-entropy."""

    def __init__(self, targets: MixedTargets) -> None:
        self.targets = targets

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute loss and accuracy of a batch: inputs as in `MixedTargets.mix`, labels (B,)."""
        inputs, labels = self.targets.mix(*batch)
        logits = model(inputs.to(next(model.parameters()).dtype))
        return self.targets.loss(logits, labels), {"accuracy": accuracy(logits.detach(), labels)}


def label_text(target: Tensor, classes: Sequence[str]) -> str:
    """Name a label (), or of probabilities (K,) the two classes that were mixed, with shares."""
    if target.ndim == 0:
        return classes[int(target)]
    shares, numbers = target.topk(min(2, len(classes)))
    pairs = zip(shares.tolist(), numbers.tolist(), strict=True)
    return ", ".join(f"{classes[n]} {s:.0%}" for s, n in pairs if s >= _LEAST_SHARE)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the share of the batch whose first class is the label, or the most probable one.

    Args:
        logits: (B, K).
        targets: Labels (B,) or probabilities (B, K).
    """
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return (logits.argmax(1) == labels).float().mean()
