"""What an evaluation gives: the table, per-class results, a picture."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from eva_data.files import make_folder, replacing, write_text
from eva_engine.evaluation.counting import Counted, Score

PAPER_SETS = (  # of Table 5's average, in its order; the gap is to the first
    "ImageNet-1K",
    "ImageNet-V2",
    "ImageNet-ReaL",
    "ImageNet-A",
    "ImageNet-R",
    "ImageNet-Sketch",
)
NAMED = 40  # classes whose names fit beside a picture
NUMBERED = 20  # classes whose numbers fit into its cells


def average_and_gap(top1: Mapping[str, float]) -> tuple[float, float] | None:
    """Average over the paper's six sets, and how far ImageNet-1K lies above it (Table 5).

    Args:
        top1: Set -> accuracy in percent; others than the six are left out.

    Returns:
        Both, or None if one of the six is missing.
    """
    if not set(PAPER_SETS) <= top1.keys():
        return None
    average = sum(top1[name] for name in PAPER_SETS) / len(PAPER_SETS)
    return average, top1[PAPER_SETS[0]] - average


def table(scores: Mapping[str, Score]) -> str:
    """Write scores as a table.

    Args:
        scores: Set -> score.

    Returns:
        Lines of text.
    """
    lines = [f"{'set':16} {'images':>8} {'top-1':>8} {'top-5':>8} {'loss':>8}"]
    for name, score in scores.items():
        lines.append(
            f"{name:16} {score.images:8} {score.top1:8.3f} {score.top5:8.3f} {score.loss:8.3f}"
        )
    both = average_and_gap({name: score.top1 for name, score in scores.items()})
    if both is not None:
        lines.append(f"{'average of six':16} {'':8} {both[0]:8.3f}")
        lines.append(f"{'gap to 1K':16} {'':8} {both[1]:8.3f}")
    elif PAPER_SETS[0] in scores and len(scores) > 1:
        missing = [name for name in PAPER_SETS if name not in scores]
        lines.append(f"no average and gap of the paper's six sets without {', '.join(missing)}")
    return "\n".join(lines)


def as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    """The table's content for `results.json`."""
    sets = {
        name: {"images": score.images, "top1": score.top1, "top5": score.top5, "loss": score.loss,
               "right1": score.right1, "right5": score.right5}
        for name, score in scores.items()
    }  # fmt: skip
    both = average_and_gap({name: score.top1 for name, score in scores.items()})
    average, gap = both if both is not None else (None, None)
    return {"sets": sets, "average": average, "gap": gap}


def write_results(folder: Path, settings: Mapping[str, Any], scores: Mapping[str, Score]) -> Path:
    """Write `results.json`.

    Args:
        folder: Made if it is not there.
        settings: Of the evaluation.
        scores: Set -> score.

    Returns:
        The file.
    """
    text = json.dumps({"settings": dict(settings), **as_json(scores)}, indent=2) + "\n"
    make_folder(folder)
    write_text(folder / "results.json", text)
    return folder / "results.json"


def write_per_class(folder: Path, counted: Counted, classes: Sequence[str]) -> Path:
    """Write `per_class.csv`: accuracies of each class, and what it is most often taken for.

    Args:
        folder: Made if it is not there.
        counted: With confusion.
        classes: Names of the labels.

    Returns:
        The file.
    """
    assert counted.confusion is not None
    assert counted.right5 is not None
    heads = ("class", "images", "top1", "top5", "most_often_taken_for", "times")
    rows: list[tuple[Any, ...]] = [heads]
    for label, name in enumerate(classes):
        row = counted.confusion[label].clone()
        images, right = int(row.sum()), int(row[label])
        row[label] = 0
        wrong, times = int(row.argmax()), int(row.max())
        shares = [
            f"{100 * number / images:.3f}" if images else ""
            for number in (right, int(counted.right5[label]))
        ]
        rows.append((name, images, *shares, classes[wrong] if times else "", times))

    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    make_folder(folder)
    write_text(folder / "per_class.csv", text.getvalue())
    return folder / "per_class.csv"


def draw_confusion(folder: Path, confusion: Tensor, classes: Sequence[str]) -> Path:
    """Draw `confusion.png`: rows are labels, columns predictions, shades the row's shares.

    Args:
        folder: Made if it is not there.
        confusion: (K, K).
        classes: Names of the labels; written for at most `NAMED`.

    Returns:
        The file.
    """
    from matplotlib.figure import Figure

    number = len(classes)
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    side = min(14.0, 3.5 + 0.32 * number)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the class's images", shrink=0.8)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    top1 = 100 * float(confusion.trace() / confusion.sum().clamp(min=1))
    axes.set_title(f"top-1 {top1:.2f} % of {int(confusion.sum())} images")
    if number <= NAMED:
        # a name with dollars is no formula
        axes.set_xticks(range(number), classes, rotation=90, parse_math=False)
        axes.set_yticks(range(number), classes, parse_math=False)
    if number <= NUMBERED:
        for row, column in confusion.nonzero().tolist():
            dark = shares[row, column] > 0.5
            axes.text(column, row, str(int(confusion[row, column])), ha="center", va="center",
                      fontsize=8, color="white" if dark else "black")  # fmt: skip
    make_folder(folder)
    with replacing(folder / "confusion.png") as file:
        figure.savefig(file, dpi=120, format="png")
    return folder / "confusion.png"
