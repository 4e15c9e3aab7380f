r"""The gap between COCO and LVIS, as the paper's Table 8b, and the images that both share.

    eva detection coco-lvis-gap table --name EVA --paper \
        --coco output/coco/results.json --lvis output/lvis/results.json --json > output/gap.json
    eva detection coco-lvis-gap subset --lvis datasets/lvis/lvis_v1_val.json \
        --coco datasets/coco/annotations/instances_val2017.json \
        --output datasets/lvis/lvis_v1_val_5k.json

`table` takes the `results.json` of an architecture fine-tuned on COCO and on LVIS, and prints AP
and differences in Markdown; the paper takes each val set entirely. `subset` writes the part of LVIS
v1 val that lies in COCO val2017, the dataset `lvis_v1_val_5k`, for a gap on the same images.
"""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.checks.findings import write_json
from eva_data.files import load_json
from eva_data.saving import require_free
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser

Scores = Mapping[str, tuple[float, float]]  # task -> AP on COCO, on LVIS
TASKS = {"bbox": "AP box", "segm": "AP mask"}
HEADS = ("COCO", "LVIS", "Δ↓")

PAPER: Mapping[str, Scores] = {  # Table 8b of arXiv 2211.07636
    "Copy-Paste (paper)": {"bbox": (57.0, 41.6), "segm": (48.9, 38.1)},
    "ViTDet-H (paper)": {"bbox": (61.3, 53.4), "segm": (53.1, 48.1)},
    "previous best of each (paper)": {"bbox": (63.2, 53.4), "segm": (54.5, 49.2)},
    "EVA, single scale (paper)": {"bbox": (64.1, 62.2), "segm": (55.0, 55.0)},
}


def read_scores(coco: Path, lvis: Path) -> dict[str, tuple[float, float]]:
    """Read the AP of each task that both evaluations have."""
    scores: list[dict[str, float]] = []
    for results in map(load_json, (coco, lvis)):
        scores.append({})
        for task in TASKS:
            with contextlib.suppress(KeyError, TypeError):  # None where nothing was found
                scores[-1][task] = float(results[task]["AP"])
    first, second = scores
    return {task: (first[task], second[task]) for task in first if task in second}


def rows_of(models: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Make the rows: name, and for each task the two APs and the gap, to a tenth of a percent."""
    rows = []
    for name, scores in models.items():
        row: dict[str, Any] = {"model": name}
        for task, (coco, lvis) in scores.items():
            values = (coco, lvis, coco - lvis)  # the APs are not rounded before
            row[task] = dict(zip(HEADS, (round(value, 1) + 0.0 for value in values), strict=True))
        rows.append(row)
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows as a Markdown table."""
    columns = [(task, head) for task in TASKS for head in HEADS]
    lines = [["model", *(f"{TASKS[task]} {head}" for task, head in columns)]]
    lines.append(["---", *("---:" for _ in columns)])
    for row in rows:
        cells = (f"{row[task][head]:.1f}" if task in row else "-" for task, head in columns)
        lines.append([row["model"], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shared_images(lvis: Mapping[str, Any], coco: Mapping[str, Any]) -> dict[str, Any]:
    """Take the part of an LVIS set whose images a COCO set has; ids are the same in both."""
    ids = {image["id"] for image in coco["images"]}
    images = [
        image for image in lvis["images"] if image["id"] in ids and "neg_category_ids" in image
    ]
    image_ids = {image["id"] for image in images}
    annotations = [
        annotation for annotation in lvis["annotations"] if annotation["image_id"] in image_ids
    ]
    return {**lvis, "images": images, "annotations": annotations}


def _table(args: argparse.Namespace) -> Result:
    paper = PAPER if args.paper else {}
    rows = rows_of({**paper, args.name: read_scores(args.coco, args.lvis)})
    echo(markdown(rows))
    return Result(rows)


def _subset(args: argparse.Namespace) -> int:
    require_free([args.output], overwrite=False)
    lvis, coco = load_json(args.lvis), load_json(args.coco)
    subset = shared_images(lvis, coco)
    if not subset["images"]:
        raise ValueError(f"{args.lvis} has no image of LVIS's format that is in {args.coco}, too")
    write_json(args.output, subset)
    echo(
        f"{args.output}: {len(subset['images'])} of {len(lvis['images'])} images, "
        f"{len(subset['annotations'])} of {len(lvis['annotations'])} objects"
    )
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True)
    table = commands.add_parser("table", help="print the gap of two evaluations")
    add = table.add_argument
    add("--coco", required=True, type=Path, help="results.json on COCO")
    add("--lvis", required=True, type=Path, help="results.json on LVIS")
    add("--name", default="this run", help="name of the row (default: %(default)s)")
    add("--paper", action="store_true", help="with the paper's rows")
    table.set_defaults(run=_table)
    subset = commands.add_parser("subset", help="write lvis_v1_val_5k.json")
    add = subset.add_argument
    add("--coco", required=True, type=Path, help="instances_val2017.json")
    add("--lvis", required=True, type=Path, help="lvis_v1_val.json")
    add("--output", required=True, type=Path, help="must not exist")
    subset.set_defaults(run=_subset)
    return parser.parse_args(arguments)


main = Command("eva detection coco-lvis-gap", parse, lambda args: args.run(args))
