"""The parts of a report that all runs on mmengine have: facts, curves, links, next commands."""

import importlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import write_text
from eva_openmmlab.config import parts_of
from eva_openmmlab.run_folder import config_of_run
from eva_openmmlab.terminal import score_lines
from eva_report.content import Curve, Curves, Link, Report, Section, Step
from eva_report.page import NAME, report_name, try_report
from eva_runs.commands import command_to_run
from eva_runs.record import Kind, facts

RESULTS = "results.json"
Results = Mapping[str, Mapping[str, float | None]]  # task -> metric -> percent
Entry = Mapping[str, Any]  # of a log
STEP = "step"
_LOOPS = {"training": "_val_loop", "evaluation": "_test_loop"}
_STAGES = {"training": "val/", "evaluation": "test/"}
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
        dataset: Dataset of the last evaluation, or None.
        training_set: Dataset of the training, or None.
    """

    def __init__(self, runner: Any, kind: Kind, *, task: str) -> None:
        self.runner, self.kind, self.task = runner, kind, task
        self.folder = Path(runner.work_dir)
        self.entries: Sequence[Entry] = read_scalars(self.folder) if kind == "training" else []
        # none is built in a run that was over, whose scores are of an earlier start
        self._loop = _built(getattr(runner, _LOOPS[kind], None))
        train_loop = _built(getattr(runner, "_train_loop", None))
        self.dataset: Any = self._loop and self._loop.dataloader.dataset
        self.training_set: Any = train_loop and train_loop.dataloader.dataset
        stage = _STAGES[kind]
        scored = {
            name.removeprefix(stage): float(buffer.current())
            for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith(stage) and name.removeprefix(stage) not in _NO_SCORES
        }
        self.scores = scored or _last_scores(self.entries)

    def metric(self, kind: type) -> Any:
        """Find the metric of a kind in the last evaluation; None if there is none."""
        metrics = self._loop.evaluator.metrics if self._loop else ()
        return next((metric for metric in metrics if isinstance(metric, kind)), None)

    def curves(self, *, without: str) -> list[Section]:
        """Make the plots of the losses and the learning rate; none for an evaluation.

        Args:
            without: Pattern of the names of losses that are not shown, such as those of single
                layers.
        """
        if not self.entries:
            return []
        names = dict.fromkeys(name for entry in self.entries for name in entry if "loss" in name)
        shown = [name for name in names if not re.match(without, name)]
        rate = "base_lr" if any("base_lr" in entry for entry in self.entries) else "lr"
        losses = Curves(
            title="Losses",
            x_label="iteration",
            y_label="loss",
            curves=[curve(self.entries, name) for name in shown],
            logarithmic=True,
            text="The sum of all losses, and those of the last layer or stage.",
        )
        rates = Curves(
            title="Learning rate",
            x_label="iteration",
            y_label="learning rate",
            curves=[curve(self.entries, rate, "learning rate")],
            text="Without layer decay, which lowers it from the head to the patches.",
        )
        return [losses, rates]

    def report(
        self,
        *,
        title: str,
        summary: str,
        data: Sequence[tuple[str, str]],
        sections: Iterable[Section],
    ) -> Report:
        """Put the report together.

        Args:
            title: What was trained or scored.
            summary: A sentence or two with the score that counts.
            data: Name and description of each dataset.
            sections: What the page shows.
        """
        score, file = best_of(self.runner) if self.kind == "training" else ("", "")
        if file:
            summary += (
                f"\nThe best weights, {file}, had {score}; the scores, classes and images here are "
                "of the last ones."
            )
        weights = self.runner.cfg.get("load_from")
        named = facts(
            self.folder,
            self.kind,
            seed=self.runner.seed,
            device=str(next(self.runner.model.parameters()).device.type),
            processes=get_world_size(),
        )
        name = "began from" if self.kind == "training" else "weights"
        began = [(name, str(weights) if weights else "random weights")]
        return Report(
            title=f"{title} of {_config(self.runner).stem}",
            summary=summary,
            facts=[*named, *data, *began],
            sections=list(sections),
            links=self._links(),
            next_steps=self._steps(),
        )

    def weights(self) -> Path | None:
        """Find the weights that the page is about: the best of a training, or those scored."""
        if self.kind == "evaluation":
            return resolve_source(self.runner._load_from)
        return best_weights(self.runner)

    def _links(self) -> list[Link]:
        logs = [self.folder / "log.txt", *sorted(self.folder.glob("*/*.log"), reverse=True)]
        files = {
            "weights": self.weights(),
            "scores": self.folder / RESULTS,
            "log": next((log for log in logs if log.is_file()), None),
            "config": self.folder / _config(self.runner).name,
        }
        return [
            Link(title=title, path=Path(os.path.relpath(file, self.folder)))
            for title, file in files.items()
            if file is not None and file.is_file()
        ]

    def _steps(self) -> list[Step]:
        if self.weights() is None:
            return []
        model, task = _model(self.runner, self.kind), self.task
        score = command_to_run(f"{task} evaluate", f"{task}/test.py", *model)
        use = demo_command(self.runner, self.kind, task=task)
        return [
            Step(text="See what these weights find in images, folders and videos", command=use),
            Step(text="Score them again", command=score),
        ]


def write_report(runner: Any, kind: Kind, sections: str) -> Path | None:
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


def best_weights(runner: Any) -> Path | None:
    """Find the weights of a training that a user goes on with: the best, else the last."""
    info = runner.message_hub.runtime_info
    best = [v for name, v in info.items() if name.startswith("best_ckpt") and v]
    found = [Path(str(file)) for file in (*best, info.get("last_ckpt")) if file]
    return next((file for file in found if file.is_file()), None)


def best_of(runner: Any) -> tuple[str, str]:
    """Describe the best weights of a training whose last evaluation was not its best.

    Args:
        runner: Its runner.

    Returns:
        Score and name of the file; both empty if the last weights are the best, or none were kept.
    """
    hooks = [one for one in runner.hooks if isinstance(one, CheckpointHook)]
    metrics = [name for one in hooks if one.save_best for name in one.key_indicators]
    info = runner.message_hub.runtime_info
    score, file = info.get("best_score"), Path(str(info.get("best_ckpt") or "")).name
    if len(metrics) != 1 or score is None or not file or file.endswith(f"_{runner.iter}.pth"):
        return "", ""
    return score_lines({metrics[0]: score})[0], file


def demo_command(runner: Any, kind: Kind, *, task: str) -> str:
    """Write the command that shows what weights find in the images of their evaluation.

    Args:
        runner: Runner of a training or an evaluation that has ended.
        kind: Which of both it was.
        task: Task of the recipes, such as "segmentation".
    """
    loader = runner.cfg.get("val_dataloader" if kind == "training" else "test_dataloader")
    images: Any = "IMAGES"
    if loader:
        first = parts_of(loader.dataset)[0]
        prefixes = first.get("data_prefix") or {}
        prefix = prefixes.get("img", prefixes.get("img_path", ""))
        images = first.get("images") or Path(first.get("data_root") or "") / prefix
    output = _here(Path(runner.work_dir) / "demo")
    words = [*_model(runner, kind), images, "--output", output]
    return command_to_run(f"{task} demo", f"{task}/demo.py", *words)


def _model(runner: Any, kind: Kind) -> list[Path | str]:
    """Name the model: by the folder of its run, else by config and weights."""
    folder = Path(runner.work_dir)
    if kind == "training":
        return [_here(folder)]
    weights = str(runner._load_from)
    if Path(weights).exists():
        weights = str(_here(Path(weights)))
        if config_of_run(Path(weights)) is not None:
            return [weights]
    return [_here(folder / _config(runner).name), weights]


def _config(runner: Any) -> Path:
    return Path(runner.cfg.filename or "config.py")


def _here(path: Path) -> Path:
    """Write a path from the current folder, if it is below it."""
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _built(loop: Any) -> Any:
    return loop if isinstance(loop, BaseLoop) else None


# ---- the log of a run ----------------------------------------------------------------------------


def read_scalars(folder: Path) -> list[Entry]:
    """Read `*/vis_data/scalars.json` of a run (one JSON object a line), in order of iterations.

    A run that was stopped and continued has logged some iterations twice; the later start counts.

    Args:
        folder: Work folder of the run.

    Returns:
        Entries with their `step`; losses and scores of one iteration are two.
    """
    found: dict[tuple[int, bool], Entry] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # named by their time
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the run was killed in the middle of this line
                continue
            if isinstance(entry, dict) and type(entry.get(STEP)) is int:
                found[entry[STEP], "loss" in entry] = entry
    return [found[place] for place in sorted(found)]


def logged_scores(folder: Path) -> dict[str, float]:
    """Return the scores of the last evaluation of a training, by its log."""
    return _last_scores(read_scalars(folder))


def _last_scores(entries: Sequence[Entry]) -> dict[str, float]:
    scored = next((one for one in reversed(entries) if "loss" not in one), {})
    return {name: value for name, value in scored.items() if name not in _NO_SCORES}


def curve(entries: Iterable[Entry], key: str, name: str = "", *, factor: float = 1.0) -> Curve:
    """Make the curve of a value.

    Args:
        entries: Entries of `read_scalars`.
        key: Name of the value in the log.
        name: Name of the curve; that of the value by default.
        factor: Factor of the values, such as 100 for percent.
    """
    numbers = [
        (entry[STEP], factor * float(value))
        for entry in entries
        if isinstance(value := entry.get(key), int | float) and math.isfinite(value)
    ]
    return Curve(name=name or key, points=numbers)


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
