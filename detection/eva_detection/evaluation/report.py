"""The report of a detection run: what `report.html` says of a training or an evaluation."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from eva_backbone.checkpoints.run_folders import describe_weights, folder_of_run
from eva_data.files import display_path, load_json
from eva_detection.building import bands_of
from eva_detection.config.files import config_to_name
from eva_detection.config.settings import images_per_step
from eva_detection.data.datasets import ROOT_VARIABLE
from eva_detection.data.records import annotation_files, image_folder, registered_names
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.inference.predictor import find_categories, find_keypoints
from eva_detection.training.output_folder import (
    METRICS,
    RESULTS,
    SAVED,
    TrainingFolder,
    config_of_run,
    read_metrics,
)
from eva_report.comparison import note_samples
from eva_report.content import Curves, Link, NextStep, Report, Section
from eva_report.curves import plot_log
from eva_report.detection import (
    CONFUSION,
    LABEL_ERRORS,
    PER_CLASS,
    data_fact,
    detection_sections,
    title_of,
)
from eva_report.first_batch import SAMPLES, first_batch, objects_tile
from eva_report.sheets import Tile
from eva_report.terminal import align_columns
from eva_runs.commands import command_to_run
from eva_runs.record import Kind, run_facts, threshold_words

Results = Mapping[str, Mapping[str, float | None]]  # task -> metric -> percent

_PREDICTIONS = ("coco_instances_results.json", "lvis_instances_results.json")
_EARLIER_STAGES = ("_stage0", "_stage1")
_FILES = {
    "weights": "",
    "scores": RESULTS,
    "predictions": "",
    "scores of every class": PER_CLASS,
    "confusion of every class": CONFUSION,
    "labels to check": LABEL_ERRORS,
    "config, for demo, evaluation and export": SAVED,
    "losses and scores over the training": METRICS,
    "log": "log.txt",
}


def make_report(
    cfg: DictConfig, test_set: EvaluationSet, *, kind: Kind, processes: int, recipe: str
) -> Report:
    """Make the report of a run from its output folder."""
    folder, source = Path(cfg.train.output_dir), str(cfg.train.get("init_checkpoint") or "")
    metrics, trains = read_metrics(folder), kind == "training"
    results: Results = {}
    predictions = image = None
    if test_set.is_scored:
        results = read_results(folder)
        folder_of_predictions = Path(
            getattr(test_set.evaluator, "_output_dir", None) or folder / "inference"
        )
        predictions = next(
            (file for n in _PREDICTIONS if (file := folder_of_predictions / n).is_file()), None
        )
        image = next(iter(test_set.files.values()), None)
    sections: list[Section] = []
    data = [("training data", test_set.training)] if trains and test_set.training else []
    bands = bands_of(cfg)
    if bands is not None:
        data.append(("bands", bands.describe()))
    if predictions is not None:
        sections += detection_sections(
            truth=test_set.labels,
            predictions=predictions,
            images=test_set.files,
            scores=results,
            folder=folder,
            bands=bands,
        )
        files = annotation_files(cfg, "val")
        data.append(("evaluation data", f"{data_fact(test_set.labels)} ({', '.join(files)})"))
        if len(files) == 1 and predictions.name == _PREDICTIONS[0]:
            truth, results_file = Path(files[0]).absolute(), os.path.relpath(predictions, folder)
            note_samples(folder, "detection", truth=truth, predictions=results_file)
    sections[1:1] = curves(metrics)  # after the scores
    sections = [*(first_batch(folder) if trains else ()), *sections]
    seed, device = cfg.train.get("seed"), str(cfg.train.device)
    linked = dict(_FILES)
    if predictions is not None:
        linked["predictions"] = os.path.relpath(predictions, folder)
    weights = TrainingFolder(folder).weights
    if trains:
        linked["weights"] = os.path.relpath(weights, folder)
    else:
        data.append(("precision", cfg.train.get("precision", "fp32")))
    return Report(
        title=f"Detection: {kind} of {recipe or folder.name}",
        summary=_summary(cfg, results if predictions else {}, metrics if trains else None),
        facts=[
            *run_facts(folder, kind, seed=seed, device=device, processes=processes),
            *data,
            ("began from" if trains else "weights", describe_weights(source)),
        ],
        sections=sections,
        links=[Link(title=title, path=Path(name)) for title, name in linked.items() if name],
        next_steps=_next_steps(cfg, str(weights) if trains else source, image=image),
    )


def first_samples(cfg: DictConfig, batch: Sequence[Mapping[str, Any]]) -> Iterator[Tile]:
    """Draw the first images of a batch of detectron2's with their objects."""
    names = [category.name for category in find_categories(cfg)]
    points = find_keypoints(cfg)
    skeleton, bands = points.skeleton if points else (), bands_of(cfg)
    for sample in batch[:SAMPLES]:
        pixels, truth = sample["image"].permute(1, 2, 0).numpy(), sample["instances"].get_fields()
        if bands is not None:
            pixels = np.rint(pixels[..., [band - 1 for band in bands.show]]).astype(np.uint8)
        masks = getattr(truth.get("gt_masks"), "tensor", None)  # no polygons
        yield objects_tile(
            pixels,
            truth["gt_boxes"].tensor,
            truth["gt_classes"],
            masks,
            names=names,
            keypoints=getattr(truth.get("gt_keypoints"), "tensor", None),
            skeleton=skeleton,
        )


def percent(value: float | None) -> str:
    """Format a percentage, `-` for one that is not known."""
    return "-" if value is None or value != value else f"{value:.1f}"


def describe_scores(results: Results) -> str:
    """Describe the AP of each task in percent; empty without any."""
    aps = {title_of(task): percent(score["AP"]) for task, score in results.items() if "AP" in score}
    if aps and {*aps.values()} == {"-"}:
        return "no scores, since nothing was found or there was nothing to find"
    return ", ".join(f"{task} AP {ap}" for task, ap in aps.items())


def score_table(results: Results) -> str:
    """Format scores as a table with a line for each task; empty without any."""
    scored = {task: scores for task, scores in results.items() if "AP" in scores}
    names = dict.fromkeys(name for scores in scored.values() for name in scores)
    heads = [name for name in names if not name.startswith("AP-")]
    rows = [
        [title_of(task), *(percent(scores.get(name)) for name in heads)]
        for task, scores in scored.items()
    ]
    return align_columns([["", *heads], *rows]) if rows else ""


def _summary(cfg: DictConfig, results: Results, metrics: Sequence[dict[str, Any]] | None) -> str:
    summary = describe_scores(results) or "nothing was scored"
    if "evaluator" not in cfg.dataloader:
        summary += ": the config has no dataloader.evaluator"
    if metrics is not None:
        done = max(
            (entry["iteration"] + 1 for entry in metrics if "total_loss" in entry), default=0
        )
        images = images_per_step(cfg)
        step = f" of {images:,} images" if images else ""
        summary = f"after {done:,} iterations{step}: {summary}"
    return f"{summary[0].upper()}{summary[1:]}."


def demo_command(cfg: DictConfig, weights: str) -> str | None:
    """Write the command that draws what a detector finds in the images of its test set."""
    images = image_folder(cfg)
    if images is None:
        return None
    folder = Path(cfg.train.output_dir)
    config = config_to_name(folder)
    words: list[str | Path] = ["--config-file", config, "--weights", weights]
    if config == str(folder / SAVED):  # and no recipe of the user's own, which has to be named
        if folder_of_run(Path(weights)) == folder:  # of a training: its folder is enough
            words = [folder]
        elif Path(weights).is_dir() and config_of_run(weights):
            words = [weights]
    words += [*threshold_words(weights), "--output", folder / "images", images]
    return _needing_data(cfg, command_to_run("detection demo", "detection/demo.py", *words))


def _next_steps(cfg: DictConfig, weights: str, *, image: Path | None) -> list[NextStep]:
    """List what can be done with a detector; an export is traced with the image."""
    folder, steps = Path(cfg.train.output_dir), []
    demo = demo_command(cfg, weights)
    if demo:
        description = "Run it on images, folders or videos"
        steps.append(NextStep(text=description, command=demo))
    config = ["--config-file", config_to_name(folder), "--weights", weights]
    program = ("detection train", "detection/train_net.py", "--eval-only")
    output = ["--output", f"{folder}_evaluation"]
    again = _needing_data(cfg, command_to_run(*program, *config, *output))
    steps.append(NextStep(text="Evaluate it again", command=again))
    if image is not None:
        words: list[str | Path] = ["--output", folder / "model.ts", *config]
        words += ["--format", "torchscript", "--image", image]
        views = [f"test.{name}=null" for name in ("aug", "slice") if cfg.get("test", {}).get(name)]
        words += ["--opts", *views] if views else []
        command = shlex.join(["eva", "detection", "export", *map(display_path, words)])
        steps.append(NextStep(text="Export it, to run without this toolkit", command=command))
    return steps


def _needing_data(cfg: DictConfig, command: str) -> str:
    """Put the place of registered datasets before a command, where this process has one."""
    root = os.environ.get(ROOT_VARIABLE)
    if root and registered_names(cfg, "val"):
        return f"{ROOT_VARIABLE}={shlex.quote(root)} {command}"
    return command


def curves(metrics: Sequence[dict[str, Any]]) -> list[Curves]:
    """Plot losses, those of the last cascade stage alone, learning rate, and AP if repeated."""

    def done(entry: Mapping[str, Any]) -> float:
        # the last evaluation has the number of iterations that are done already
        is_evaluation = entry is metrics[-1] and "total_loss" not in entry
        return float(entry["iteration"] + (0 if is_evaluation else 1))

    names = dict.fromkeys(name for entry in metrics for name in entry)
    losses = [name for name in names if name.startswith("loss_")]
    if any(name.endswith("_stage2") for name in losses):  # of a cascade, the last stage
        losses = [name for name in losses if not name.endswith(_EARLIER_STAGES)]
    plot = partial(plot_log, entries=metrics, step=done, x_label="iteration")
    scores = {name: title_of(name.removesuffix("/AP")) for name in names if name.endswith("/AP")}
    description = "The last stage's losses rise at first: it learns from what earlier stages find."
    made = [
        plot(
            "Losses",
            names={name: name for name in ("total_loss", *losses)},
            y_label="loss",
            logarithmic=True,
            text=description,
        ),
        plot("Learning rate", names={"lr": "learning rate"}, y_label="learning rate"),
    ]
    if sum(any(name in entry for name in scores) for entry in metrics) > 1:
        made.append(plot("AP over the training", names=scores, y_label="AP in percent"))
    return made


def read_results(run: Path) -> dict[str, dict[str, float | None]]:
    """Read `results.json`: task -> metric -> percent; empty if nothing was scored."""
    file = run / RESULTS
    return load_json(file) if file.exists() else {}
