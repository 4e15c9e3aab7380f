"""What all runs on mmengine say at their end: facts, curves, links and next commands."""

import importlib
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import is_mmengine_run
from eva_openmmlab.config import parts_of
from eva_openmmlab.images import bands_of
from eva_openmmlab.own_data import image_folder
from eva_openmmlab.run_folder import STEP, config_of_run, read_scalars
from eva_openmmlab.terminal import LOG, NOTHING, score_lines
from eva_report.content import Link, NextStep, Report, Section
from eva_report.curves import plot_log
from eva_report.first_batch import first_batch
from eva_report.page import RESULTS, close_run
from eva_runs.commands import command_to_run
from eva_runs.record import Kind, run_facts, threshold_words

_NO_SCORES = ("time", "data_time", STEP)


class RunReport:
    """The report of a run that has ended, made on the main process.

    `eva_TASK.evaluation.sections` has the project's `make_report`.

    Attributes:
        folder: Work folder, of the report too.
        training_set: Dataset of the training, or None.
        dataset: Dataset of the last evaluation, or None.
        entries: What was logged, see `read_scalars`; nothing for an evaluation.
        scores: Scores of the last evaluation in the metrics' own scale; NaN for nothing to score.
    """

    def __init__(self, runner: Any, kind: Kind, *, task: str) -> None:
        self.runner, self.kind, self.task = runner, kind, task
        self.folder, self._trains = Path(runner.cfg.work_dir), kind == "training"
        self._config = Path(runner.cfg.filename or "config.py")
        train = runner.train_loop if self._trains else None
        self._scored = runner.val_loop if self._trains else runner.test_loop
        self._over = bool(getattr(train, "was_over", False))  # nothing was left to train
        self.training_set = train.dataloader.dataset if train else None
        self.dataset = self._scored.dataloader.dataset if self._scored else None
        # those that a user goes on with: the best of a training, or those scored
        folder = self.folder if self._trains else runner.cfg.load_from
        none = self._trains and not is_mmengine_run(self.folder)
        self._weights = None if none else resolve_source(folder).absolute()
        self.entries = read_scalars(self.folder) if self._trains else []
        self.scores = self._last_scores()

    def _last_scores(self) -> dict[str, float]:
        stage = "val/" if self._trains else "test/"
        best_scores = {
            name.removeprefix(stage): float(buffer.current())
            for name, buffer in self.runner.message_hub.log_scalars.items()
            if name.startswith(stage)
        }
        last = next((entry for entry in reversed(self.entries) if "loss" not in entry), {})
        # a checkpoint knows the scores before its own evaluation
        scores = (last if self._over else best_scores) or last
        return {name: value for name, value in scores.items() if name not in _NO_SCORES}

    def metric(self, kind: type) -> Any:
        """Find the metric of a kind in the last evaluation; None if there is none."""
        metrics = self._scored.evaluator.metrics if self._scored else ()
        return next((metric for metric in metrics if isinstance(metric, kind)), None)

    def curves(
        self, *, without: str, scores: str, shown: Mapping[str, str], factor: float = 1.0
    ) -> list[Section]:
        """Plot losses, learning rate and scores; nothing for an evaluation.

        Losses that match the pattern `without` are not shown, such as those of single layers; of
        the `scores`, an axis, those are, times a factor, whose name in the log -> curve is given.
        """
        names = dict.fromkeys(name for entry in self.entries for name in entry)
        losses = {name: name for name in names if "loss" in name and not re.match(without, name)}
        rates = {"base_lr" if "base_lr" in names else "lr": "learning rate"}

        plot = partial(
            plot_log, entries=self.entries, step=operator.itemgetter(STEP), x_label="iteration"
        )
        return [
            plot(
                "Losses",
                names=losses,
                y_label="loss",
                logarithmic=True,
                text="All losses together, and those of the last layer or stage.",
            ),
            plot(
                "Learning rate",
                names=rates,
                y_label="learning rate",
                text="Before layer decay, which lowers it towards the patch embedding.",
            ),
            plot("Validation scores", names=shown, y_label=scores, factor=factor),
        ]

    def report(
        self,
        title: str,
        *,
        scored: str,
        data: Sequence[tuple[str, str]],
        sections: Iterable[Section],
    ) -> Report:
        """Put the report together; `scored` says the scores that count in a few words."""
        summary = f"{scored} for {self.runner.cfg.load_from}."
        if self._trains:
            summary = f"{scored} after {self.runner.iter:,} iterations."
        bands = bands_of(getattr(self.runner.model, "module", self.runner.model).data_preprocessor)
        if bands is not None:
            data = [*data, ("bands", bands.describe())]
        best = self.best()
        if best:
            summary += (
                f"\nThe best weights: {best}; the scores, classes and images here are of the last "
                "ones."
            )
        page_facts = run_facts(
            self.folder,
            self.kind,
            seed=self.runner.seed,
            device=str(next(self.runner.model.parameters()).device.type),
            processes=get_world_size(),
        )
        if not self._trains:
            page_facts.append(("precision", self.runner.cfg.get("precision", "fp32")))
        began = str(self.runner.cfg.get("load_from") or "random weights")
        config = self._config.name
        files = {"weights": self._weights, "scores": RESULTS, "log": LOG, "config": config}
        look = "Run it on images, folders or videos"
        return Report(
            title=f"{title}: {self.kind} of {self._config.stem}",
            summary=summary,
            facts=[*page_facts, *data, ("began from" if self._trains else "weights", began)],
            sections=[*(first_batch(self.folder) if self._trains else ()), *sections],
            links=[Link(title=title, path=Path(file)) for title, file in files.items() if file],
            next_steps=[
                NextStep(text=look, command=self._demo_command()),
                NextStep(text="Evaluate it again", command=self._command("evaluate", "test")),
            ],
        )

    def close(self, *, began: float) -> None:
        """Write the page of a run that began at a `time.monotonic`, and show what came out."""
        lines = score_lines(self.scores) or ([NOTHING] if self._scored else [])
        best = self.best()
        if best:  # the weights that are named are not those of the last evaluation
            lines = [f"best     {best}", *(f"last     {line}" for line in lines)]
        close_run(
            self.folder,
            self.kind,
            self._make,
            began=None if self._over else began,
            scores="\n".join(lines),
            weights=self._weights if self._trains else None,
            next_command=self._demo_command,
        )

    def _make(self) -> Report:
        # here: a run that is refused does not wait for what it imports
        sections = importlib.import_module(f"eva_{self.task}.evaluation.sections")
        report: Report = sections.make_report(self)
        return report

    def best(self) -> str:
        """Score and file of a training's best weights; empty if they are the last, or none."""
        info = self.runner.message_hub.runtime_info
        score, file = info.get("best_score"), Path(str(info.get("best_ckpt") or "")).name
        if not (self._trains and file) or file.endswith(f"_{self.runner.iter}.pth"):
            return ""
        hook = next(hook for hook in self.runner.hooks if isinstance(hook, CheckpointHook))
        return f"{score_lines({hook.key_indicators[0]: score})[0]} ({file})"

    def _demo_command(self) -> str:
        """Write the command that shows what weights find in the images of their evaluation."""
        loader = self.runner.cfg.get("val_dataloader" if self._trains else "test_dataloader")
        images = image_folder(parts_of(loader.dataset)[0]) if loader else "IMAGES"
        words = threshold_words(self._weights or self.folder)
        return self._command("demo", "demo", images, *words, "--output", self.folder / "demo")

    def _command(self, command: str, program: str, *words: str | Path) -> str:
        """Write a command for these weights, with the folder of their run or with their config."""
        model: list[str | Path] = [self.folder]
        if not self._trains:
            weights = str(self.runner.cfg.load_from)
            config = [] if config_of_run(weights) else [self.folder / self._config.name]
            model = [*config, weights]
        script = f"{self.task}/{program}.py"
        return command_to_run(f"{self.task} {command}", script, *model, *words)
