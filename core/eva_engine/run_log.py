"""The logs of a run: text, JSON lines, TensorBoard, Weights & Biases, a progress bar."""

import contextlib
import importlib
import json
import logging
import math
import resource
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eva_data.files import explained, make_folder, write_text
from eva_data.progress import ProgressBar
from eva_engine.config import RunConfig
from eva_engine.steps.flops import peak_flops
from eva_report.terminal import SHOWN, FileFormatter, TerminalHandler
from eva_runs.processes import rank

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
_SHOWN = 12  # evaluations on the terminal, about
_POINTS = 400  # of a curve in a report


@contextlib.contextmanager
def logging_to(folder: Path) -> Iterator[Path]:
    """Send messages to the terminal and a file of the run's folder; afterwards as before.

    The main process writes all of them to `log.txt`, and what `TerminalHandler` lets pass to the
    terminal; another one warnings to `log_rankN.txt`, of which the main one shows its own.

    Args:
        folder: Output folder of the run.

    Yields:
        The file, which appears with its first line.
    """
    number = rank()
    file = folder / (f"log_rank{number}.txt" if number else "log.txt")
    root, terminal = logging.getLogger(), TerminalHandler()
    terminal.setLevel(logging.ERROR if number else logging.NOTSET)  # most warn of the same
    ours = [terminal, _LogFile(file)]
    level, others = root.level, root.handlers[:]
    root.handlers[:] = ours
    root.setLevel(logging.WARNING if number else logging.INFO)
    logging.captureWarnings(True)
    try:
        yield file
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = others
        root.setLevel(level)
        for handler in ours:
            handler.close()


class _LogFile(logging.FileHandler):
    """A file that appears with its first line; if it cannot be written, that is said once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
        self.setFormatter(FileFormatter())
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the first one opens the file, which may fail too."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Write the error that is being handled."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            ProgressBar.write(f"{self.baseFilename} cannot be written: {error.strerror}")

    def close(self) -> None:
        """Close the file, also if its last lines find no space."""
        with contextlib.suppress(OSError):
            super().close()


class RunLog:
    """Writes the reports of the main process.

    Args:
        run: Settings of the run.
        start_step: First step; later lines of an earlier start are removed.
        total_steps: Steps of the complete run.
        batch_size: Samples of an optimizer step, all processes together.
        flops_per_sample: Model FLOPs of a sample, forward and backward.
        device: Device of the model.
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
        peak = peak_flops(device) if flops_per_sample is not None else math.nan
        self._peak = processes * peak
        self._flops = flops_per_sample
        make_folder(run.output)
        self._file, self._board_folder = run.output / METRICS, run.output / "tensorboard"
        self.last_evaluation = _cut(self._file, start_step)
        with explained(self._file):
            self._lines = self._file.open("a", encoding="utf-8")
        with explained(self._board_folder):
            self._board = _board(self._board_folder, start_step) if run.tensorboard else None
        self._wandb = _wandb(run, config) if run.wandb_project else None
        self._bar = ProgressBar(total_steps, what="training", unit="step", start=start_step)
        self._next_shown = 0
        self._since, self._last_step = time.perf_counter(), start_step
        self._seconds_per_step = 0.0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Report loss, learning rate and other measurements of an optimizer step (from 0)."""
        done = step + 1
        self._bar.update(done - self._bar.done, loss=f"{values['loss']:.4f}")
        record = {"step": step, "samples": done * self.batch_size, **values}
        logs = done % self._log_every == 0 or done == self.total_steps
        if logs:
            record |= self._speed(done)
        self._write(record)
        if logs:
            self._send(step, record)
            logger.info("%s", self._sentence(done, record))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Report the results of an evaluation after `step`; the terminal has about a dozen."""
        record = {f"val_{name}": value for name, value in values.items()}
        self._write({"step": step, **record})
        self._send(step, record)
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        done = step + 1
        shown = done >= self._next_shown or done == self.total_steps
        if shown:
            self._next_shown = done + self.total_steps // _SHOWN
        logger.info("step %d: evaluation: %s", done, text, extra=SHOWN if shown else None)

    def pause(self) -> None:
        """Leave out the time until `go_on` (evaluations, checkpoints) from the speed."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """End a pause."""
        self._since += time.perf_counter() - self._paused

    def close(self) -> None:
        """Close files and connections."""
        self._bar.close()
        try:
            self._lines.close()
            if self._board:
                self._board.close()
        except OSError as error:  # a full disk, which is about to be reported, or was nearly missed
            logger.warning("the end of the log is lost: %s", error.strerror or error)
        if self._wandb:
            self._wandb.finish()

    def _write(self, record: Mapping[str, float]) -> None:
        with explained(self._file):
            self._lines.write(json.dumps(_finite(record)) + "\n")
            self._lines.flush()

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
            with explained(self._board_folder):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)


def _finite(record: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in record.items()}


def last_logged_step(output: Path) -> int:
    """Find the step, from 0, of the last complete line that a run logged; -1 if there is none."""
    steps = [record["step"] for _, record in _records(output / METRICS)]
    return max(steps, default=-1)


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield lines and their content, up to the first that is not complete (a kill may cut one)."""
    if not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                if not isinstance(record["step"], int):
                    return
            except (ValueError, KeyError, TypeError):
                return
            yield line.rstrip("\n"), record


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """Read the complete lines of `metrics.jsonl`: `step`, from 0, and other numbers."""
    for _, record in _records(file):
        yield record


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points (x, y), so that a curve has a few hundred of them."""
    size = max(1, math.ceil(len(points) / _POINTS))
    parts = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part))
            for part in parts]  # fmt: skip


def _cut(file: Path, start_step: int) -> int:
    """Keep the lines before a step; returns the step of the last evaluation among them."""
    if not file.exists():
        return -1
    kept, last_evaluation = [], -1
    for line, record in _records(file):
        if record["step"] < start_step:
            kept.append(line + "\n")
            if any(name.startswith("val_") for name in record):
                last_evaluation = record["step"]
    write_text(file, "".join(kept))
    return last_evaluation


def _board(folder: Path, start_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # only where the setting asks for it

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


def _memory(device: torch.device) -> float:
    """Measure the most bytes in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
