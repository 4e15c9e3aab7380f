"""The objective on validation images."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from eva_data.image_sources import open_images
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader
from eva_engine.data.order import to_device
from eva_pretrain.config import PretrainConfig
from eva_pretrain.masked_image_modeling import PretrainStep, collate
from eva_pretrain.report import PICTURES, Seen, look
from eva_pretrain.transforms import ValidationTransform, Views


class Validation:
    """Loss and metrics on validation images: every second patch masked, each image counted once.

    Args:
        config: The recipe.
        step: The step function of the run.
        views: Tensors of student and teacher.
        device: Device of the model.

    Attributes:
        images: The validation images.
        seen: What the first of them look like to the last model, for the report; on the main
            process, after an evaluation.
    """

    def __init__(
        self, config: PretrainConfig, step: PretrainStep, views: Views, device: torch.device
    ) -> None:
        mask = partial(alternating_mask, config.student.grid)
        self.images = open_images(config.data.val, ValidationTransform(views, mask=mask))
        self.seen: Seen | None = None
        share = distributed.own_share(len(self.images))
        self._own, self._run, self._grid = (
            Subset(self.images, share),
            config.run,
            config.student.grid,
        )
        self._step, self._device = step, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Compute the mean loss and metrics over all images; called on all processes.

        Args:
            model: The student, in evaluation mode.
        """
        names = ("loss", *self._step.objective.metric_names)
        sums = dict.fromkeys(names, 0.0)
        run = self._run
        with evaluation_loader(
            self._own, batch_size=run.batch_size, workers=run.workers, collate=collate
        ) as batches:
            for batch in batches:
                count = len(batch["images"])
                loss, metrics = self._step(model, to_device(batch, self._device))
                for name, value in {"loss": loss, **metrics}.items():
                    sums[name] += float(value) * count
        if distributed.rank() == 0:
            self._look(model)
        totals = distributed.sum_over_ranks([sums[name] for name in names], self._device)
        return {name: total / len(self.images) for name, total in zip(names, totals, strict=True)}

    def _look(self, model: nn.Module) -> None:
        """See the first pictures for the report."""
        chosen = range(min(PICTURES, len(self.images)))
        batch = to_device(collate([self.images[index] for index in chosen]), self._device)
        teacher, objective = self._step.teacher, self._step.objective
        self.seen = look(
            getattr(model, "module", model), objective, batch,
            teacher(batch.get("teacher_images", batch["images"])), grid=self._grid,
            names=[self.images.sample_id(index) for index in chosen],
        )  # fmt: skip


def alternating_mask(grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask every other patch in reading order, beginning with the first.

    Args:
        grid: (H, W) patches.

    Returns:
        (H, W) bool, True where a patch is masked.
    """
    height, width = grid
    return (np.arange(height * width) % 2 == 0).reshape(height, width)
