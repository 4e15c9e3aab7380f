"""What a run says on the terminal besides warnings: its beginning, its evaluations, its end."""

import argparse
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.runs.weights import named_weights
from eva_detection.data.loading import TestSet
from eva_detection.evaluation.next_steps import demo_command
from eva_detection.evaluation.report import report_of_run
from eva_detection.training.output_folder import FINAL, SAYS, last_checkpoint
from eva_report.page import NAME as REPORT
from eva_report.terminal import SHOWN, closing_lines, opening_lines
from eva_runs.commands import UnwritableOutputError, say
from eva_runs.recipes import recipe_folder

logger = logging.getLogger(__name__)

MOST_EVALUATIONS = 12  # lines of a run, however many evaluations it has
_TASKS = {"bbox": "box", "segm": "mask", "boundary": "boundary"}
_Results = Mapping[str, Mapping[str, float | None]]


def show(lines: Iterable[str]) -> None:
    """Log lines that also go to the terminal."""
    for line in lines:
        logger.info(line, extra=SHOWN)


def opening(cfg: DictConfig, args: argparse.Namespace) -> list[str]:
    """Say what a run does from which weights, before its data is read, which says itself.

    Args:
        cfg: The config.
        args: The command line, with the path of the recipe.

    Returns:
        Lines for the terminal; `output_place` has the last.
    """
    processes = args.num_gpus * args.num_machines
    place = f"{processes} x {cfg.train.device}" if processes > 1 else str(cfg.train.device)
    name = recipe_name(args.config_file)
    if args.eval_only:
        task, weights = f"evaluate {name} on {place}", cfg.train.init_checkpoint
    else:
        accumulate = cfg.train.get("accumulate", 1)
        images = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
        step = f" of {images * accumulate} images" if images else ""
        task = f"train {name}: {cfg.train.max_iter:,} iterations{step} on {place}"
        weights = (args.resume and _last(cfg)) or cfg.train.init_checkpoint
    folder = Path(cfg.train.output_dir)
    return opening_lines(task=task, weights=named_weights(weights), data=(), output=folder)[:-1]


def output_place(cfg: DictConfig, *, resume: bool = False, done: int = 0) -> list[str]:
    """Say where the output of a run goes and where it continues, after its data.

    Args:
        cfg: The config.
        resume: Whether the run was to be continued.
        done: Iterations that are done.

    Returns:
        Lines for the terminal.
    """
    folder = Path(cfg.train.output_dir)
    more = [SAYS.nothing_to_resume(folder)] if resume else []
    if resume and (file := last_checkpoint(folder)) is not None:
        more = [SAYS.resumed(done, cfg.train.max_iter, file)]
    lines = opening_lines(task="", weights="", data=(), output=folder, more=more)
    return lines[-1 - len(more) :]


def recipe_name(file: str) -> str:
    """Return the name of a recipe of the toolkit, and the path of another one."""
    path, folder = Path(file).resolve(), recipe_folder("detection").resolve()
    if path.is_relative_to(folder):
        return path.relative_to(folder).with_suffix("").as_posix()
    return file


def _last(cfg: DictConfig) -> str | None:
    try:
        file = last_checkpoint(Path(cfg.train.output_dir))
    except (OSError, ValueError):  # said when it is read
        return None
    return str(file) if file else None


def spread(period: int, max_iter: int) -> int:
    """Choose how many evaluations lie between two of which the terminal shows the scores.

    Args:
        period: Iterations between evaluations.
        max_iter: Iterations of the run.
    """
    return math.ceil(max_iter / period / MOST_EVALUATIONS)


def evaluation_line(iteration: int, results: _Results) -> str:
    """Say in one line what an evaluation during a training gave.

    Args:
        iteration: Iterations that are done.
        results: Task -> metric -> percent.
    """
    scores = [f"{_name(task)} AP {_percent(results[task]['AP'])}" for task in _scored(results)]
    if scores and all(score.endswith(" -") for score in scores):
        scores = ["no scores, since nothing was found"]
    return f"iteration {iteration:,}: {', '.join(scores) or 'see log.txt'}"


def score_lines(results: _Results) -> str:
    """Format scores as a table with a line for boxes and one for masks.

    Args:
        results: Task -> metric -> percent; those of single classes are left out.

    Returns:
        Lines of text; empty without results.
    """
    tasks = _scored(results)
    if not tasks:
        return ""
    if all(_percent(value) == "-" for task in tasks for value in results[task].values()):
        return "no scores: nothing was found, or there was nothing to find"
    names = [name for name in results[tasks[0]] if not name.startswith("AP-")]
    lines = [" " * 12 + "".join(f"{name:>7}" for name in names)]
    for task in tasks:
        cells = "".join(f"{_percent(results[task].get(name)):>7}" for name in names)
        lines.append(f"{_name(task):<12}{cells}")
    return "\n".join(lines)


def _scored(results: _Results) -> list[str]:
    """List the tasks that have an AP; an evaluator of the user's own may give something else."""
    return [
        task for task, metrics in results.items() if isinstance(metrics, dict) and "AP" in metrics
    ]


def _name(task: str) -> str:
    kind, dash, rest = task.partition("-")
    return _TASKS.get(kind, kind) + dash + rest


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def saved_results(folder: Path) -> _Results:
    """Read the scores that a run has left; nothing if there are none."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    plain = isinstance(content, dict) and all(isinstance(one, dict) for one in content.values())
    return content if plain else {}


def close(test_set: TestSet, *, trains: bool, began: float, recipe: str) -> None:
    """Write the report and say what came out; the other processes do not wait for it.

    Args:
        test_set: The test set of the run, with its config.
        trains: Whether it was a training.
        began: Time of `time.monotonic` at its start.
        recipe: Path of the recipe.
    """
    if comm.is_main_process():
        report = _report(test_set, trains=trains, recipe=recipe)
        _say_end(test_set.cfg, trains=trains, report=report, seconds=time.monotonic() - began)


def close_finished(test_set: TestSet, *, recipe: str) -> None:
    """Say what came out of a training that was finished before, with a report if it has none.

    Args:
        test_set: The test set of the run, with its config.
        recipe: Path of the recipe.
    """
    if comm.is_main_process():
        folder = Path(test_set.cfg.train.output_dir)
        show([SAYS.finished(folder, test_set.cfg.train.max_iter)])
        report = folder / REPORT
        there = report if report.is_file() else _report(test_set, trains=True, recipe=recipe)
        _say_end(test_set.cfg, trains=True, report=there, seconds=None)


def _report(test_set: TestSet, *, trains: bool, recipe: str) -> Path | None:
    return report_of_run(
        test_set.cfg,
        test_set,
        kind="training" if trains else "evaluation",
        processes=comm.get_world_size(),
        recipe=recipe_name(recipe),
    )


def _say_end(cfg: DictConfig, *, trains: bool, report: Path | None, seconds: float | None) -> None:
    """Say on the standard output, and in the log, what came out."""
    folder = Path(cfg.train.output_dir)
    weights = folder / FINAL
    lines = closing_lines(
        scores=score_lines(saved_results(folder)),
        duration=seconds,
        weights=weights if trains and weights.is_file() else None,
        report=report,
        next_command=demo_command(cfg, str(weights if trains else cfg.train.init_checkpoint)),
    )
    for line in lines:
        logger.info(line)
    try:
        for line in lines:
            say(line)
    except UnwritableOutputError as error:  # the results are in files
        logger.warning("%s", error)
