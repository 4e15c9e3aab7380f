"""What a training writes while it runs: logs, TensorBoard, a progress bar."""

import contextlib
import json
import logging
import math
import resource
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eva_data.progress import ProgressBar
from eva_data.saving import explain_os_errors, make_folder
from eva_engine.config import METRICS, RunConfig
from eva_report.content import score_name
from eva_report.terminal import SHOWN, logging_to
from eva_runs.processes import rank

logger = logging.getLogger(__name__)

_SHOWN = 12  # evaluations on the terminal, about


def logging_to_folder(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """Log all messages of the main process to `log.txt`, warnings of another to `log_rankN.txt`."""
    number = rank()
    level = logging.WARNING if number else logging.INFO
    return logging_to(folder / (f"log_rank{number}.txt" if number else "log.txt"), level=level)


class Size(NamedTuple):
    """How much a run does in all, and where."""

    steps: int
    batch: int  # samples of a step of all processes
    processes: int
    device: torch.device


class RunLog:
    """Writes the reports of the main process."""

    def __init__(
        self, run: RunConfig, size: Size, *, start_step: int, flops_per_sample: float | None
    ) -> None:
        self._size, self._log_every, self._flops = size, run.log_every, flops_per_sample
        make_folder(run.output)
        self._file, self._board_folder = run.output / METRICS, run.output / "tensorboard"
        with explain_os_errors(self._file):
            self._lines = self._file.open("a", encoding="utf-8")
        self._board: Any = None
        if run.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # not for other runs

            with explain_os_errors(self._board_folder):
                self._board = SummaryWriter(str(self._board_folder), purge_step=start_step)
        self._bar = ProgressBar(size.steps, title="training", unit="step", start=start_step)
        self._next_shown = 0
        self._since, self._last_step = time.perf_counter(), start_step

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Report loss, learning rate and other measurements of an optimizer step (from 0)."""
        done = step + 1
        self._bar.update(done - self._bar.done, loss=f"{values['loss']:.4f}")
        record = {"step": step, "samples": done * self._size.batch, **values}
        if done % self._log_every and done != self._size.steps:
            self._write(record)
            return
        record |= self._speed(done)
        self._write(record)
        self._send(step, record)
        shown = ("loss", "lr", "grad_norm", "loss_scale")
        parts = [f"{name} {record[name]:.4g}" for name in shown if name in record]
        parts.append(f"{record['samples_per_second']:.4g} samples/s")
        parts.append(f"{record['memory_gib']:.2f} GiB")
        if "model_tflops" in record:
            parts.append(f"{record['model_tflops']:.3g} TFLOP/s")
        parts.append(f"{timedelta(seconds=int(record['eta_seconds']))} left")
        logger.info("step %d/%d: %s", done, self._size.steps, ", ".join(parts))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Report the results of an evaluation after `step`; the terminal has about a dozen."""
        record = {f"val_{name}": value for name, value in values.items()}
        self._write({"step": step, **record})
        self._send(step, record)
        line = ", ".join(f"{score_name(name)} {value:.4g}" for name, value in values.items())
        done = step + 1
        shown = done >= self._next_shown or done == self._size.steps
        if shown:
            self._next_shown = done + self._size.steps // _SHOWN
        logger.info("step %d: evaluation: %s", done, line, extra=SHOWN if shown else None)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block (evaluations, checkpoints) out of the speed."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def close(self) -> None:
        """Close the files."""
        self._bar.close()
        try:
            self._lines.close()
            if self._board:
                self._board.close()
        except OSError as error:  # a full disk, which is about to be reported, or was nearly missed
            logger.warning("the end of the log is lost: %s", error.strerror or error)

    def _write(self, record: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        with explain_os_errors(self._file):
            self._lines.write(json.dumps(finite) + "\n")
            self._lines.flush()

    def _speed(self, done: int) -> dict[str, float]:
        now = time.perf_counter()
        seconds_per_step = (now - self._since) / max(1, done - self._last_step)
        self._since, self._last_step = now, done
        samples_per_second = self._size.batch / seconds_per_step
        values = {
            "samples_per_second": samples_per_second,
            "eta_seconds": (self._size.steps - done) * seconds_per_step,
            "memory_gib": _memory(self._size.device) / 2**30,
        }
        if self._flops is not None:
            values["model_tflops"] = samples_per_second * self._flops / 1e12
        return values

    def _send(self, step: int, record: Mapping[str, float]) -> None:
        if self._board:
            with explain_os_errors(self._board_folder):
                for name in record.keys() - {"step"}:
                    self._board.add_scalar(name, record[name], step)


def _memory(device: torch.device) -> float:
    """Measure the most bytes in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
