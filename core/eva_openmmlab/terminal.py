"""What a program on mmengine says: a few lines on the terminal, everything in `log.txt`.

mmengine's logger and whatever the frameworks print go to the log. The terminal has the toolkit's
own warnings and lines, and Python's warnings of a user's own modules.
"""

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from logging.handlers import MemoryHandler
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import explained
from eva_data.progress import ProgressBar
from eva_openmmlab.config import parts_of
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.run_folder import SAYS, iteration_of
from eva_report.terminal import SHOWN, FileFormatter, TerminalHandler, opening_lines
from eva_runs import processes

LOG = "log.txt"
logger = logging.getLogger(__name__)
_LINES = 12  # of evaluations, however many there are
_WINDOW = 20  # iterations of the loss beside the bar
_PERCENT = ("mIoU", "mAcc", "aAcc")  # mmseg gives percents
_KINDS = {"bbox": "box", "segm": "mask"}
_PARTS = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75"}
_PARTS |= {name: name for name in ("AP", "APr", "APc", "APf")}  # of LVIS
_OTHERS = 4  # scores of an unknown metric


class Output:
    """Where the messages of a program go; `quiet` makes one.

    Attributes:
        bars: Open bars, which an error closes too.
        handlers: Handlers of all loggers, for the terminal and the log.
    """

    def __init__(self) -> None:
        self.bars: list[ProgressBar] = []
        self._kept = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)  # until there is a log
        self.handlers: list[logging.Handler] = [self._kept, _terminal()]

    def write_to(self, folder: Path) -> None:
        """Write what was logged so far, what follows, and what is printed, to the log of a folder.

        Only the main process writes.
        """
        file = folder / LOG if _is_first() else Path(os.devnull)
        with explained(file):
            target = logging.FileHandler(file, encoding="utf-8")
        target.setFormatter(FileFormatter())
        self._kept.setTarget(target)
        self._kept.capacity = 1  # every record at once
        self._kept.flush()
        sys.stdout = target.stream

    def take(self, mmlogger: logging.Logger) -> None:
        """Show what a logger of mmengine, outside Python's tree, logs with `extra=SHOWN`."""
        terminal = _terminal()
        terminal.addFilter(lambda record: bool(getattr(record, "shown", False)))
        mmlogger.addHandler(terminal)

    def close(self) -> None:
        """Close bars and the log."""
        for bar in self.bars:
            bar.close()
        target = self._kept.target
        self._kept.close()
        if target is not None:
            target.close()

    def say(self, lines: Sequence[str]) -> None:
        """Show lines, of the main process alone."""
        for line in lines:
            logger.info("%s", line, extra=dict(SHOWN))


@contextlib.contextmanager
def quiet() -> Iterator[Output]:
    """Keep the messages of a program and its frameworks from the terminal, except its output's."""
    root, output, stdout = logging.getLogger(), Output(), sys.stdout
    level, others = root.level, root.handlers  # a framework may have made some
    root.handlers = output.handlers
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield output
    finally:
        sys.stdout, root.handlers = stdout, others
        root.setLevel(level)
        logging.captureWarnings(False)
        output.close()


def _terminal() -> TerminalHandler:
    handler = TerminalHandler()
    if not _is_first():
        handler.setLevel(logging.ERROR)
    return handler


def _is_first() -> bool:
    """Return whether this is the main process, before mmengine knows it."""
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # of torchrun, Slurm, Open MPI
    return all(os.environ.get(name, "0") == "0" for name in names)


class TerminalHook(Hook):
    """Say what a run does, on the main process: opening lines, a bar, lines of evaluations.

    Args:
        output: Where it says so.
        recipe: Name of the recipe or config.
    """

    priority = "LOWEST"

    def __init__(self, output: Output, *, recipe: str) -> None:
        self._output, self._recipe = output, recipe
        self._training: ProgressBar | None = None
        self._evaluation: ProgressBar | None = None

    def _bar(self, total: int, what: str, start: int = 0) -> ProgressBar | None:
        if not processes.is_main():
            return None
        self._output.bars.append(ProgressBar(total, what=what, start=start))
        return self._output.bars[-1]

    def before_run(self, runner: Any) -> None:
        """Say what is trained or scored, once the data are read and before weights are."""
        if not processes.is_main():
            return
        trains, resumed = isinstance(runner._train_loop, BaseLoop), run_hook(runner).resumed
        task, more = f"evaluate {self._recipe} on {_device(runner)}", []
        if trains:
            images = runner.train_dataloader.batch_size * get_world_size()
            task = f"train {self._recipe}: {runner.max_iters:,} iterations of {images} images on "
            task += _device(runner)
        if resumed is not None:
            more = [SAYS.resumed(iteration_of(resumed), runner.max_iters, resumed)]
        given = runner._load_from or "random"
        weights = str(resolve_source(given)) if Path(given).is_dir() else str(given)
        data = [_described(runner, part) for part in (("train", "val") if trains else ("test",))]
        folder = Path(runner.work_dir)
        lines = opening_lines(
            task=task, weights=weights, data=list(filter(None, data)), output=folder, more=more
        )
        self._output.say(lines)
        runner.logger.info("%s", runner.model)

    def before_train(self, runner: Any) -> None:
        """Open the bar."""
        self._training = self._bar(runner.max_iters, "training", runner.iter)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._training is not None:
            loss = runner.message_hub.log_scalars.get("train/loss")
            self._training.update(1, **({"loss": f"{loss.mean(_WINDOW):.3f}"} if loss else {}))

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        if self._training is not None:
            self._training.close()

    def before_val_epoch(self, runner: Any) -> None:
        """Open a bar for an evaluation."""
        self._evaluation = self._bar(len(runner.val_dataloader), "evaluation")

    def before_test_epoch(self, runner: Any) -> None:
        """Open a bar for an evaluation."""
        self._evaluation = self._bar(len(runner.test_dataloader), "evaluation")

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar of an evaluation."""
        if self._evaluation is not None:
            self._evaluation.update()

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Show the scores of an evaluation in training, or of some if there are many."""
        self.after_test_epoch(runner, metrics)
        interval = getattr(runner.train_loop, "val_interval", 1)
        number, total = runner.iter // interval, math.ceil(runner.max_iters / interval)
        shown = runner.iter >= runner.max_iters or number % math.ceil(total / (_LINES - 1)) == 0
        if self._training is not None and shown:
            lines = score_lines(metrics or {}) or ["no scores, since nothing was found"]
            scores = "; ".join(", ".join(line.split(", ")[:2]) for line in lines)
            self._output.say([f"{SAYS.unit} {runner.iter:,}: {scores}"])

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the bar of an evaluation."""
        if self._evaluation is not None:
            self._evaluation.close()
            self._output.bars.remove(self._evaluation)
            self._evaluation = None


def score_lines(metrics: Mapping[str, object]) -> list[str]:
    """Describe the scores of an evaluation: mIoU and accuracies, boxes, masks, or another metric's.

    Args:
        metrics: Name -> value as mmengine's evaluators give them: mmseg's in percent, AP of
            mmdetection in 0..1, which is shown in percent too. "-" stands for what has no score.
    """
    values = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    lines = [", ".join(f"{name} {_text(values[name], 2)}" for name in _PERCENT if name in values)]
    plain = {name.rpartition("/")[2]: value for name, value in values.items()}
    for kind, word in _KINDS.items():
        known = [(short, plain.get(f"{kind}_{part}")) for part, short in _PARTS.items()]
        parts = [f"{name} {_text(100 * v, 1)}" for name, v in known if v is not None]
        lines.append(f"{word} {', '.join(parts)}" if parts else "")
    if not any(lines):
        others = [name for name in values if not name.endswith("time")][:_OTHERS]
        lines = [", ".join(f"{name} {values[name]:.4g}" for name in others)]
    return list(filter(None, lines))


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.{digits}f}"


def _described(runner: Any, part: str) -> str:
    """Describe the dataset of a part in a line: images, objects, classes, place."""
    loop = getattr(runner, f"_{part}_loop")
    if not isinstance(loop, BaseLoop):
        return ""
    dataset = loop.dataloader.dataset
    counts = [f"{len(dataset):,} images"]
    if classes := (getattr(dataset, "metainfo", None) or {}).get("classes"):
        counts.append(f"{len(classes):,} classes")
    first = parts_of(runner.cfg[f"{part}_dataloader"].dataset)[0]
    place = first.get("data_root") or first.get("ann_file") or first.get("images")
    return f"{part}: {', '.join(counts)} ({place})"


def _device(runner: Any) -> str:
    kind, count = next(runner.model.parameters()).device.type, get_world_size()
    if kind == "cpu":
        return "cpu" if count == 1 else f"cpu, {count} processes"
    return "one GPU" if count == 1 else f"{count} GPUs"
