"""The log of a run: JSON lines, TensorBoard, Weights & Biases, a progress bar, one line of text."""

import importlib
import importlib.util
import json
import logging
import math
import resource
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eva_engine.config import RunConfig
from eva_engine.run_checkpoint import write_whole

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

# Peak of dense half-precision matrix products in FLOP/s (manufacturers' data sheets).
_PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "V100": 125e12,
    "L40S": 362e12,
    "A10": 125e12,
    "4090": 165e12,
    "3090": 71e12,
}


class RunLog:
    """Writes what the main process reports.

    Args:
        run: Settings of the run.
        start_step: First step; later lines of an earlier start are removed.
        total_steps: Steps of the whole run.
        batch_size: Samples of an optimizer step, all processes together.
        flops_per_sample: Model FLOPs of a sample, forward and backward; for the share of the peak.
        device: Where the model is.
        processes: Number of processes.
        config: The resolved config, for Weights & Biases.

    Attributes:
        last_evaluation: Step of the last evaluation before `start_step`, or -1.
    """

    def __init__(
        self,
        run: RunConfig,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        flops_per_sample: float | None,
        device: torch.device,
        processes: int,
        config: dict[str, Any],
    ) -> None:
        self.total_steps = total_steps
        self.batch_size = batch_size
        self._log_every = run.log_every
        self._device = device
        self._peak = processes * peak_flops(device)
        self._flops = flops_per_sample
        run.output.mkdir(parents=True, exist_ok=True)
        self._file = run.output / METRICS
        self.last_evaluation = _cut(self._file, start_step)
        self._lines = self._file.open("a", encoding="utf-8")
        self._board = _board(run.output / "tensorboard", start_step) if run.tensorboard else None
        self._wandb = _wandb(run, config) if run.wandb_project else None
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._since, self._last_step = time.perf_counter(), start_step
        self._seconds_per_step = 0.0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Report an optimizer step.

        Args:
            step: Its number, from 0.
            values: Loss, learning rate and whatever was measured.
        """
        done = step + 1
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        record = {"step": step, "samples": done * self.batch_size, **values}
        logs = done % self._log_every == 0 or done == self.total_steps
        if logs:
            record |= self._speed(done)
        self._lines.write(json.dumps(_finite(record)) + "\n")
        self._lines.flush()
        if logs:
            self._send(step, record)
            logger.info("%s", self._sentence(done, record))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Report the results of an evaluation after `step`."""
        record = {f"val_{name}": value for name, value in values.items()}
        self._lines.write(json.dumps(_finite({"step": step, **record})) + "\n")
        self._lines.flush()
        self._send(step, record)
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("step %d: evaluation: %s", step + 1, text)

    def pause(self) -> None:
        """Leave out the time until `go_on` (evaluations, checkpoints) from the speed."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """End a pause."""
        self._since += time.perf_counter() - self._paused

    def close(self) -> None:
        """Close files and connections."""
        self._bar.close()
        self._lines.close()
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()

    def _speed(self, done: int) -> dict[str, float]:
        now = time.perf_counter()
        steps = max(1, done - self._last_step)
        self._seconds_per_step = (now - self._since) / steps
        self._since, self._last_step = now, done
        samples_per_second = self.batch_size / self._seconds_per_step
        values = {
            "samples_per_second": samples_per_second,
            "eta_seconds": (self.total_steps - done) * self._seconds_per_step,
            "memory_gib": _memory(self._device) / 2**30,
        }
        if self._flops is not None:
            values["model_tflops"] = samples_per_second * self._flops / 1e12
            if math.isfinite(self._peak):
                values["model_flops_use"] = samples_per_second * self._flops / self._peak
        return values

    def _sentence(self, done: int, record: Mapping[str, float]) -> str:
        named = ("loss", "lr", "grad_norm", "loss_scale")
        parts = [f"{name} {record[name]:.4g}" for name in named if name in record]
        parts += [
            f"{record['samples_per_second']:.4g} samples/s",
            f"{record['memory_gib']:.2f} GiB",
            f"{_clock(record['eta_seconds'])} left",
        ]
        if "model_flops_use" in record:
            parts.insert(-1, f"{record['model_flops_use']:.1%} of peak FLOPs")
        return f"step {done}/{self.total_steps}: " + ", ".join(parts)

    def _send(self, step: int, record: Mapping[str, float]) -> None:
        values = {name: value for name, value in record.items() if name != "step"}
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)


def _finite(record: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN and no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in record.items()}


def check_packages(run: RunConfig) -> None:
    """Refuse a log whose package is not installed; before anything else is done.

    Args:
        run: Settings of the run.

    Raises:
        ValueError: Naming the setting and the package.
    """
    if run.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard=True needs the package tensorboard: pip install tensorboard, or set "
            "tensorboard=False"
        )
    if run.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"wandb_project={run.wandb_project!r} needs the package wandb: pip install wandb"
        )


def _cut(file: Path, start_step: int) -> int:
    """Keep the lines before a step (the last one may be half written); the last evaluation."""
    if not file.exists():
        return -1
    kept, last_evaluation = [], -1
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["step"] < start_step:
            kept.append(line + "\n")
            if any(name.startswith("val_") for name in record):
                last_evaluation = record["step"]
    write_whole(file, "".join(kept))
    return last_evaluation


def _board(folder: Path, start_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start_step)


def _wandb(run: RunConfig, config: dict[str, Any]) -> Any:
    wandb = importlib.import_module("wandb")
    name = run.output.name
    place = zlib.crc32(str(run.output.resolve()).encode())  # another folder is another run
    return wandb.init(
        project=run.wandb_project,
        name=name,
        id=f"{name}-{place:08x}",
        resume="allow",
        config=config,
    )


def peak_flops(device: torch.device) -> float:
    """Peak of dense half-precision matrix products in FLOP/s; NaN for a device without an entry."""
    if device.type != "cuda":
        return math.nan
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_FLOPS.items() if key in name), math.nan)


def _memory(device: torch.device) -> float:
    """Most bytes in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
