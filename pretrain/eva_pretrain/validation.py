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
from eva_pretrain.config import PretrainConfig
from eva_pretrain.masked_image_modeling import PretrainStep, collate
from eva_pretrain.report import SHOWN, Seen
from eva_pretrain.transforms import ValidationTransform, Views
from eva_runs.data_order import to_device


class Validation:
    """Loss and metrics on validation images: every second patch masked, each image counted once.

    Args:
        config: The recipe; in distillation nothing is masked.
        step: The step function of the run.
        views: Tensors of student and teacher.
        device: Device of the model.

    Attributes:
        images: The validation images.
        seen: The first of them with the last model's predictions, for the report; on the main
            process, after an evaluation.
    """

    def __init__(
        self, config: PretrainConfig, step: PretrainStep, views: Views, device: torch.device
    ) -> None:
        self._run, self._grid = config.run, config.student.grid
        self._step, self._device = step, device
        mask = None if config.objective == "distillation" else partial(alternating_mask, self._grid)
        self.images = open_images(config.data.val, ValidationTransform(views, mask=mask))
        self._own = Subset(self.images, distributed.own_share(len(self.images)))
        self.seen: Seen | None = None

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Compute the mean loss and metrics over all images; called on all processes."""
        names, run = ("loss", *self._step.objective.metric_names), self._run
        sums = dict.fromkeys(names, 0.0)
        with evaluation_loader(
            self._own, batch_size=run.batch_size, workers=run.workers, collate=collate
        ) as batches:
            for batch in batches:
                loss, metrics = self._step(model, to_device(batch, self._device))
                for name, value in {"loss": loss, **metrics}.items():
                    sums[name] += float(value) * len(batch["images"])
        if distributed.rank() == 0:
            self.seen = self._look(getattr(model, "module", model))
        totals = distributed.sum_over_ranks([sums[name] for name in names], self._device)
        return {name: total / len(self.images) for name, total in zip(names, totals, strict=True)}

    @torch.no_grad()
    def _look(self, model: nn.Module) -> Seen:
        chosen = range(min(SHOWN, len(self.images)))
        batch = to_device(collate([self.images[index] for index in chosen]), self._device)
        mask = batch["mask"].cpu() if "mask" in batch else None
        objective = self._step.objective
        predicted = torch.ones(len(chosen), *self._grid, dtype=torch.bool) if mask is None else mask
        agreement = torch.full(predicted.shape, float("nan"))
        values = objective.agreement(model, *self._step.prepare(model, batch))
        agreement[predicted] = values.float().cpu()
        names = [self.images.sample_id(index) for index in chosen]
        images = batch["images"].float().cpu()
        return Seen(names, images, mask, agreement, objective.measure)


def alternating_mask(grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask every other patch (H, W) in reading order, beginning with the first."""
    height, width = grid
    return (np.arange(height * width) % 2 == 0).reshape(height, width)
