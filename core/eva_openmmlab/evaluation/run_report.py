"""The parts of a report that all runs on mmengine have: facts, curves, links, next commands."""

import importlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import write_text
from eva_openmmlab.evaluation.logged import STEP, Entry, is_training, read_scalars, training_curves
from eva_openmmlab.evaluation.next_commands import demo_command, evaluate_command
from eva_openmmlab.terminal.scores import best_before
from eva_report.content import Link, Report, Section, Step
from eva_report.page import NAME, report_name, try_report
from eva_runs.record import Kind, facts

RESULTS = "results.json"
Results = Mapping[str, Mapping[str, float | None]]  # task -> metric -> percent
_LOOPS = {"training": "_val_loop", "evaluation": "_test_loop"}
_STAGES = {"training": "val", "evaluation": "test"}
_NO_SCORES = ("time", "data_time", STEP)


class RunReport:
    """What a project needs for the report of a run that has ended.

    Args:
        runner: The runner.
        kind: "training" or "evaluation".
        task: Task of the recipes, such as "segmentation".

    Attributes:
        folder: Work folder, of the report too.
        entries: What was logged, see `read_scalars`; nothing for an evaluation.
        scores: Name -> score of the last evaluation, in the metrics' own scale; NaN where there
            was nothing to score.
    """

    def __init__(self, runner: Any, kind: Kind, *, task: str) -> None:
        self.runner, self.kind, self.task = runner, kind, task
        self.folder = Path(runner.work_dir)
        self.entries: Sequence[Entry] = read_scalars(self.folder) if kind == "training" else []
        self.scores = self._scores()

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self._config.stem

    @property
    def _config(self) -> Path:
        return Path(self.runner.cfg.filename or "config.py")

    @property
    def _loop(self) -> Any:
        """Loop of the last evaluation; None if none was built, as in a run that was over."""
        loop = getattr(self.runner, _LOOPS[self.kind], None)
        return loop if isinstance(loop, BaseLoop) else None

    @property
    def dataset(self) -> Any:
        """Data set of the last evaluation, or None."""
        return self._loop and self._loop.dataloader.dataset

    @property
    def training_set(self) -> Any:
        """Data set of the training, or None."""
        loop = getattr(self.runner, "_train_loop", None)
        return loop.dataloader.dataset if isinstance(loop, BaseLoop) else None

    def metric(self, kind: type) -> Any:
        """Find the metric of a kind in the last evaluation; None if there is none."""
        metrics = self._loop.evaluator.metrics if self._loop else ()
        return next((metric for metric in metrics if isinstance(metric, kind)), None)

    def _scores(self) -> dict[str, float]:
        stage = f"{_STAGES[self.kind]}/"
        scalars = self.runner.message_hub.log_scalars
        found = {
            name.removeprefix(stage): float(buffer.current())
            for name, buffer in scalars.items()
            if name.startswith(stage)
        }
        # a training that was over has evaluated in an earlier start
        found = found or _last_scores(self.entries)
        return {name: value for name, value in found.items() if name not in _NO_SCORES}

    def curves(self, *, without: str) -> list[Section]:
        """Make the plots of a training; none for an evaluation.

        Args:
            without: Pattern of the names of losses that are not shown.
        """
        return [*training_curves(self.entries, without=without)] if self.entries else []

    def report(
        self,
        *,
        title: str,
        summary: str,
        data: Sequence[tuple[str, str]],
        sections: Iterable[Section],
        steps: Sequence[Step] = (),
    ) -> Report:
        """Put the report together.

        Args:
            title: What was trained or scored.
            summary: A sentence or two with the score that counts.
            data: Name and description of each data set.
            sections: What the page shows.
            steps: Commands of the project, behind those that all have.
        """
        device = str(next(self.runner.model.parameters()).device.type)
        weights = self.runner._load_from
        named = facts(
            self.folder,
            self.kind,
            seed=self.runner.seed,
            device=device,
            processes=get_world_size(),
        )
        name = "began from" if self.kind == "training" else "weights"
        began = [(name, str(weights) if weights else "random weights")]
        return Report(
            title=f"{title} of {self.name}",
            summary=summary + self._best_sentence(),
            facts=[*named, *data, *began],
            sections=list(sections),
            links=self._links(),
            next_steps=[*self._steps(), *steps],
        )

    def weights(self) -> Path | None:
        """Find the weights that the page is about: the best of a training, or those scored."""
        if self.kind == "evaluation":
            return resolve_source(self.runner._load_from)
        info = self.runner.message_hub.runtime_info
        best = next((v for k, v in info.items() if k.startswith("best_ckpt") and v), None)
        found = [Path(str(file)) for file in (best, info.get("last_ckpt")) if file]
        return next((file for file in found if file.is_file()), None)

    def _best_sentence(self) -> str:
        """Say that the weights are not those of the scores, where that is so."""
        score, file = best_of(self.runner) if self.kind == "training" else ("", "")
        if not file:
            return ""
        return (
            f"\nThe best weights, {file}, had {score}; the scores, classes and pictures here are "
            "of the last ones."
        )

    def _links(self) -> list[Link]:
        weights = self.weights()
        logs = [self.folder / "log.txt", *sorted(self.folder.glob("*/*.log"), reverse=True)]
        files = {
            "weights": weights,
            "scores": self.folder / RESULTS,
            "log": next((log for log in logs if log.is_file()), None),
            "config": self.folder / self._config.name,
        }
        return [
            Link(title=title, path=Path(os.path.relpath(file, self.folder)))
            for title, file in files.items()
            if file is not None and file.is_file()
        ]

    def _steps(self) -> list[Step]:
        if self.weights() is None:
            return []
        use = demo_command(self.runner, self.kind, task=self.task)
        score = evaluate_command(self.runner, self.kind, task=self.task)
        return [
            Step(text="See what these weights find in pictures, folders and videos", command=use),
            Step(text="Score them again", command=score),
        ]


def report_of_run(runner: Any, kind: Kind, sections: str) -> Path | None:
    """Write `results.json` and the report of a run that has ended; a failure is a warning.

    Args:
        runner: The runner, on the main process.
        kind: "training", after its last evaluation, or "evaluation".
        sections: Module of the project whose `make_report`, a function of both, makes the page; it
            is imported here, since it needs what a run that is refused does not wait for.

    Returns:
        The report, or None if it could not be made. That of a training that was over stays.
    """
    folder = Path(runner.work_dir)
    if was_over(runner) and (folder / NAME).is_file():  # what it shows was of an earlier start
        return folder / NAME
    return try_report(
        folder,
        lambda: importlib.import_module(sections).make_report(runner, kind),
        name=report_name(folder, kind),
    )


def was_over(runner: Any) -> bool:
    """Return whether a training had nothing left to do."""
    return bool(getattr(getattr(runner, "_train_loop", None), "was_over", False))


def logged_scores(folder: Path) -> dict[str, float]:
    """Return the scores of the last evaluation of a training, by its log."""
    found = _last_scores(read_scalars(folder))
    return {name: value for name, value in found.items() if name not in _NO_SCORES}


def _last_scores(entries: Sequence[Entry]) -> dict[str, float]:
    scored = [one for one in entries if not is_training(one)]
    return dict(scored[-1]) if scored else {}


def best_of(runner: Any) -> tuple[str, str]:
    """Describe the best weights of a training, see `best_before`.

    Args:
        runner: Its runner.
    """
    hooks = [one for one in runner.hooks if isinstance(one, CheckpointHook)]
    metrics = [name for one in hooks if one.save_best for name in one.key_indicators]
    if len(metrics) != 1:
        return "", ""
    info = runner.message_hub.runtime_info
    return best_before(info, metric=metrics[0], iteration=runner.iter)


def write_results(folder: Path, results: Results) -> None:
    """Write `results.json`, as detectors of detectron2 leave it.

    Args:
        folder: Folder of the run or evaluation.
        results: Task -> metric -> percent; NaN where there is nothing to score becomes null.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    content = {
        task: {name: known(value) for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_text(folder / RESULTS, json.dumps(content, indent=2) + "\n")


def known(value: float | None) -> float | None:
    """Give None in place of NaN."""
    return None if value is None or math.isnan(value) else round(float(value), 4)
