"""One step of pre-training, and the loss on validation images."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from eva_data.sources.manifests import open_images
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader
from eva_engine.data.order import to_device
from eva_pretrain.config import PretrainConfig
from eva_pretrain.masking import alternating_mask
from eva_pretrain.objectives import FeatureDistillation, MaskedFeatures, MaskedTokens
from eva_pretrain.teachers.backbone import BackboneTeacher
from eva_pretrain.teachers.clip import ClipTeacher
from eva_pretrain.transforms import ValidationTransform, Views

Teacher = ClipTeacher | BackboneTeacher
Objective = MaskedFeatures | FeatureDistillation | MaskedTokens


class PretrainStep:
    """The step function: one crop for student and teacher, one objective.

    Args:
        teacher: Frozen, on the device.
        objective: Of `eva_pretrain.objectives`.
    """

    def __init__(self, teacher: Teacher, objective: Objective) -> None:
        self.teacher = teacher
        self.objective = objective

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and metrics of a batch of `PretrainTransform`."""
        images: Tensor = batch["images"]
        features = self.teacher(batch.get("teacher_images", images).to(dtype_of(self.teacher)))
        loss, metrics = self.objective(
            model, images.to(dtype_of(model)), batch.get("mask"), features
        )
        return loss, metrics


class Validation:
    """The objective on validation images: every second patch masked, each image counted once.

    Args:
        config: The recipe.
        step: Its step function.
        device: Where the model is.
    """

    def __init__(self, config: PretrainConfig, step: PretrainStep, device: torch.device) -> None:
        transform = ValidationTransform(
            views_of(config, step.teacher), mask=partial(alternating_mask, config.student.grid)
        )
        images = open_images(config.data.val, transform)
        own = range(distributed.rank(), len(images), distributed.world_size())
        self._own, self._run = Subset(images, own), config.run
        self._images = len(images)
        self._step, self._device = step, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Mean loss and metrics over all images; called on all processes.

        Args:
            model: In evaluation mode.

        Returns:
            Name -> value.
        """
        names = ("loss", *self._step.objective.metric_names)
        sums = dict.fromkeys(names, 0.0)
        run = self._run
        with evaluation_loader(
            self._own, batch_size=run.batch_size, workers=run.workers
        ) as batches:
            for batch in batches:
                count = len(batch["images"])
                loss, metrics = self._step(model, to_device(batch, self._device))
                for name, value in {"loss": loss, **metrics}.items():
                    sums[name] += float(value) * count
        totals = distributed.sum_over_ranks([sums[name] for name in names], self._device)
        return {name: total / self._images for name, total in zip(names, totals, strict=True)}


def views_of(config: PretrainConfig, teacher: Teacher) -> Views:
    """Sizes and statistics of the images that student and teacher take."""
    return Views(
        size=config.student.image_size,
        mean=config.data.mean,
        std=config.data.std,
        teacher_size=config.teacher.image_size,
        teacher_mean=teacher.mean,
        teacher_std=teacher.std,
    )


def dtype_of(model: nn.Module) -> torch.dtype:
    """Type of a model's weights."""
    return next(parameter.dtype for parameter in model.parameters())
