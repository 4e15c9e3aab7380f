"""The watch over the steps of a run on mmengine: finite losses and gradients, and a stop."""

from typing import Any, NoReturn

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from eva_runs.interruption import StopSignal
from eva_runs.run_folder import MESSAGES
from eva_runs.step_guard import StepGuard, gradients_are_finite

MAX_SKIPPED = 40  # steps in a row without a scale that fits: 65,536 has become 6e-8
_NAMED = 16  # images of a process in a message


class StepWatch:
    """Refuses losses and gradients that are not finite, by the images of the step.

    All processes agree on both, and on whether the run stops, see `StepGuard`.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._guard = StepGuard(MESSAGES, stop, get_device())
        self._images: list[list[str]] = []  # of each batch of a step
        self._iteration = 0
        self._stepped = False
        self._skipped = 0

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Look at the losses that the model returns, and at gradients before each step."""
        model.register_forward_hook(self._see_losses)
        optimizer.register_step_pre_hook(self._see_gradients)

    def note_batch(self, batch_idx: int, data_batch: Any) -> None:
        """Note the images of a batch."""
        samples = data_batch.get("data_samples", ()) if isinstance(data_batch, dict) else ()
        self._images.append([str(getattr(sample, "img_path", "an image")) for sample in samples])
        self._iteration = batch_idx + 1

    def finish_step(self, optim_wrapper: OptimWrapper) -> bool:
        """End a step: refuse overflows without an end; return whether all processes stop."""
        self._skipped = 0 if self._stepped else self._skipped + 1  # by a loss scale
        half = getattr(optim_wrapper, "cast_dtype", None) is not torch.bfloat16
        if self._skipped > (MAX_SKIPPED if half else 0):
            self._refuse(f"For {self._skipped} steps, whatever the loss scale, a gradient")
        self._stepped, self._images = False, []
        return self._guard.stopping

    def _see_losses(self, module: nn.Module, inputs: Any, losses: Any) -> None:
        if not module.training or not isinstance(losses, dict):
            return
        values = [
            v for loss in losses.values() for v in (loss if isinstance(loss, list) else [loss])
        ]
        finite = [value.detach().isfinite().all() for value in values if isinstance(value, Tensor)]
        # before the backward pass, whose collectives a process without finite losses may not join
        here = bool(torch.stack(finite).all())
        together, _ = self._guard.agree(finite=here)
        if not together:
            self._refuse("The loss", mine=not here)

    def _see_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Look at gradients, which are the same on all processes."""
        overflow = getattr(optimizer, "found_inf", None)  # a fused one skips such a step by itself
        if overflow is not None and overflow.item():
            return
        self._stepped = True
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        if not gradients_are_finite(parameters):
            self._refuse("A gradient")

    def _refuse(self, quantity: str, *, mine: bool = True) -> NoReturn:
        """Name the last images of the processes where it is so, or all of a step for a gradient."""
        batches = self._images[-1:] if quantity == "The loss" else self._images
        images = [name for batch in batches for name in batch][:_NAMED]
        culprit = f"images: {', '.join(images)}" if mine else None
        self._guard.refuse(quantity, self._iteration, culprit)
