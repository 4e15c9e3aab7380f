"""One optimizer step: mixed precision on any device, gradient accumulation, data parallelism."""

import contextlib
import time
from collections import defaultdict
from typing import Any, Literal

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eva_detection.optim import ClippedAdamW

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

    Raises:
        ValueError: For fp16 without a GPU or an accumulation below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        accumulate: int = 1,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        if accumulate < 1:
            raise ValueError(f"train.accumulate must be at least 1, got {accumulate}")
        if precision not in ("fp32", *_DTYPES):
            raise ValueError(f"train.amp.precision must be fp32, fp16 or bf16, got {precision!r}")
        self.device_type = next(model.parameters()).device.type
        if precision == "fp16" and self.device_type == "cpu":
            raise ValueError(
                "fp16 training needs a GPU; use train.amp.precision=bf16 or train.amp.enabled=False"
            )
        self.precision = precision
        self.accumulate = accumulate
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "fp16")

    def run_step(self) -> None:
        """Accumulate the gradients of `accumulate` batches, then step."""
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        data_time = 0.0
        for index in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            with self._synchronised(index == self.accumulate - 1):
                with self._autocast():
                    losses = self.model(batch)
                loss = sum(losses.values()) / self.accumulate
                self.grad_scaler.scale(loss).backward()
            for name, value in losses.items():
                totals[name] = totals[name] + value.detach().cpu() / self.accumulate
        self.after_backward()
        self._write_metrics(totals, data_time)  # raises on a loss that is not finite
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

    def _write_optimizer_metrics(self) -> None:
        if isinstance(self.optimizer, ClippedAdamW) and self.optimizer.last_grad_norm is not None:
            norm = self.optimizer.last_grad_norm.item()
            self.storage.put_scalar("grad_norm", norm)
        if self.precision == "fp16":
            self.storage.put_scalar("loss_scale", self.grad_scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, the loss scale included."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
