"""One optimizer step: mixed precision on any device, gradient accumulation, data parallelism.

All processes agree before the optimizer's step: whether a loss is not finite, an image could not be
read, or one of them was asked to stop.
"""

import contextlib
import logging
import time
from collections import defaultdict
from typing import Any, Literal

import torch
import torch.distributed
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eva_detection.interruption import StopSignal
from eva_detection.optim import ClippedAdamW
from eva_detection.stream import (
    STEP,
    TrainStream,
    UnreadableImagesError,
    describe_unreadable,
    seed_all,
)

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "bf16"]
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class DetectionTrainer(SimpleTrainer):
    """detectron2's trainer with fp16 (dynamic loss scale), bf16 and gradient accumulation.

    Args:
        model: Returns a dict of losses in training; maybe wrapped by DistributedDataParallel.
        data_loader: Yields batches.
        optimizer: The optimizer.
        precision: "fp32", "fp16" (needs a GPU) or "bf16".
        accumulate: Batches of one optimizer step; the effective batch is this many times the
            loader's.
        stop: Asks for an end after the step in progress.
        max_bad_images: Files that may be replaced because they cannot be read.

    Attributes:
        stop_agreed: A process was asked to stop; the same on all.
        seed: Every step's random numbers (dropped paths, sampled proposals) come from it, the
            iteration and the rank, hence a continued run draws the same with no state saved,
            whatever an evaluation in between has drawn. None leaves the generators alone.
        batches_seen: Batches that this process has taken, over all starts of the run.
        restored_stream: What the checkpoint says of the data's order; empty without.

    Raises:
        ValueError: For fp16 without a GPU or an accumulation below 1.
    """

    stop_agreed = False
    seed: int | None = None

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
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        if accumulate < 1:
            raise ValueError(f"train.accumulate must be at least 1, got {accumulate}")
        if precision not in ("fp32", *_DTYPES):
            raise ValueError(f"train.amp.precision must be fp32, fp16 or bf16, got {precision!r}")
        self.device = next(model.parameters()).device
        self.device_type = self.device.type
        if precision == "fp16" and self.device_type == "cpu":
            raise ValueError(
                "fp16 training needs a GPU; use train.amp.precision=bf16 or train.amp.enabled=False"
            )
        self.precision = precision
        self.accumulate = accumulate
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "fp16")
        self.stop = stop or StopSignal()
        self.max_bad_images = max_bad_images
        self.bad_images: dict[str, str] = {}
        self.batches_seen = 0
        self.restored_stream: dict[str, int] = {}

    def run_step(self) -> None:
        """Accumulate the gradients of `accumulate` batches, then step."""
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        data_time = 0.0
        suspects: list[str] = []  # images of batches whose loss is not finite
        for index in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            self.batches_seen += 1
            data_time += time.perf_counter() - start
            if self.seed is not None:  # not before the batch: loading draws numbers as well
                micro_step = self.iter * self.accumulate + index
                seed_all(self.seed, STEP, micro_step, comm.get_rank())
            with self._synchronised(index == self.accumulate - 1):
                with self._autocast():
                    losses = self.model(batch)
                loss = sum(losses.values()) / self.accumulate
                self.grad_scaler.scale(loss).backward()
            stacked = torch.stack([value.detach() for value in losses.values()]).cpu()  # one copy
            values = dict(zip(losses, stacked, strict=True))
            for name, value in values.items():
                totals[name] = totals[name] + value / self.accumulate
            if not all(value.isfinite() for value in values.values()):
                suspects += _image_names(batch)
        self.after_backward()
        self._agree(totals, suspects)
        self._write_metrics(totals, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._write_optimizer_metrics()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=_DTYPES[self.precision])

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients are averaged over the processes only with the last batch of a step."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _agree(self, losses: dict[str, Tensor], suspects: list[str]) -> None:
        """Let all processes know what one of them has met, in one small reduction.

        Raises:
            FloatingPointError: If a loss is not finite, on all processes.
            UnreadableImagesError: If too many images cannot be read, on all processes.
        """
        stream = self.data_loader
        unreadable = stream.unreadable if isinstance(stream, TrainStream) else {}
        finite = all(value.isfinite() for value in losses.values())
        facts = [not finite, bool(unreadable), self.stop.requested]
        if comm.get_world_size() > 1:
            flags = torch.tensor(facts, dtype=torch.int32, device=self.device)
            torch.distributed.all_reduce(flags)
            facts = [bool(flag) for flag in flags.tolist()]
        not_finite, bad_images, self.stop_agreed = facts
        if bad_images:
            found = comm.all_gather(dict(unreadable))
            unreadable.clear()
            self._count_bad_images(found)
        if self.bad_images:
            self.storage.put_scalar("bad_images", len(self.bad_images), smoothing_hint=False)
        if not_finite:
            values = {name: value.item() for name, value in losses.items()}
            found = comm.all_gather(None if finite else (values, suspects))
            lines = (
                f"\n  process {rank}: {report[0]}, images: {', '.join(report[1])}"
                for rank, report in enumerate(found)
                if report is not None
            )
            raise FloatingPointError(
                f"The loss became infinite or NaN at iteration={self.iter}; all processes stop "
                f"before the optimizer's step:{''.join(lines)}"
            )

    def _count_bad_images(self, found: list[dict[str, str]]) -> None:
        for unreadable in found:
            for name, error in unreadable.items():
                if name not in self.bad_images:
                    logger.warning("Replaced an image that cannot be read: %s: %s", name, error)
                    self.bad_images[name] = error
        if len(self.bad_images) > self.max_bad_images:
            raise UnreadableImagesError(
                describe_unreadable(self.bad_images, allowed=self.max_bad_images)
            )

    def _write_optimizer_metrics(self) -> None:
        if isinstance(self.optimizer, ClippedAdamW) and self.optimizer.last_grad_norm is not None:
            norm = self.optimizer.last_grad_norm.item()
            self.storage.put_scalar("grad_norm", norm)
        if self.precision == "fp16":
            self.storage.put_scalar("loss_scale", self.grad_scaler.get_scale())

    def after_train(self) -> None:
        """Run the hooks and end the loader's workers."""
        try:
            super().after_train()
        finally:
            self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, the loss scale and the place in the data included."""
        state = super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}
        if isinstance(self.data_loader, TrainStream):
            state["stream"] = self.data_loader.state_dict() | {"batches": self.batches_seen}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.restored_stream = dict(state_dict.get("stream", {}))
        steps = self.iter + 1
        self.batches_seen = self.restored_stream.pop("batches", steps * self.accumulate)


def _image_names(batch: Any) -> list[str]:
    """File and id of each image of a batch, as far as it has them."""
    images = [image for image in batch if isinstance(image, dict)]
    return [f"{image.get('file_name')} (id {image.get('image_id')})" for image in images]
