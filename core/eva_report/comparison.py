"""`eva compare`: two evaluations of the same samples, with paired bootstrap intervals.

An evaluation leaves `samples.json`: which file has what of every sample. Samples are drawn with
replacement, the same ones of both evaluations, and scores computed of each draw (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993).
"""

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import load_json, load_object
from eva_data.saving import replace_file, write_text
from eva_report.content import score_name
from eva_report.page import write_csv
from eva_report.terminal import align_columns
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser

SAMPLES = "samples.json"
PREDICTIONS, AREAS = "predictions.csv", "areas.npz"
CONFIDENCE = 0.95
_CELLS = 5_000_000  # of a part of the draws
_HEADS = ("sample", "label", "prediction", "probability")
_Weights = NDArray[np.int64]  # (D, N), how often each draw has each sample
_Score = Callable[[_Weights], NDArray[np.float64]]  # -> (D,), NaN where there is nothing to score


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A score of two evaluations in percent, and the interval of their difference."""

    metric: str
    first: float
    second: float
    low: float  # of second - first
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def note_samples(folder: Path, kind: str, **files: str | Path) -> None:
    """Write which files of a folder, or others, have what an evaluation says of every sample.

    `kind` is "detection" (files `truth` and `predictions` in COCO's format), "segmentation" (file
    `areas`, see `write_areas`) or "classification" (file `predictions`, see `write_predictions`).
    """
    content = {"kind": kind, **{name: str(file) for name, file in files.items()}}
    write_text(folder / SAMPLES, json.dumps(content, indent=2) + "\n")


def write_predictions(folder: Path, rows: Iterable[tuple[str, str, str, float]]) -> None:
    """Write sample, label, prediction and probability of a classifier's every sample."""
    write_csv(folder / PREDICTIONS, _HEADS, ((*names, f"{value:.6g}") for *names, value in rows))
    note_samples(folder, "classification", predictions=PREDICTIONS)


def write_areas(
    folder: Path, images: Sequence[str], intersection: NDArray[Any], union: NDArray[Any]
) -> None:
    """Write the pixels (N, K) of each image and class: right ones, and of label or prediction."""
    with replace_file(folder / AREAS) as file, file.open("wb") as out:
        np.savez_compressed(
            out, images=np.array(images, np.str_), intersection=intersection, union=union
        )
    note_samples(folder, "segmentation", areas=AREAS)


def compare(first: Path, second: Path, *, draws: int = 1000, seed: int = 0) -> list[Comparison]:
    """Compare two evaluations, each by the folder of its run.

    Raises:
        ValueError: If a folder has no evaluation of samples, or they are of other samples.
    """
    notes = [_read_notes(folder) for folder in (first, second)]
    kinds = [note["kind"] for note in notes]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{first} is of {kinds[0]}, and {second} of {kinds[1]}")
    try:
        if kinds[0] == "detection":
            return _compare_detections(notes[0], notes[1], draws, seed)
        read = {"segmentation": _read_areas, "classification": _read_predictions}[kinds[0]]
        metric, names, score = read(notes[0])
        _, other_names, other = read(notes[1])
    except (KeyError, OSError) as error:
        raise ValueError(f"{first}, {second}: {SAMPLES} names no file to read: {error}") from error
    if names != other_names and _below_their_folder(names) == _below_their_folder(other_names):
        other_names = names  # the same data, by another path
    if names != other_names or not names:
        different = len({*names} ^ {*other_names})
        raise ValueError(
            f"{first} was scored on {len(names)} samples and {second} on {len(other_names)}, "
            f"{different} of which only one has: evaluate both on the same data"
        )
    count = len(names)
    once = np.ones((1, count), np.int64)
    before, after = float(score(once)[0]), float(other(once)[0])
    differences = np.concatenate([other(w) - score(w) for w in _draw(count, draws, seed)])
    tail = 50 * (1 - CONFIDENCE)
    low, high = map(float, np.nanpercentile(differences, [tail, 100 - tail]))
    return [Comparison(metric=metric, first=before, second=after, low=low, high=high)]


def _read_notes(folder: Path) -> dict[str, Any]:
    file = folder / SAMPLES
    if not file.is_file():
        raise ValueError(
            f"{folder} has no {SAMPLES}: it is no folder of a training or evaluation of detection, "
            "segmentation or classification, or one from before: evaluate the weights again"
        )
    notes = load_object(file)
    files = {name: folder / value for name, value in notes.items() if name != "kind"}
    return {"kind": notes.get("kind"), **files}


def _draw(count: int, draws: int, seed: int) -> Iterator[_Weights]:
    """Draw samples with replacement, in parts that fit into memory."""
    generator, shares = np.random.default_rng(seed), np.full(count, 1 / count)
    part = max(1, _CELLS // count)
    for begin in range(0, draws, part):
        yield generator.multinomial(count, shares, size=min(part, draws - begin))


def _below_their_folder(names: Sequence[str]) -> list[str]:
    """Write paths from the folder that all of them share."""
    folders = [os.path.dirname(name) for name in names]  # noqa: PTH120 (a name may be of no file)
    shared = os.path.commonpath(folders) if len({*map(os.path.isabs, folders)}) == 1 else ""
    return [os.path.relpath(name, shared or ".") for name in names]


def _read_predictions(notes: Mapping[str, Any]) -> tuple[str, list[str], _Score]:
    with open(notes["predictions"], newline="", encoding="utf-8") as stream:
        rows = sorted(
            (row["sample"], row["label"] == row["prediction"]) for row in csv.DictReader(stream)
        )
    right = np.array([is_right for _, is_right in rows])

    def top1(weights: _Weights) -> NDArray[np.float64]:
        return 100 * (weights @ right) / weights.sum(1)

    return "top1", [name for name, _ in rows], top1


def _read_areas(notes: Mapping[str, Any]) -> tuple[str, list[str], _Score]:
    with np.load(notes["areas"], allow_pickle=False) as table:
        names, intersection, union = (table[n] for n in ("images", "intersection", "union"))
    order = np.argsort(names)
    intersection, union = intersection[order], union[order]

    def mean_iou(weights: _Weights) -> NDArray[np.float64]:
        total = (weights @ union).astype(float)
        total[total == 0] = np.nan
        return 100 * np.nanmean(weights @ intersection / total, axis=1)

    return "mIoU", names[order].tolist(), mean_iou


def _compare_detections(
    first: Mapping[str, Any], second: Mapping[str, Any], draws: int, seed: int
) -> list[Comparison]:
    """Compare AP through hotcoco, of boxes, and of masks where both have them."""
    import hotcoco

    truth = hotcoco.COCO(str(first["truth"]))
    other = hotcoco.COCO(str(second["truth"]))
    if truth.dataset["annotations"] != other.dataset["annotations"]:
        raise ValueError(
            f"{first['truth']} and {second['truth']} have different objects: evaluate both on the "
            "same data"
        )
    results = [load_json(Path(notes["predictions"])) for notes in (first, second)]
    have_masks = all(entries and "segmentation" in entries[0] for entries in results)
    lines = []
    for kind, title in (("bbox", "box"), ("segm", "mask"))[: 1 + have_masks]:
        scorers = []
        for entries in results:
            scorer = hotcoco.COCOeval(truth, truth.load_res(entries), kind)
            scorer.evaluate()
            scorer.accumulate()
            scorers.append(scorer)
        compared = hotcoco.compare(
            scorers[0], scorers[1], n_bootstrap=draws, seed=seed, confidence=CONFIDENCE
        )
        for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            first_score, second_score = (compared[f"metrics_{side}"][metric] for side in "ab")
            if min(first_score, second_score) < 0:  # no such objects
                continue
            interval = compared["ci"][metric]
            lines.append(
                Comparison(
                    metric=f"{title} {metric}",
                    first=100 * first_score,
                    second=100 * second_score,
                    low=100 * interval["lower"],
                    high=100 * interval["upper"],
                )
            )
    return lines


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "Compare the last evaluations of two runs of detection, segmentation or classification, "
        "or their evaluations of the same data, with paired bootstrap intervals.",
        prog="eva compare",
    )
    parser.add_argument("first", type=Path, metavar="RUN", help="folder of a run or evaluation")
    parser.add_argument("second", type=Path, metavar="RUN", help="another, of the same data")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    options = parser.parse_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws {options.draws} must be at least 1")
    return options


def _run(options: argparse.Namespace) -> Result:
    comparisons = compare(options.first, options.second, draws=options.draws, seed=options.seed)
    heads = ["score", "first", "second", "difference", f"{CONFIDENCE:.0%} interval", ""]
    lines = [heads]
    for entry in comparisons:
        interval = f"{entry.low:+.2f} to {entry.high:+.2f}"
        difference = f"{entry.second - entry.first:+.2f}"
        clear = "" if entry.is_clear else "may be chance"
        values = [f"{value:.2f}" for value in (entry.first, entry.second)]
        lines.append([score_name(entry.metric), *values, difference, interval, clear])
    echo(align_columns(lines))
    return Result([asdict(entry) for entry in comparisons])


main = Command("eva compare", _parse, _run)
