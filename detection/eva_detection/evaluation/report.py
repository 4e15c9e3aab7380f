"""The report of a detection run: what `report.html` says of a training or an evaluation."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.run_folders import named_weights
from eva_data.detection.coco import parse_json
from eva_detection.command_line import config_of_run
from eva_detection.config.settings import images_per_step
from eva_detection.data.custom_data import annotation_files, image_folder, registered_names
from eva_detection.data.loading import TestSet
from eva_detection.training.output_folder import FINAL, read_metrics
from eva_report.content import Curve, Curves, Link, Report, Section, Step
from eva_report.detection import CONFUSION, PER_CLASS, data_fact, detection_sections, title_of
from eva_runs.commands import command_to_run
from eva_runs.record import facts

Results = Mapping[str, Mapping[str, float | None]]  # task -> metric -> percent
Kind = Literal["training", "evaluation"]

_ROOT = "DETECTRON2_DATASETS"
_PREDICTIONS = ("coco_instances_results.json", "lvis_instances_results.json")
_EARLIER_STAGES = ("_stage0", "_stage1")


def make_report(
    cfg: DictConfig, test_set: TestSet, *, kind: Kind, processes: int, recipe: str
) -> Report:
    """Make the report of a run from its output folder."""
    folder = Path(cfg.train.output_dir)
    metrics = read_metrics(folder)
    results = read_results(folder) if test_set.is_scored else {}
    predictions = None
    if test_set.is_scored:
        place = Path(getattr(test_set.evaluator, "_output_dir", None) or folder / "inference")
        predictions = next((one for n in _PREDICTIONS if (one := place / n).is_file()), None)
    sections: list[Section] = []
    if predictions is not None:
        sections += detection_sections(
            truth=test_set.labels,
            predictions=predictions,
            images=test_set.files,
            scores=results,
            folder=folder,
        )
    sections[1:1] = curves(metrics)  # after the scores
    source = str(cfg.train.get("init_checkpoint") or "")
    weights = source if kind == "evaluation" else str(folder / FINAL)
    image = next(iter(test_set.files.values()), None) if test_set.is_scored else None
    seed, device = cfg.train.get("seed"), str(cfg.train.device)
    return Report(
        title=f"Detection: {kind} of {recipe or folder.name}",
        summary=_summary(cfg, kind, results if predictions else {}, metrics),
        facts=[
            *facts(folder, kind, seed=seed, device=device, processes=processes),
            *_facts(cfg, test_set, kind, scored=predictions is not None),
            ("weights" if kind == "evaluation" else "began from", named_weights(source)),
        ],
        sections=sections,
        links=_links(folder, predictions, kind),
        next_steps=_next_steps(cfg, weights, image=image),
    )


def scored(results: Results) -> dict[str, str]:
    """Return the AP in percent of each task that has one, `-` for one that is not known."""
    tasks = {task: one for task, one in results.items() if isinstance(one, Mapping) and "AP" in one}
    return {task: percent(one["AP"]) for task, one in tasks.items()}


def percent(value: float | None) -> str:
    """Format a percentage, `-` for one that is not known."""
    return "-" if value is None or value != value else f"{value:.1f}"


def _summary(
    cfg: DictConfig, kind: str, results: Results, metrics: Sequence[dict[str, Any]]
) -> str:
    aps = scored(results)
    text = " and ".join(f"{title_of(task)} AP {ap}" for task, ap in aps.items())
    if aps and {*aps.values()} == {"-"}:
        text = "no scores, since nothing was found or there was nothing to find"
    text = text or "nothing was scored"
    if "evaluator" not in cfg.dataloader:
        text += ": the config has no dataloader.evaluator"
    if kind == "training":
        done, images = trained_iterations(metrics), images_per_step(cfg)
        step = f" of {images:,} images" if images else ""
        text = f"after {done:,} iterations{step}: {text}"
    return f"{text[0].upper()}{text[1:]}."


def _facts(cfg: DictConfig, test_set: TestSet, kind: str, *, scored: bool) -> list[tuple[str, str]]:
    found = []
    if kind == "training" and test_set.training:
        found.append(("training data", test_set.training))
    if scored:
        files = ", ".join(annotation_files(cfg.dataloader.test.dataset))
        found.append(("evaluation data", f"{data_fact(test_set.labels)} ({files})"))
    return found


def _links(folder: Path, predictions: Path | None, kind: str) -> list[Link]:
    titles = {
        "results.json": "scores",
        PER_CLASS: "scores of every class",
        CONFUSION: "confusion of every class",
        "config.yaml": "the config, for demo, evaluation and export",
        "metrics.json": "losses and scores over the training",
        "log.txt": "log",
    }
    if kind == "training":
        titles = {FINAL: "weights"} | titles
    links = [Link(title=title, path=Path(name)) for name, title in titles.items()]
    if predictions is not None and predictions.is_relative_to(folder):
        links.insert(2, Link(title="predictions", path=predictions.relative_to(folder)))
    return links


def demo_command(cfg: DictConfig, weights: str) -> str | None:
    """Write the command that draws what a detector finds in the images of its test set."""
    images = image_folder(OmegaConf.select(cfg, "dataloader.test.dataset"))
    if images is None:
        return None
    folder = Path(cfg.train.output_dir)
    words: list[str | Path] = ["--config-file", folder / "config.yaml", "--weights", weights]
    if Path(weights).parent == folder:  # of a training: its folder is enough
        words = [folder]
    elif Path(weights).is_dir() and config_of_run(weights):
        words = [weights]
    words += ["--output", folder / "images", images]
    return _needing_data(cfg, command_to_run("detection demo", "detection/demo.py", *words))


def _next_steps(cfg: DictConfig, weights: str, *, image: Path | None) -> list[Step]:
    """List what can be done with a detector; an export is traced with the image."""
    folder = Path(cfg.train.output_dir)
    config: list[str | Path] = ["--config-file", folder / "config.yaml"]
    settings = [f"train.init_checkpoint={weights}", f"train.output_dir={folder}_evaluation"]
    program = ("detection train", "detection/train_net.py", "--eval-only")
    again = _needing_data(cfg, command_to_run(*program, *config, *settings))
    steps = [Step(text="Evaluate it again", command=again)]
    if demo := demo_command(cfg, weights):
        text = "Draw what it finds in images, folders or videos"
        steps.insert(0, Step(text=text, command=demo))
    if image is not None:
        words = ["--weights", weights, "--format", "torchscript", "--image", image]
        words = ["--output", folder / "model.ts", *config, *words]
        command = shlex.join(["eva", "detection", "export", *map(str, words)])
        steps.append(Step(text="Export it, to run without this toolkit", command=command))
    return steps


def _needing_data(cfg: DictConfig, command: str) -> str:
    """Put the place of registered datasets before a command, where this process has one."""
    node = OmegaConf.select(cfg, "dataloader.test.dataset")
    if root := os.environ.get(_ROOT) if registered_names(node) else None:
        return f"{_ROOT}={shlex.quote(root)} {command}"
    return command


def curves(metrics: Sequence[dict[str, Any]]) -> list[Curves]:
    """Make the curves of a training."""
    names = dict.fromkeys(name for entry in metrics for name in entry)
    losses = [name for name in names if name.startswith("loss_")]
    if any(name.endswith("_stage2") for name in losses):  # of a cascade, the last stage
        losses = [name for name in losses if not name.endswith(_EARLIER_STAGES)]
    text = "The losses of the last stage of a cascade rise first: it gets positive boxes once the "
    text += "stages before it have learned to find them."
    shown = {"total_loss": "total_loss"} | {name: name for name in losses}
    made = [
        _curves(metrics, shown, title="Losses", y_label="loss", logarithmic=True, text=text),
        _curves(metrics, {"lr": "learning rate"}, title="Learning rate", y_label="learning rate"),
    ]
    scores = {name: title_of(name[: -len("/AP")]) for name in names if name.endswith("/AP")}
    if sum(any(name in entry for name in scores) for entry in metrics) > 1:
        made.append(_curves(metrics, scores, title="AP over the training", y_label="AP in percent"))
    return [one for one in made if any(curve.points for curve in one.curves)]


def _curves(metrics: Sequence[dict[str, Any]], names: Mapping[str, str], **rest: Any) -> Curves:
    found = []
    for name, shown in names.items():
        points = [
            # the last evaluation has the number of iterations that are done already
            (float(one["iteration"] + (one is not metrics[-1] or "total_loss" in one)), one[name])
            for one in metrics
            if isinstance(one.get(name), int | float)
        ]
        found.append(Curve(name=shown, points=points))
    return Curves(x_label="iteration", curves=found, **rest)


def read_results(run: Path) -> dict[str, dict[str, float | None]]:
    """Read `results.json`: task -> metric -> percent; empty if nothing was scored."""
    file = run / "results.json"
    return parse_json(file.read_bytes(), str(file)) if file.exists() else {}


def trained_iterations(metrics: Sequence[dict[str, Any]]) -> int:
    """Count the iterations that a run has trained, from `read_metrics`."""
    return max((entry["iteration"] + 1 for entry in metrics if "total_loss" in entry), default=0)
