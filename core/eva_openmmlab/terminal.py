"""What a program on mmengine says: a few lines on the terminal, everything in `log.txt`.

mmengine's logger and whatever the frameworks print go to the log. The terminal has the toolkit's
own warnings and lines, and Python's warnings of a user's own modules.
"""

import contextlib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from logging.handlers import MemoryHandler
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from eva_backbone.checkpoints.run_folders import describe_weights
from eva_data.files import display_path
from eva_data.progress import ProgressBar
from eva_data.saving import explain_os_errors
from eva_openmmlab.config import parts_of
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.loop import trains
from eva_openmmlab.run_folder import iteration_of
from eva_report.terminal import (
    FileFormatter,
    TerminalHandler,
    counted,
    is_shown,
    opening_lines,
    root_logs_to,
    show,
)
from eva_runs import processes
from eva_runs.run_folder import MESSAGES

LOG = "log.txt"
_WINDOW = 20  # iterations of the loss beside the bar
_PERCENT = ("mIoU", "mAcc", "aAcc")  # mmseg gives percents
_AP = re.compile(r"(?:\w+/)?(bbox|segm)_(?:m(?=AP))?(AP\w*)")  # mmdetection's, 0 to 1
_PQ = "coco_panoptic/"  # in percent
_SHOWN = ("AP", "AP50", "AP75", "APr", "APc", "APf")
TITLES = {"bbox": "box", "segm": "mask"}
_OTHERS = 4  # scores of an unknown metric
NOTHING = "no scores, since nothing was found"


@contextlib.contextmanager
def quiet() -> Iterator[Callable[[Path], None]]:
    """Keep the messages of a program and its frameworks from the terminal, except the toolkit's.

    Yields:
        Function that writes what was logged, and all that follows or is printed, to the log of a
        folder; the main process alone writes.
    """
    log = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
    with contextlib.ExitStack() as stack:

        def write_to(folder: Path) -> None:
            file = folder / LOG if _is_first() else Path(os.devnull)
            with explain_os_errors(file):
                target = logging.FileHandler(file, encoding="utf-8")
            stack.callback(target.close)
            target.setFormatter(FileFormatter())
            log.setTarget(target)
            log.flushLevel = logging.NOTSET  # every record at once
            log.flush()
            sys.stdout = target.stream

        stack.enter_context(contextlib.redirect_stdout(sys.stdout))  # the one before
        stack.enter_context(root_logs_to(terminal(), log))
        yield write_to


def terminal() -> TerminalHandler:
    """Make a handler that shows what a user wants to see, of other processes only errors."""
    handler = TerminalHandler()
    handler.setLevel(logging.NOTSET if _is_first() else logging.ERROR)
    return handler


def _is_first() -> bool:
    """Return whether this is the main process, before mmengine knows it."""
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # of torchrun, Slurm, Open MPI
    return all(os.environ.get(name, "0") == "0" for name in names)


class TerminalHook(Hook):
    """Say what a run does, on the main process: opening lines, a bar, lines of evaluations.

    Args:
        recipe: Name of the recipe or config.
    """

    priority = "LOWEST"

    def __init__(self, recipe: str) -> None:
        self._recipe = recipe
        self._bars: list[ProgressBar] = []  # of the training, and of an evaluation inside it

    def before_run(self, runner: Any) -> None:
        """Say what is trained or scored, once the data are read and before weights are."""
        if not processes.is_main():
            return
        resumed, parts = run_hook(runner).resumed, ["test"]
        task = f"evaluate {self._recipe}"
        if trains(runner):
            batches, parts = runner.train_dataloader.batch_sampler, ["train", "val"]
            task = f"train {self._recipe}: {runner.max_iters:,} iterations"
            if not resumed:  # a checkpoint, which is read later, has its own number of images
                images = getattr(batches, "step_batch", 0)  # of `EVATrainLoop`
                task += f" of {images or batches.batch_size * get_world_size()} images"
        loaders = [f"{part}_dataloader" for part in parts]
        of_backbone = (runner.cfg.model.get("backbone") or {}).get("pretrained")
        first = str(runner.cfg.get("load_from") or of_backbone or "")
        lines = opening_lines(
            task=f"{task} on {_device(runner)}",
            weights=display_path(resumed) if resumed else describe_weights(first),
            data=[_described(runner, loader) for loader in loaders if runner.cfg.get(loader)],
            output=Path(runner.work_dir),
        )
        show(*lines)
        if resumed:
            show(MESSAGES.resumed(iteration_of(resumed), runner.max_iters, resumed))
        runner.logger.info("%s", runner.model)

    def after_run(self, runner: Any) -> None:
        """Close the bars; called after an error too."""
        while self._bars:
            self._bars.pop().close()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Show the scores of an evaluation in training, or of some if there are many."""
        super().after_val_epoch(runner, metrics)
        loop, done, steps = runner.train_loop, runner.iter, runner.max_iters
        if not isinstance(loop, IterBasedTrainLoop):
            done, steps = runner.epoch, runner.max_epochs
        number, total = done // loop.val_interval, math.ceil(steps / loop.val_interval)
        if done >= steps or is_shown(number, total, most=11):
            lines = score_lines(metrics or {}) or [NOTHING]
            scores = "; ".join(", ".join(line.split(", ")[:2]) for line in lines)
            show(f"{MESSAGES.unit} {runner.iter:,}: {scores}")

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        if not processes.is_main():
            return
        if mode == "train":
            self._bars.append(ProgressBar(runner.max_iters, title="training", start=runner.iter))
        else:
            total = len(getattr(runner, f"{mode}_dataloader"))
            self._bars.append(ProgressBar(total, title="evaluation"))

    def _after_iter(self, runner: Any, *args: Any, mode: str = "train", **kwargs: Any) -> None:
        loss = runner.message_hub.log_scalars.get("train/loss") if mode == "train" else None
        note = {"loss": f"{loss.mean(_WINDOW):.3f}"} if loss else {}
        if self._bars:
            self._bars[-1].update(1, **note)

    def _after_epoch(self, runner: Any, mode: str = "train") -> None:
        if self._bars:
            self._bars.pop().close()


def percent(scores: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """Name scores of mmdetection (`coco/bbox_mAP_50`, `lvis/segm_APr`: 0 to 1) as detectron2 does.

    Returns:
        Task ("bbox", "segm") -> "AP", "AP50" ... -> percent; None where there is nothing to score.
    """
    tasks: dict[str, dict[str, float | None]] = {}
    for name, value in scores.items():
        match = _AP.fullmatch(name)
        if match and not name.endswith("_copypaste"):
            is_score = math.isfinite(value) and value >= 0
            metric = match[2].replace("_", "")
            tasks.setdefault(match[1], {})[metric] = 100 * value if is_score else None
    return tasks


def score_lines(metrics: Mapping[str, object]) -> list[str]:
    """Describe the scores of an evaluation: mIoU and accuracies, boxes, masks, or another metric's.

    Args:
        metrics: Name -> value as mmengine's evaluators give them: mmseg's in percent, AP of
            mmdetection in 0..1, which is shown in percent too. "-" stands for what has no score.
    """
    values = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    shown = [f"{name} {_text(values[name], 2)}" for name in _PERCENT if name in values]
    lines = [", ".join(shown)] if shown else []
    qualities = [name for name in values if name.startswith(f"{_PQ}PQ")]
    if qualities:
        parts = [f"{name.removeprefix(_PQ)} {_text(values[name], 1)}" for name in qualities]
        lines.append(", ".join(parts))
    for task, scores in percent(values).items():
        parts = [f"{name} {_text(scores[name], 1)}" for name in _SHOWN if name in scores]
        lines.append(f"{TITLES[task]} {', '.join(parts)}")
    others = [name for name in values if not name.endswith("time")][:_OTHERS]
    if others and not lines:
        lines = [", ".join(f"{name} {values[name]:.4g}" for name in others)]
    return lines


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _described(runner: Any, loader: str) -> str:
    """Describe the dataset of a loader in a line: part, images, classes, place."""
    dataset = getattr(runner, loader).dataset
    classes = len((getattr(dataset, "metainfo", None) or {}).get("classes") or ())
    first = parts_of(runner.cfg[loader].dataset)[0]
    folders = (first.get("data_prefix") or {}).values()
    named = (*map(first.get, ("data_root", "ann_file", "images")), *folders)
    location = next((path for path in named if path and isinstance(path, str | os.PathLike)), None)
    part = loader.partition("_")[0]
    images = f"{part}: {counted(len(dataset), 'image')}, {counted(classes, 'class')}"
    return f"{images} ({display_path(location)})" if location else images


def _device(runner: Any) -> str:
    count = get_world_size()
    if next(runner.model.parameters()).device.type == "cpu":
        return "cpu" if count == 1 else f"cpu, {count} processes"
    return "one GPU" if count == 1 else f"{count} GPUs"
