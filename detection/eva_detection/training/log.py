"""What a run says: its log, one file for each process, and a few lines on the terminal."""

import logging
import math
import time
from pathlib import Path
from pprint import pformat

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.run_folders import describe_weights
from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import literal, save_config
from eva_detection.config.settings import images_per_step
from eva_detection.data.loading import EvaluationSet
from eva_detection.evaluation.report import (
    Results,
    demo_command,
    make_report,
    percent,
    read_results,
    scored,
)
from eva_detection.inference.predictor import find_categories
from eva_detection.training.output_folder import (
    LAST,
    MESSAGES,
    SAVED,
    final_weights,
    last_checkpoint,
)
from eva_report.detection import title_of
from eva_report.page import NAME as REPORT
from eva_report.page import report_name, try_report
from eva_report.terminal import (
    WARNINGS,
    FileFormatter,
    TerminalHandler,
    closing_lines,
    opening_lines,
    show,
)
from eva_runs.commands import echo
from eva_runs.recipes import find_recipe, recipe_name
from eva_runs.record import Kind

logger = logging.getLogger(__name__)

LOGGERS = (
    *("fvcore", "detectron2", "eva_backbone", "eva_data", "eva_runs", "eva_report"),
    "eva_detection",
)
MOST_EVALUATIONS = 12  # lines of a run, however many evaluations it has


def log_to(folder: Path, rank: int) -> Path:
    """Let everything go to the log of a process, and what a user wants to see to the terminal."""
    path = folder / (f"log.txt.rank{rank}" if rank else "log.txt")
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(FileFormatter())
    handlers: list[logging.Handler] = [file] if rank else [file, TerminalHandler()]
    for name in LOGGERS:
        target = logging.getLogger(name)
        target.setLevel(logging.DEBUG)
        target.propagate = False
        target.handlers[:] = handlers
    logging.root.addHandler(file)
    logging.getLogger("torch").handlers[:] = [file]  # it has a handler of its own
    logging.getLogger(WARNINGS).handlers[:] = handlers[1:]  # the file has them from the root
    logging.captureWarnings(True)
    return path


def start_log(cfg: DictConfig, request: TrainingRequest) -> Path:
    """Do what detectron2's `default_setup` does, but for the config of a training."""
    folder, rank = Path(cfg.train.output_dir), comm.get_rank()
    log = log_to(folder, rank)
    logging.raiseExceptions = False  # a full disk is said once, by what is written besides the log
    logger.info("Process %d of %d. %s", rank, comm.get_world_size(), collect_env_info())
    recipe = find_recipe("detection", request.recipe)
    logger.info("%s\nContents of %s:\n%s", request, recipe, recipe.read_text(errors="replace"))
    logger.info("The config:\n%s", pformat(OmegaConf.to_container(cfg)))
    if comm.is_main_process() and "own_data" not in cfg:  # whose names are of a file elsewhere
        cfg.class_names = [[key, literal(name)] for key, name in find_categories(cfg)]
    if request.evaluates and not (folder / LAST).exists():
        save_run_config(cfg, recipe)
    seed = cfg.train.get("seed", -1)
    seed_all_rng(None if seed is None or seed < 0 else seed + rank)
    if not request.evaluates:
        torch.backends.cudnn.benchmark = bool(cfg.train.get("cudnn_benchmark", False))
    return log


def save_run_config(cfg: DictConfig, recipe: Path) -> None:
    """Save the config of a run that begins, completely or not at all."""
    if comm.is_main_process():
        save_config(cfg, Path(cfg.train.output_dir) / SAVED, source=recipe)


def opening(cfg: DictConfig, request: TrainingRequest) -> list[str]:
    """Format the opening lines of a run."""
    name, processes = recipe_name("detection", request.recipe), request.processes
    devices = f"{processes} x {cfg.train.device}" if processes > 1 else str(cfg.train.device)
    folder, images = Path(cfg.train.output_dir), images_per_step(cfg)
    task, weights = f"evaluate {name} on {devices}", cfg.train.init_checkpoint
    if not request.evaluates:
        step = f" of {images} images" if images else ""
        task = f"train {name}: {cfg.train.max_iter:,} iterations{step} on {devices}"
        weights = str((request.resumes and last_checkpoint(folder)) or weights)
    return opening_lines(task=task, weights=describe_weights(weights), data=(), output=folder)[:-1]


def output_place(cfg: DictConfig, *, resume: bool = False, done: int = 0) -> list[str]:
    """Say where the output of a run goes and where it continues, after its data."""
    folder = Path(cfg.train.output_dir)
    lines = opening_lines(task="", weights="", data=(), output=folder)[-1:]
    if resume:
        file = last_checkpoint(folder)
        resumed = file and MESSAGES.resumed(done, cfg.train.max_iter, file)
        lines.append(resumed or MESSAGES.nothing_to_resume(folder))
    return lines


def shown_every(period: int, max_iter: int) -> int:
    """Choose the iterations between two evaluations of which the terminal shows the scores."""
    return period * math.ceil(max_iter / period / MOST_EVALUATIONS)


def evaluation_line(iteration: int, results: Results) -> str:
    """Say in one line what an evaluation during a training gave."""
    aps = scored(results)
    scores = ", ".join(f"{task} AP {ap}" for task, ap in aps.items())
    nothing = {*aps.values()} == {"-"}
    return f"iteration {iteration:,}: {'no scores, since nothing was found' if nothing else scores}"


def score_lines(results: Results) -> str:
    """Format scores as a table with a line for boxes and one for masks."""
    rows = {title_of(task): scores for task, scores in results.items() if "AP" in scores}
    lines: list[str] = []
    for task, scores in rows.items():
        names = [name for name in scores if not name.startswith("AP-")]
        lines = lines or [" " * 12 + "".join(f"{name:>7}" for name in names)]
        lines.append(f"{task:<12}" + "".join(f"{percent(scores[name]):>7}" for name in names))
    return "\n".join(lines)


def close(test_set: EvaluationSet, request: TrainingRequest, *, began: float | None) -> None:
    """Write the report and say what came out; the other processes do not wait for it."""
    if not comm.is_main_process():
        return
    cfg, folder, trains = test_set.cfg, Path(test_set.cfg.train.output_dir), not request.evaluates
    weights = final_weights(folder)
    kind: Kind = "training" if trains else "evaluation"
    if began is None:
        show(MESSAGES.finished(folder, cfg.train.max_iter))
    page: Path | None = folder / REPORT
    if began is not None or not (folder / REPORT).is_file():
        recipe = recipe_name("detection", request.recipe)
        options = dict(kind=kind, processes=comm.get_world_size(), recipe=recipe)
        name = report_name(folder, kind)
        page = try_report(folder, lambda: make_report(cfg, test_set, **options), name=name)
    lines = closing_lines(
        scores=score_lines(read_results(folder)),
        duration=None if began is None else time.monotonic() - began,
        weights=weights if trains and weights.is_file() else None,
        report=page,
        next_command=demo_command(cfg, str(weights if trains else cfg.train.init_checkpoint)),
    )
    for line in lines:
        logger.info(line)
        echo(line)
