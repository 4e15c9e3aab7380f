"""The hook of a runner that says what a run does: opening lines, a bar, lines of evaluations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.progress import ProgressBar
from eva_openmmlab.config.runs import SAYS
from eva_openmmlab.terminal.data_lines import data_line
from eva_openmmlab.terminal.output import Output
from eva_openmmlab.terminal.scores import score_lines, short_scores
from eva_report.terminal import opening_lines

_LINES = 12  # of evaluations, however many there are
_WINDOW = 20  # iterations of the loss beside the bar


class TerminalHook(Hook):
    """Says what a run does, on the main process.

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
        if is_main_process():
            trains = isinstance(runner._train_loop, BaseLoop)
            self._output.say(self._training(runner) if trains else self._scoring(runner))
            runner.logger.info("%s", runner.model)

    def before_train(self, runner: Any) -> None:
        """Open the bar."""
        if is_main_process():
            bar = ProgressBar(runner.max_iters, what="training", start=runner.iter)
            self._bar = bar
            self._output.bars.append(bar)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        del batch_idx, data_batch, outputs
        scalars = runner.message_hub.log_scalars
        loss = scalars.get("train/loss")
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
        self._advance()

    def after_test_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Move the bar of an evaluation."""
        self._advance()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Show the scores of an evaluation in training, or of some if there are many."""
        self._end(metrics)
        if self._bar is not None and _is_shown(runner):
            scores = short_scores(self.scores or {}) or "no scores, since nothing was found"
            self._output.say([f"{SAYS.unit} {runner.iter:,}: {scores}"])

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Note the scores, which `closing_lines` show."""
        self._end(metrics)

    def score_lines(self) -> list[str]:
        """Describe the latest scores; no line for a run that evaluated nothing."""
        if self.scores is None:
            return []
        return score_lines(self.scores) or ["no scores, since nothing was found"]

    def _begin(self, loader: Any) -> None:
        if is_main_process():
            self._evaluation = ProgressBar(len(loader), what="evaluation")
            self._output.bars.append(self._evaluation)

    def _advance(self) -> None:
        if self._evaluation is not None:
            self._evaluation.update()

    def _end(self, metrics: Mapping[str, Any] | None) -> None:
        self.scores = dict(metrics or {})
        if self._evaluation is not None:
            self._evaluation.close()
            self._output.bars.remove(self._evaluation)
            self._evaluation = None

    def _training(self, runner: Any) -> list[str]:
        images = runner.train_dataloader.batch_size * get_world_size()
        more = []
        content = getattr(runner, "_content", None)  # of the checkpoint that it continues from
        if content:
            done = int(content["meta"]["iter"])
            more = [SAYS.resumed(done, runner.max_iters, runner._checkpoint)]
        return opening_lines(
            task=f"train {self._recipe}: {runner.max_iters:,} iterations of {images} images on "
            f"{_device(runner)}",
            weights=str(runner._checkpoint) if content else _weights(runner),
            data=_data(runner, ("train", "val")),
            output=Path(runner.work_dir),
            more=more,
        )

    def _scoring(self, runner: Any) -> list[str]:
        return opening_lines(
            task=f"evaluate {self._recipe} on {_device(runner)}",
            weights=_weights(runner),
            data=_data(runner, ("test",)),
            output=Path(runner.work_dir),
        )


def _is_shown(runner: Any) -> bool:
    """Show the last evaluation, and of the others as many as fit into `_LINES`."""
    interval = getattr(runner.train_loop, "val_interval", 1)
    number, total = runner.iter // interval, math.ceil(runner.max_iters / interval)
    return runner.iter >= runner.max_iters or number % math.ceil(total / (_LINES - 1)) == 0


def _data(runner: Any, parts: Sequence[str]) -> list[str]:
    lines = []
    for part in parts:
        loop = getattr(runner, f"_{part}_loop")
        if isinstance(loop, BaseLoop):
            settings = runner.cfg[f"{part}_dataloader"].dataset
            lines.append(data_line(part, loop.dataloader.dataset, settings))
    return lines


def _weights(runner: Any) -> str:
    given = runner._load_from
    if given is None:
        return "random"
    return str(resolve_source(given) if Path(given).is_dir() else given)


def _device(runner: Any) -> str:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    kind = next(model.parameters()).device.type
    count = get_world_size()
    name = "cpu" if kind == "cpu" else "GPU"
    if count == 1:
        return f"one {name}" if kind != "cpu" else "cpu"
    return f"{count} {name}s" if kind != "cpu" else f"cpu, {count} processes"
