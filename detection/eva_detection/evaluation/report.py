"""A report of a detection run: loss curve, pictures of predictions, scores, one HTML page."""

import base64
import contextlib
import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from pycocotools.coco import COCO

from eva_data.coco.files import parse_json
from eva_data.files import replacing, require_regular_file, write_text
from eva_data.pictures import read_rgb

SCORE_THRESHOLD = 0.5
# What pycocotools raises for entries that lack something or hold something else.
_WRONG_ENTRIES = (KeyError, TypeError, AttributeError, IndexError, ValueError)
COLUMNS, PICTURES = 4, 16
LOSSES = ("total_loss", "loss_cls_stage2", "loss_box_reg_stage2", "loss_mask", "loss_rpn_cls")


def report_of_run(
    cfg: Any, test_set: Any, *, kind: Literal["training", "evaluation"], processes: int
) -> Path | None:
    """Write the report of a run; nothing yet.

    Args:
        cfg: The config.
        test_set: The test set of the run.
        kind: What the run was.
        processes: Number of processes.

    Returns:
        The file, or None if it could not be written.
    """
    del cfg, test_set, kind, processes
    return None


def write_report(run: Path, dataset: Path) -> Path:
    """Write `loss_curve.png`, `predictions.png` and `report.html` into a run's folder.

    Args:
        run: Folder of the run, with `metrics.json`, `results.json` and
            `inference/coco_instances_results.json`.
        dataset: COCO-style folder with `val/` and `annotations/instances_val.json`.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If a file is not what a run leaves.
        OSError: If a file cannot be read or written.
    """
    results = read_results(run)
    metrics = read_metrics(run)
    file = dataset / "annotations" / "instances_val.json"
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _truth(_read(file), file)
        found = _predictions(truth, run / "inference" / "coco_instances_results.json")
    draw_loss_curve(metrics, run / "loss_curve.png")
    try:
        draw_contact_sheet(truth, found, dataset / "val", run / "predictions.png")
    except _WRONG_ENTRIES as error:
        raise ValueError(f"{file} and the predictions cannot be drawn: {error!r}") from error
    file = run / "report.html"
    write_text(file, _page(run, results, metrics))
    return file


def read_results(run: Path) -> dict[str, dict[str, float | None]]:
    """Read `results.json`: task -> metric -> percent; empty if nothing was scored.

    Args:
        run: Folder of the run.

    Raises:
        ValueError: If it holds something else.
        OSError: If it cannot be read.
    """
    content = _read(run / "results.json")
    scores = content.values() if isinstance(content, dict) else [None]
    for metrics in scores:
        values = metrics.values() if isinstance(metrics, dict) else [""]
        if not all(value is None or isinstance(value, int | float) for value in values):
            raise ValueError(
                f"{run / 'results.json'} is not what an evaluation leaves (task -> metric -> "
                "percent): evaluate again"
            )
    results: dict[str, dict[str, float | None]] = content
    return results


def _read(file: Path) -> Any:
    require_regular_file(file)
    return parse_json(file.read_bytes(), str(file))


def _truth(content: Any, file: Path) -> COCO:
    truth = COCO()
    try:
        truth.dataset = content
        truth.createIndex()
        if truth.imgs and truth.cats:
            return truth
    except _WRONG_ENTRIES as error:
        raise ValueError(f"{file} is not in COCO format: {error!r}") from error
    raise ValueError(f"{file} is not in COCO format, or has no images or categories")


def _predictions(truth: COCO, file: Path) -> COCO:
    """Load predictions as `truth.loadRes`, which fails on a model that finds nothing."""
    content = _read(file)
    if content:
        try:
            return truth.loadRes(content)
        except (*_WRONG_ENTRIES, AssertionError) as error:
            raise ValueError(f"{file} holds no predictions for this data: {error!r}") from error
    nothing = COCO()
    nothing.dataset = truth.dataset | {"annotations": []}
    nothing.createIndex()
    return nothing


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read detectron2's `metrics.json` (one JSON object a line), in order of iterations.

    A run that was interrupted and continued has written some iterations twice; the later line
    counts.

    Args:
        run: Folder of the run.

    Returns:
        One dict a logged iteration.
    """
    require_regular_file(run / "metrics.json")
    lines = (run / "metrics.json").read_text(encoding="utf-8", errors="replace").splitlines()
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


def results_table(results: dict[str, dict[str, float | None]]) -> str:
    """Format the scores of boxes and masks side by side.

    Args:
        results: Task ("bbox", "segm") -> metric -> percent; None where such objects are missing.

    Returns:
        A table of text lines.
    """
    tasks = [task for task in ("bbox", "segm") if results.get(task)]
    if not tasks:
        return "no scores: nothing was found, or there was nothing to find"
    lines = ["{:<12}".format("") + "".join(f"{name:>10}" for name in tasks)]
    for metric in results[tasks[0]]:
        values = (results[task].get(metric) for task in tasks)
        cells = ("-" if value is None else f"{value:.1f}" for value in values)
        lines.append(f"{metric:<12}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def draw_loss_curve(metrics: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the losses over the iterations.

    Args:
        metrics: Entries from `read_metrics`.
        file: PNG to write.
    """
    figure = Figure(figsize=(8, 4), dpi=110)
    axes = figure.subplots()
    for name in LOSSES:
        values = [(m["iteration"], m.get(name)) for m in metrics]
        points = [pair for pair in values if isinstance(pair[1], int | float)]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="iteration", ylabel="loss", yscale="log", title="Fine-tuning losses")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    figure.tight_layout()
    with replacing(file) as part:
        figure.savefig(part)


def draw_contact_sheet(truth: COCO, found: COCO, images: Path, file: Path) -> None:
    """Draw ground truth (left) and predictions (right) of the first images.

    Args:
        truth: Annotations.
        found: Predictions, from `truth.loadRes`.
        images: Folder of the images.
        file: PNG to write.
    """
    names = {entry["id"]: entry["name"] for entry in truth.loadCats(truth.getCatIds())}
    chosen = truth.loadImgs(sorted(truth.getImgIds())[:PICTURES])
    rows = math.ceil(len(chosen) / COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS * 1.5, rows * 1.6), dpi=100)
    axes = figure.subplots(rows, 2 * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, entry in enumerate(chosen):
        image = read_rgb(images / entry["file_name"], upright=True)
        left, right = axes[number // COLUMNS, 2 * (number % COLUMNS) :][:2]
        for axis, coco, title in ((left, truth, "truth"), (right, found, "found")):
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))
            annotations = [a for a in annotations if a.get("score", 1) >= SCORE_THRESHOLD]
            axis.set_title(title, fontsize=7, pad=2)
            _draw_instances(axis, image, annotations, coco, names)
    figure.tight_layout(pad=0.3)
    with replacing(file) as part:
        figure.savefig(part)


def _draw_instances(
    axis: Any,
    image: NDArray[np.uint8],
    annotations: Sequence[dict[str, Any]],
    coco: COCO,
    names: dict[int, str],
) -> None:
    axis.imshow(image)
    for annotation in annotations:
        colour = matplotlib.colormaps["tab10"](annotation["category_id"] % 10)
        mask = coco.annToMask(annotation).astype(bool)
        overlay = np.zeros((*mask.shape, 4))
        overlay[mask] = (*colour[:3], 0.55)
        axis.imshow(overlay)
        x, y, width, height = annotation["bbox"]
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=colour, lw=1))
        score = f" {annotation['score']:.2f}" if "score" in annotation else ""
        axis.text(
            x,
            y - 1,
            names[annotation["category_id"]] + score,
            fontsize=6,
            color="white",
            bbox=dict(facecolor=colour, pad=0.6, lw=0),
        )


def _page(run: Path, results: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> str:
    def picture(name: str) -> str:
        data = base64.b64encode((run / name).read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{name}">'

    last = trained_iterations(metrics)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>EVA quick start</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100%; border: 1px solid #ccc }}
pre {{ background: #f4f4f4; padding: 1rem }}</style>
<h1>EVA quick start: digits on photographs</h1>
<p>Cascade Mask R-CNN on the EVA-debug ViT, {last} iterations, scored on held-out digits on
held-out photographs.</p>
<h2>COCO scores (percent)</h2><pre>{html.escape(results_table(results))}</pre>
<h2>Predictions at score {SCORE_THRESHOLD} and above</h2>{picture("predictions.png")}
<h2>Losses</h2>
<p>The losses of the last cascade stage rise first: it only gets positive boxes once the stages
before it have learned to find them.</p>{picture("loss_curve.png")}
</html>
"""
