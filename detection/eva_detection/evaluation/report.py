"""The report of a detection run: what `report.html` says of a training or an evaluation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.runs.weights import named_weights
from eva_data.detection.coco import parse_json
from eva_data.files import require_regular_file
from eva_detection.data.custom_data import annotation_files
from eva_detection.data.loading import TestSet
from eva_detection.evaluation.next_steps import next_steps
from eva_report.content import Curve, Curves, Link, Report, Section
from eva_report.detection import CONFUSION, PER_CLASS, data_fact, detection_sections, title_of
from eva_report.page import report_name, try_report
from eva_runs.record import facts

Results = Mapping[str, Mapping[str, float | None]]  # task -> metric -> percent

FINAL = "model_final.pth"
_PREDICTIONS = ("coco_instances_results.json", "lvis_instances_results.json")
_EARLIER_STAGES = ("_stage0", "_stage1")


def report_of_run(
    cfg: DictConfig,
    test_set: TestSet,
    *,
    kind: Literal["training", "evaluation"],
    processes: int,
    recipe: str = "",
) -> Path | None:
    """Write the report of a run; whatever fails in it is a warning.

    Args:
        cfg: The config of the run.
        test_set: The test set, whose evaluator keeps the labels once it has scored.
        kind: What the run was.
        processes: Number of processes.
        recipe: Name of the recipe.

    Returns:
        `report.html` of the output folder, or `evaluation.html` where a training has left its own
        there; None if it could not be written.
    """
    folder = Path(cfg.train.output_dir)
    return try_report(
        folder,
        lambda: _report(cfg, test_set, kind=kind, processes=processes, recipe=recipe),
        name=report_name(folder, kind),
    )


def _report(
    cfg: DictConfig,
    test_set: TestSet,
    *,
    kind: Literal["training", "evaluation"],
    processes: int,
    recipe: str,
) -> Report:
    folder = Path(cfg.train.output_dir)
    metrics = read_metrics(folder)
    results = read_results(folder) if test_set.is_scored else {}
    predictions = _predictions(test_set, folder)
    sections: list[Section] = []
    if predictions is not None:
        sections += detection_sections(
            truth=test_set.labels,
            predictions=predictions,
            images=test_set.files,
            scores=results,
            folder=folder,
        )
    place = 1 if sections else 0  # curves of the training follow the scores
    sections[place:place] = curves(metrics)
    source = str(cfg.train.get("init_checkpoint") or "")
    began_from = named_weights(source)
    weights = source if kind == "evaluation" else str(folder / FINAL)
    picture = next(iter(test_set.files.values()), None) if test_set.is_scored else None
    return Report(
        title=f"Detection: {kind} of {recipe or folder.name}",
        summary=_summary(cfg, kind, results, metrics, scored=predictions is not None),
        facts=[
            *facts(folder, kind, seed=cfg.train.get("seed"), device=str(cfg.train.device),
                   processes=processes),
            *_facts(cfg, test_set, kind, began_from, scored=predictions is not None),
        ],
        sections=sections,
        links=_links(folder, predictions, kind),
        next_steps=next_steps(cfg, weights, picture=picture),
    )  # fmt: skip


def _predictions(test_set: TestSet, folder: Path) -> Path | None:
    """Find the file that the evaluator has written."""
    if not test_set.is_scored:
        return None
    place = Path(getattr(test_set.evaluator, "_output_dir", None) or folder / "inference")
    return next((place / name for name in _PREDICTIONS if (place / name).is_file()), None)


def _summary(
    cfg: DictConfig, kind: str, results: Results, metrics: Sequence[dict[str, Any]], *, scored: bool
) -> str:
    named = [f"{title_of(task)} AP {_percent(results[task]['AP'])}" for task in _scored(results)]
    text = " and ".join(named) if scored and named else "nothing was scored"
    if scored and named and all(score.endswith(" -") for score in named):
        text = "no scores, since nothing was found or there was nothing to find"
    if "evaluator" not in cfg.dataloader:
        text += ": the config has no dataloader.evaluator"
    if kind == "training":
        done, images = trained_iterations(metrics), _batch(cfg)
        step = f" of {images:,} images" if images else ""
        text = f"after {done:,} iterations{step}: {text}"
    return f"{text[0].upper()}{text[1:]}."


def _batch(cfg: DictConfig) -> int:
    images = OmegaConf.select(cfg, "dataloader.train.total_batch_size") or 0
    return int(images * cfg.train.get("accumulate", 1))


def _scored(results: Results) -> list[str]:
    """List the tasks that have an AP; an evaluator of the user's own may give something else."""
    return [task for task, metrics in results.items() if "AP" in metrics]


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.1f}"


def _facts(
    cfg: DictConfig, test_set: TestSet, kind: str, began_from: str, *, scored: bool
) -> list[tuple[str, str]]:
    found = []
    if kind == "training":
        found += [("training data", test_set.training)] if test_set.training else []
    if scored:
        files = ", ".join(annotation_files(OmegaConf.select(cfg, "dataloader.test.dataset")))
        text = data_fact(test_set.labels) + (f" ({files})" if files else "")
        found.append(("evaluation data", text))
    return [*found, ("weights" if kind == "evaluation" else "began from", began_from)]


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


def curves(metrics: Sequence[dict[str, Any]]) -> list[Curves]:
    """Make the curves of a training.

    Args:
        metrics: Entries from `read_metrics`; none of an evaluation.

    Returns:
        Losses, learning rate, and AP where there were several evaluations.
    """
    names = dict.fromkeys(name for entry in metrics for name in entry)
    losses = [name for name in names if name.startswith("loss_")]
    if any(name.endswith("_stage2") for name in losses):  # of a cascade, the last stage
        losses = [name for name in losses if not name.endswith(_EARLIER_STAGES)]
    made = [
        _curves(metrics, ["total_loss", *losses], "Losses", "loss", logarithmic=True,
                text="The losses of the last stage of a cascade rise first: it gets positive boxes "
                "once the stages before it have learned to find them."),
        _curves(metrics, ["lr"], "Learning rate", "learning rate", logarithmic=False, text=""),
    ]  # fmt: skip
    scores = [name for name in names if name.endswith("/AP")]
    if sum(any(name in entry for name in scores) for entry in metrics) > 1:
        made.append(_curves(metrics, scores, "AP over the training", "AP in percent",
                            logarithmic=False, text=""))  # fmt: skip
    return [one for one in made if any(curve.points for curve in one.curves)]


def _curves(
    metrics: Sequence[dict[str, Any]],
    names: Sequence[str],
    title: str,
    y_label: str,
    *,
    logarithmic: bool,
    text: str,
) -> Curves:
    found = []
    for name in names:
        points = [
            (float(_done(entry, metrics)), float(entry[name]))
            for entry in metrics
            if isinstance(entry.get(name), int | float)
        ]
        shown = title_of(name.removesuffix("/AP")) if name.endswith("/AP") else name
        shown = {"lr": "learning rate"}.get(shown, shown)
        found.append(Curve(name=shown, points=points))
    return Curves(
        title=title, x_label="iteration", y_label=y_label, curves=found, logarithmic=logarithmic,
        text=text,
    )  # fmt: skip


def _done(entry: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> int:
    """Count the iterations before an entry; the last evaluation has their number already."""
    last = entry is metrics[-1] and "total_loss" not in entry
    return int(entry["iteration"]) + (0 if last else 1)


def read_results(run: Path) -> dict[str, dict[str, float | None]]:
    """Read `results.json`: task -> metric -> percent; empty if nothing was scored.

    What an evaluator of the user's own has left in another form is not taken.

    Args:
        run: Folder of the run.

    Raises:
        ValueError: If it is not JSON.
        OSError: If it cannot be read.
    """
    file = run / "results.json"
    if not file.exists():
        return {}
    require_regular_file(file)
    content = parse_json(file.read_bytes(), str(file))
    tasks = content.items() if isinstance(content, dict) else ()
    return {
        task: {
            name: value
            for name, value in metrics.items()
            if value is None or isinstance(value, int | float)
        }
        for task, metrics in tasks
        if isinstance(metrics, dict)
    }


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read detectron2's `metrics.json` (one JSON object a line), in order of iterations.

    A run that was interrupted and continued has written some iterations twice; the later line
    counts.

    Args:
        run: Folder of the run; of an evaluation alone it has no such file.

    Returns:
        One dict a logged iteration.
    """
    file = run / "metrics.json"
    if not file.exists():
        return []
    require_regular_file(file)
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the run was killed in the middle of this line
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("iteration"), int):
            continue
        by_iteration.setdefault(entry["iteration"], {}).update(entry)
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def trained_iterations(metrics: Sequence[dict[str, Any]]) -> int:
    """Count the iterations that a run has trained, from `read_metrics`."""
    return max((entry["iteration"] + 1 for entry in metrics if "total_loss" in entry), default=0)
