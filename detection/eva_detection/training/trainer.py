"""One optimizer step: mixed precision on any device, gradient accumulation, data parallelism.

All processes agree before the optimizer's step: whether a loss or a gradient is not finite, one of
them has failed, an image could not be read, or one of them was asked to stop.
"""

import contextlib
import functools
import logging
import time
from collections import defaultdict
from typing import Any, Literal, NoReturn

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eva_detection.data.stream import STEP, TrainStream
from eva_runs.data_order import seed_everything
from eva_runs.interruption import StopSignal
from eva_runs.precision import DTYPES
from eva_runs.run_folder import MESSAGES
from eva_runs.step_guard import BadSamples, StepGuard, gradients_are_finite

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "bf16"]
MIN_LOSS_SCALE = 1.0  # as DeepSpeed's: below it fp16 has lost what the scale is for


class DetectionTrainer(SimpleTrainer):
    """detectron2's trainer with fp16 (dynamic loss scale), bf16 and gradient accumulation.

    Args:
        model: Returns a dict of losses in training; maybe wrapped by DistributedDataParallel.
        data_loader: Yields batches.
        optimizer: The optimizer.
        precision: "fp32", "fp16" (needs a GPU) or "bf16".
        accumulate: Batches of one optimizer step.
        stop: Asks for an end after the step in progress; `guard.stopping` is the same on all.
        max_bad_images: Files that may be replaced because they cannot be read.
        seed: Source of every step's random numbers (dropped paths, sampled proposals), with the
            iteration and the rank, so a continued run draws the same with no state saved. None
            leaves the generators alone.
    """

    iter: int
    _data_loader_iter_obj: Any

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        accumulate: int = 1,
        stop: StopSignal | None = None,
        max_bad_images: int = 10,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.device = next(model.parameters()).device
        self.precision, self.accumulate, self.seed = precision, accumulate, seed
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        bad_images = BadSamples(max_bad_images, setting="train.max_bad_images")
        self.guard = StepGuard(MESSAGES, stop or StopSignal(), self.device, bad_images)
        self.iter = -1  # the latest iteration that is done

    def run_step(self) -> None:
        """Accumulate the gradients of `accumulate` batches, then step."""
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        data_time = 0.0
        images: list[str] = []
        for index in range(self.accumulate):
            last = index == self.accumulate - 1
            # gradients are averaged over the processes with the last batch of a step alone
            waits = not last and isinstance(self.model, DistributedDataParallel)
            with self.model.no_sync() if waits else contextlib.nullcontext():
                start = time.perf_counter()
                batch: Any = ()
                error: Exception | None = None
                try:
                    batch = next(self._data_loader_iter)
                    data_time += time.perf_counter() - start
                    losses = self._losses(batch, index)
                    values = torch.stack([*losses.values()]).detach().cpu()  # in one copy
                    for name, value in zip(losses, values, strict=True):
                        totals[name] = totals[name] + value / self.accumulate
                    if not values.isfinite().all():
                        raise FloatingPointError(dict(zip(losses, values.tolist(), strict=True)))
                except Exception as failure:  # the others learn of it before it is raised
                    error = failure
                if last or error:
                    self._agree(error, batch)
                images += _image_names(batch)
                loss = functools.reduce(torch.add, losses.values()) / self.accumulate
                self.grad_scaler.scale(loss).backward()
        if isinstance(self.model, DistributedDataParallel):
            # Once after the first backward pass; else the next forward pass would do it, with an
            # exchange that a process which fails before its forward pass never reaches.
            self.model.reducer._rebuild_buckets()
        self.after_backward()
        # with fp16 the loss scale deals with gradients that are not finite
        if self.precision != "fp16" and not gradients_are_finite(self.model.parameters()):
            self._refuse("A gradient, while the losses are finite,", images)
        self._write_metrics(totals, data_time)
        self._step(images)

    def _losses(self, batch: Any, index: int) -> dict[str, Tensor]:
        if self.seed is not None:  # not before the batch: loading draws numbers as well
            seed_everything(self.seed, STEP, self.iter * self.accumulate + index, comm.get_rank())
        mixed, dtype = self.precision != "fp32", DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype=dtype) if mixed else contextlib.nullcontext():
            return self.model(batch)

    def _agree(self, error: Exception | None, batch: Any) -> None:
        """Let all processes raise what one of them has met, after one small reduction.

        It stands before the backward pass of the last batch, in which all would wait for each
        other. Afterwards all have the same gradients.
        """
        unreadable = getattr(self.data_loader, "unreadable", {})
        not_finite = isinstance(error, FloatingPointError)  # ours, or detectron2's
        failure = None if not_finite else error
        finite, _ = self.guard.agree(finite=not not_finite, error=failure, unreadable=unreadable)
        unreadable.clear()
        if self.guard.bad_samples.names:
            count = len(self.guard.bad_samples.names)
            self.storage.put_scalar("bad_images", count, smoothing_hint=False)
        if not finite:
            names = ", ".join(_image_names(batch))
            report = f"{str(error).rstrip('.')}, images: {names}" if not_finite else None
            self.guard.refuse("The loss", self.iter + 1, report)

    def _refuse(self, quantity: str, images: list[str]) -> NoReturn:
        self.guard.refuse(quantity, self.iter + 1, f"images: {', '.join(images)}")

    def _step(self, images: list[str]) -> None:
        """Let the optimizer step, unless the loss scale skips gradients that overflow."""
        before = self.grad_scaler.get_scale()
        try:
            self.grad_scaler.step(self.optimizer)
        except RuntimeError as error:  # of clipping, where finite gradients have no finite norm
            if "non-finite" not in str(error):
                raise
            self._refuse("The norm of finite gradients", images)
        self.grad_scaler.update()
        scale = self.grad_scaler.get_scale()
        if scale < min(before, MIN_LOSS_SCALE):
            scaled = f"At a loss scale of {before:g}, where no smaller one helps,"
            self._refuse(f"{scaled} an fp16 gradient", images)
        norm = getattr(self.optimizer, "last_grad_norm", None)  # of `ClippedAdamW`
        if norm is not None:
            self.storage.put_scalar("grad_norm", norm.item())
        if self.precision == "fp16":
            self.storage.put_scalar("loss_scale", scale)

    def after_train(self) -> None:
        """Run the hooks and end the loader's workers."""
        self.iter = min(self.iter, self.max_iter)  # one more in a run that had ended
        try:
            super().after_train()
        except Exception:
            if self.iter >= self.max_iter:
                raise
            # what has ended the training counts, such as a full disk
            logger.info("metrics cannot be written", exc_info=True)
        finally:
            getattr(self._data_loader_iter_obj, "close", lambda: None)()
            self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, the loss scale and the place in the data included."""
        state = super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}
        state["bad_images"] = sorted(self.guard.bad_samples.names)
        if isinstance(self.data_loader, TrainStream):
            state["stream"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`, except for the place in the data, which the loader begins at."""
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.guard.bad_samples.names |= {*state_dict.get("bad_images", ())}


def _image_names(batch: Any) -> list[str]:
    """File and id of each image of a batch, as far as it has them."""
    images = [image for image in batch if isinstance(image, dict)]
    return [f"{image.get('file_name')} (id {image.get('image_id')})" for image in images]
