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
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import explained
from eva_data.progress import ProgressBar
from eva_openmmlab.config import parts_of
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.run_folder import SAYS
from eva_report.terminal import SHOWN, FileFormatter, TerminalHandler, opening_lines
from eva_runs import processes

LOG = "log.txt"
OURS = ("eva_backbone", "eva_data", "eva_mmdetection", "eva_openmmlab", "eva_segmentation")
logger = logging.getLogger(__name__)
_LINES = 12  # of evaluations, however many there are
_WINDOW = 20  # iterations of the loss beside the bar
_COUNTED = 150_000  # images whose objects are counted: all of COCO in a few seconds
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

        Args:
            folder: The work folder; only the main process writes.

        Raises:
            UnwritableError: If the log cannot be written.
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
    """Keep the messages of a program and its frameworks from the terminal.

    Yields:
        Where the program says the rest.
    """
    root, output, stdout = logging.getLogger(), Output(), sys.stdout
    levels = {name: logging.getLogger(name).level for name in OURS}
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    others, root.handlers = root.handlers, output.handlers  # a framework may have made some
    logging.captureWarnings(True)
    try:
        yield output
    finally:
        sys.stdout, root.handlers = stdout, others
        logging.captureWarnings(False)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
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
    """Says what a run does, on the main process: opening lines, a bar, lines of evaluations.

    Args:
        output: Where it says so.
        recipe: Name of the recipe or config.

    Attributes:
        scores: Scores of the latest evaluation; None before the first one.
    """

    priority = "LOWEST"

    def __init__(self, output: Output, *, recipe: str) -> None:
        self.scores: Mapping[str, Any] | None = None
        self._output, self._recipe = output, recipe
        self._bar: ProgressBar | None = None
        self._evaluation: ProgressBar | None = None

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
            done = int(resumed.stem.rpartition("_")[2])
            more = [SAYS.resumed(done, runner.max_iters, resumed)]
        given = runner._load_from or "random"
        weights = str(resolve_source(given)) if Path(given).is_dir() else str(given)
        data = _data(runner, ("train", "val") if trains else ("test",))
        folder = Path(runner.work_dir)
        lines = opening_lines(task=task, weights=weights, data=data, output=folder, more=more)
        self._output.say(lines)
        runner.logger.info("%s", runner.model)

    def before_train(self, runner: Any) -> None:
        """Open the bar."""
        if processes.is_main():
            self._bar = ProgressBar(runner.max_iters, what="training", start=runner.iter)
            self._output.bars.append(self._bar)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            loss = runner.message_hub.log_scalars.get("train/loss")
            self._bar.update(1, **({"loss": f"{loss.mean(_WINDOW):.3f}"} if loss else {}))

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def before_val_epoch(self, runner: Any) -> None:
        """Open a bar for an evaluation."""
        self._begin(runner.val_dataloader)

    def before_test_epoch(self, runner: Any) -> None:
        """Open a bar for an evaluation."""
        self._begin(runner.test_dataloader)

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar of an evaluation."""
        if self._evaluation is not None:
            self._evaluation.update()

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Show the scores of an evaluation in training, or of some if there are many."""
        self.after_test_epoch(runner, metrics)
        if self._bar is not None and _is_shown(runner):
            scores = "; ".join(", ".join(s.split(", ")[:2]) for s in self.score_lines())
            self._output.say([f"{SAYS.unit} {runner.iter:,}: {scores}"])

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Note the scores, which the closing lines show."""
        self.scores = dict(metrics or {})
        if self._evaluation is not None:
            self._evaluation.close()
            self._output.bars.remove(self._evaluation)
            self._evaluation = None

    def score_lines(self) -> list[str]:
        """Describe the latest scores; no line for a run that evaluated nothing."""
        if self.scores is None:
            return []
        return score_lines(self.scores) or ["no scores, since nothing was found"]

    def _begin(self, loader: Any) -> None:
        if processes.is_main():
            self._evaluation = ProgressBar(len(loader), what="evaluation")
            self._output.bars.append(self._evaluation)


def score_lines(metrics: Mapping[str, object]) -> list[str]:
    """Describe the scores of an evaluation.

    Args:
        metrics: Name -> value as mmengine's evaluators give them: mmseg's in percent, AP of
            mmdetection in 0..1, which is shown in percent too.

    Returns:
        A line for mIoU and accuracies, one for boxes, one for masks, those that there are; the
        first scores of another metric as they are. Where nothing could be scored it is "-".
    """
    values = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    lines = [", ".join(f"{name} {_text(values[name])}" for name in _PERCENT if name in values)]
    plain = {name.rpartition("/")[2]: value for name, value in values.items()}
    for kind, word in _KINDS.items():
        known = [(short, plain.get(f"{kind}_{part}")) for part, short in _PARTS.items()]
        parts = [f"{name} {_text(100 * v, 1)}" for name, v in known if v is not None]
        lines.append(f"{word} {', '.join(parts)}" if parts else "")
    others = [name for name in values if not name.endswith("time")][:_OTHERS]
    found = [line for line in lines if line]
    return found or [", ".join(f"{name} {values[name]:.4g}" for name in others)] * bool(others)


def _text(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.{digits}f}"


def _is_shown(runner: Any) -> bool:
    """Show the last evaluation, and of the others as many as fit into `_LINES`."""
    interval = getattr(runner.train_loop, "val_interval", 1)
    number, total = runner.iter // interval, math.ceil(runner.max_iters / interval)
    return runner.iter >= runner.max_iters or number % math.ceil(total / (_LINES - 1)) == 0


def _data(runner: Any, parts: Sequence[str]) -> list[str]:
    """Describe each dataset in a line: images, objects, classes, place."""
    lines = []
    for part in parts:
        loop = getattr(runner, f"_{part}_loop")
        if isinstance(loop, BaseLoop):
            dataset, settings = loop.dataloader.dataset, runner.cfg[f"{part}_dataloader"].dataset
            counts = [f"{len(dataset):,} images"]
            if (objects := count_objects(dataset)) is not None:
                counts.append(f"{objects:,} objects")
            if classes := (getattr(dataset, "metainfo", None) or {}).get("classes"):
                counts.append(f"{len(classes):,} classes")
            first = parts_of(settings)[0]
            place = first.get("data_root") or first.get("ann_file") or first.get("images")
            lines.append(f"{part}: {', '.join(counts)} ({place})")
    return lines


def count_objects(dataset: Any) -> int | None:
    """Count the objects of a dataset of mmdetection; None for another or a very large one."""
    look = getattr(dataset, "get_data_info", None)
    if look is None or hasattr(dataset, "datasets") or not 0 < len(dataset) <= _COUNTED:
        return None
    if "instances" not in look(0):
        return None
    return sum(len(look(number)["instances"]) for number in range(len(dataset)))


def _device(runner: Any) -> str:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    kind, count = next(model.parameters()).device.type, get_world_size()
    if kind == "cpu":
        return "cpu" if count == 1 else f"cpu, {count} processes"
    return "one GPU" if count == 1 else f"{count} GPUs"
