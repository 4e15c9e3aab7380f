"""What all processes agree on before each optimizer step: finite numbers, and whether to stop.

The check is part of the optimizer's wrapper, because mmengine steps inside `train_step`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed
from mmengine.dist import all_gather_object, get_world_size
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor

from eva_openmmlab.config.runs import SAYS
from eva_openmmlab.training.errors import NonFiniteError
from eva_runs.interruption import StopSignal

MAX_SKIPPED = 40  # steps in a row without a scale that fits: 65,536 has become 6e-8
_NAMED = 16  # images of a process in the message


class StepGuard:
    """Looks at the losses and gradients of a step, on all processes together.

    Args:
        stop: Record of the signals of this process.

    Attributes:
        stop_agreed: Whether any process was asked to stop; the same on all.
        iteration: The iteration in progress, from 0.
    """

    def __init__(self, stop: StopSignal) -> None:
        self.stop = stop
        self.stop_agreed = False
        self.iteration = 0
        self._losses: list[Tensor] = []
        self._images: list[list[str]] = []
        self._skipped = 0

    def begin(self, iteration: int, batch: Any) -> None:
        """Note a batch before its forward pass.

        Args:
            iteration: Number of the iteration, from 0.
            batch: Batch of the framework's loader.
        """
        self.iteration = iteration
        self._images.append(_image_names(batch))

    def see(self, loss: Tensor) -> None:
        """Note the loss of the batch.

        Args:
            loss: Scalar.
        """
        self._losses.append(loss.detach())

    def agree(self, parameters: Iterable[Tensor], *, skips: bool) -> None:
        """Compare notes before the optimizer's step, in one small reduction.

        Args:
            parameters: Parameters with their gradients.
            skips: A loss scale is in use: a step with infinite gradients will be skipped, and is
                an error only after `MAX_SKIPPED` in a row.

        Raises:
            NonFiniteError: On all processes.
        """
        losses, images = self._losses, self._images
        self._losses, self._images = [], []
        gradients = [value.grad for value in parameters if value.grad is not None]
        finite = [loss.isfinite().all() for loss in losses]
        largest = torch.nn.utils.get_total_norm(gradients, float("inf"))
        good = torch.stack([torch.stack(finite).all(), largest.isfinite().to(finite[0].device)])
        stop = torch.tensor([self.stop.requested], device=good.device)
        facts = torch.cat([good.logical_not(), stop]).int()
        if get_world_size() > 1:
            torch.distributed.all_reduce(facts)
        bad_loss, bad_gradient, self.stop_agreed = (bool(fact) for fact in facts.tolist())
        self._skipped = self._skipped + 1 if bad_gradient and skips else 0
        if bad_loss:
            own = [bool(value) for value in finite]
            suspects = [names for names, fine in zip(images, own, strict=False) if not fine]
            self._refuse("The loss", suspects if False in own else None)
        if bad_gradient and not skips:
            self._refuse("A gradient", images)
        if self._skipped > MAX_SKIPPED:
            self._refuse(f"For {self._skipped} steps, whatever the loss scale, a gradient", images)

    def _refuse(self, what: str, batches: list[list[str]] | None) -> None:
        found: Sequence[list[list[str]] | None] = all_gather_object(batches)
        places = "; ".join(
            f"process {rank}: {', '.join([name for batch in reports for name in batch][:_NAMED])}"
            for rank, reports in enumerate(found)
            if reports is not None
        )
        images = f"these images of {places}"
        raise NonFiniteError(SAYS.not_finite(what, self.iteration + 1, images))


def _image_names(batch: Any) -> list[str]:
    samples = batch.get("data_samples", ()) if isinstance(batch, dict) else ()
    return [str(getattr(sample, "img_path", "an image without a name")) for sample in samples]


class _Guarded:
    """An optimizer's wrapper that asks the guard before each step."""

    guard: StepGuard | None = None
    optimizer: torch.optim.Optimizer

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Note the loss, and go on as mmengine does."""
        if self.guard is not None:
            self.guard.see(loss)
        super().update_params(loss, *args, **kwargs)  # type: ignore[misc]

    def step(self, **kwargs: Any) -> None:
        """Agree with the other processes, then step as mmengine does."""
        if self.guard is not None:
            groups = self.optimizer.param_groups
            scaler = getattr(self, "loss_scaler", None)
            half = getattr(self, "cast_dtype", None) is not torch.bfloat16  # which needs no scale
            self.guard.agree(
                (value for group in groups for value in group["params"]),
                skips=half and scaler is not None and scaler.is_enabled(),
            )
        super().step(**kwargs)  # type: ignore[misc]


@OPTIM_WRAPPERS.register_module()
class EVAOptimWrapper(_Guarded, OptimWrapper):
    """mmengine's `OptimWrapper`, in whose place `EVARunner` puts it."""


@OPTIM_WRAPPERS.register_module()
class EVAAmpOptimWrapper(_Guarded, AmpOptimWrapper):
    """mmengine's `AmpOptimWrapper`, in whose place `EVARunner` puts it."""


GUARDED = {"OptimWrapper": "EVAOptimWrapper", "AmpOptimWrapper": "EVAAmpOptimWrapper"}
