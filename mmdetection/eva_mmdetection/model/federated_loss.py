"""Sigmoid cross entropy, federated over classes for LVIS (CenterNet2, arXiv 2103.07461).

Letters: R regions of a batch, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import accuracy
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

FREQUENCY_WEIGHT_POWER = 0.5  # paper Table 18


@MODELS.register_module()
class EVAFederatedLoss(nn.Module):
    """Classification loss of a box head whose classes are independent, as in LVIS.

    Each forward pass counts the classes of its regions and further ones, drawn by how frequent
    they are in training, `num_sampled` together. The classifier has K + 1 outputs, as in detectron2
    and the official weights; the last, the background's, has no part in the loss.

    Args:
        num_classes: Classes K.
        image_counts: Training images of each class. None draws all classes alike, until
            `CountClasses` or weights of a detector bring `fed_loss_cls_weights`.
        num_sampled: Classes that a forward pass counts; 0 counts all of them.
        loss_weight: Factor of the loss.

    Attributes:
        fed_loss_cls_weights: (K,) chance of each class to be drawn, relative to the others.
    """

    fed_loss_cls_weights: Tensor
    use_sigmoid = False  # K + 1 outputs: the attributes below say the rest to mmdetection
    custom_cls_channels = custom_activation = custom_accuracy = True

    def __init__(
        self,
        *,
        num_classes: int,
        image_counts: Sequence[float] | None = None,
        num_sampled: int = 50,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_sampled, self.loss_weight = num_classes, num_sampled, loss_weight
        counts = torch.ones(num_classes) if image_counts is None else torch.tensor(image_counts)
        if num_sampled:  # in the official weights under this name
            self.register_buffer("fed_loss_cls_weights", counts.float() ** FREQUENCY_WEIGHT_POWER)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the mean loss over regions.

        Args:
            cls_score: (R, K + 1) logits.
            labels: (R,) class, K for background.
            label_weights: (R,) weight of each region; None for 1.
            avg_factor: Divisor of the sum; None for R.
            reduction_override: Unused.
        """
        target = F.one_hot(labels, self.num_classes + 1)[:, :-1].to(cls_score.dtype)
        loss = F.binary_cross_entropy_with_logits(cls_score[:, :-1], target, reduction="none")
        if self.num_sampled:
            loss = loss * self.counted_classes(labels)
        if label_weights is not None:
            loss = loss * label_weights[:, None]
        return self.loss_weight * loss.sum() / max(avg_factor or len(labels), 1)

    def counted_classes(self, labels: Tensor) -> Tensor:
        """Choose the classes that count: those of the regions' labels (R,), and drawn ones.

        Returns:
            (K,) 1 for a class that counts, else 0.
        """
        present = labels.unique()
        counts = torch.zeros(self.num_classes + 1, device=labels.device)
        counts[present] = 1.0
        missing = self.num_sampled - len(present)  # the background is one of them, as in detectron2
        if missing > 0:
            chances = F.pad(self.fed_loss_cls_weights.float(), (0, 1)) * (1.0 - counts)
            drawn = torch.multinomial(chances, min(missing, int((chances > 0).sum())))
            counts[drawn] = 1.0
        return counts[:-1]

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the outputs of a classifier of as many classes as the loss."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Turn logits (R, K + 1) into probabilities."""
        return cls_score.sigmoid()

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Any]:
        """Compute the accuracy in percent on the regions of objects, which the log shows."""
        objects = labels < self.num_classes
        return {"acc": accuracy(cls_score[objects, :-1], labels[objects])}


@HOOKS.register_module()
class CountClasses(Hook):
    """Counts the training images of each class, by which `EVAFederatedLoss` draws classes.

    A recipe then needs no file of counts to build its model. Repeated images count once.
    """

    def before_train(self, runner: Any) -> None:
        """Count, and set the weights of the losses."""
        model = getattr(runner.model, "module", runner.model)
        losses = [part for part in model.modules() if isinstance(part, EVAFederatedLoss)]
        counts = count_images(runner.train_dataloader.dataset, losses[0].num_classes)
        for loss in losses:
            for weights in loss.buffers():  # none where every class counts
                weights.copy_(counts.float() ** FREQUENCY_WEIGHT_POWER)


def count_images(dataset: Any, classes: int) -> Tensor:
    """Count the images of each of K classes (K,) in a dataset of mmdetection, or what wraps it."""
    while hasattr(dataset, "dataset"):  # numbered, repeated
        dataset = dataset.dataset
    counts = np.zeros(classes, np.int64)
    for index in range(len(dataset)):
        counts[list(set(dataset.get_cat_ids(index)))] += 1
    return torch.from_numpy(counts)
