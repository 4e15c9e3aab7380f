"""How frequent the classes are, for the federated loss."""

from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from eva_mmdetection.model.federated_loss import EVAFederatedLoss


@HOOKS.register_module()
class CountClasses(Hook):
    """Counts the training images of each class, by which `EVAFederatedLoss` draws classes.

    A recipe then needs no file of counts to build its model. Repeated images count once.
    """

    def before_train(self, runner: Any) -> None:
        """Count, and set the weights of the losses.

        Args:
            runner: The runner.

        Raises:
            ValueError: If the model has no federated loss.
        """
        model = getattr(runner.model, "module", runner.model)
        losses = [part for part in model.modules() if isinstance(part, EVAFederatedLoss)]
        if not losses:
            raise ValueError("CountClasses is for models with EVAFederatedLoss; leave the hook out")
        counts = count_images(runner.train_dataloader.dataset, losses[0].num_classes)
        for loss in losses:
            for weights in loss.buffers():  # none where every class counts
                weights.copy_(counts.float() ** loss.power)


def count_images(dataset: Any, classes: int) -> torch.Tensor:
    """Count the images of each class.

    Args:
        dataset: Data set of mmdetection, or one that wraps it.
        classes: Number of classes K.

    Returns:
        (K,) number of images.
    """
    while hasattr(dataset, "dataset"):  # numbered, repeated
        dataset = dataset.dataset
    counts = np.zeros(classes, np.int64)
    for index in range(len(dataset)):
        counts[list(set(dataset.get_cat_ids(index)))] += 1
    return torch.from_numpy(counts)
