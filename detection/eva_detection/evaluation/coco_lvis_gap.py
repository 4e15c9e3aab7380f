r"""The gap between COCO and LVIS, as the paper's Table 8b, and the images that both share.

    python tools/coco_lvis_gap.py table --name EVA --paper \
        --coco output/coco/results.json --lvis output/lvis/results.json --json output/gap.json
    python tools/coco_lvis_gap.py subset --lvis datasets/lvis/lvis_v1_val.json \
        --coco datasets/coco/annotations/instances_val2017.json \
        --output datasets/lvis/lvis_v1_val_5k.json

`table` takes the `results.json` of two evaluations of one architecture, fine-tuned on COCO and on
LVIS, and prints Markdown: AP on each and their difference, of boxes and of masks. The paper takes
each val set entirely (COCO 5,000 images, LVIS v1 19,809). `subset` writes the part of LVIS v1
val that lies in COCO val2017, the data set `lvis_v1_val_5k`, for a gap on the same images.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.checks.findings import write_json
from eva_data.detection.coco import parse_json
from eva_data.files import make_folder, write_text
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import program, say

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
    """Read the AP of each task that both evaluations have.

    Args:
        coco: `results.json` on COCO.
        lvis: `results.json` on LVIS.

    Returns:
        Task -> AP on COCO and on LVIS.

    Raises:
        ValueError: If a file holds no scores, or they have no task in common.
    """
    found = [_read_ap(file) for file in (coco, lvis)]
    scores = {
        task: (found[0][task], found[1][task])
        for task in TASKS
        if task in found[0].keys() & found[1].keys()
    }
    if not scores:
        raise ValueError(
            f"{coco} has {', '.join(found[0])}, {lvis} has {', '.join(found[1])}: "
            "no task is in both"
        )
    return scores


def _read_ap(file: Path) -> dict[str, float]:
    results = parse_json(file.read_bytes(), str(file))
    aps = {}
    for task in TASKS:
        scores = results.get(task) if isinstance(results, dict) else None
        if isinstance(scores, dict) and isinstance(scores.get("AP"), int | float):
            aps[task] = float(scores["AP"])
    if not aps:
        raise ValueError(f"{file} holds no AP of boxes or masks: give the results.json of a run")
    return aps


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
    heads = [f"{label} {head}" for label in TASKS.values() for head in HEADS]
    lines = [f"| model | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for row in rows:
        cells = [
            f"{row[task][head]:.1f}" if task in row else "-" for task in TASKS for head in HEADS
        ]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shared_images(lvis: Mapping[str, Any], coco: Mapping[str, Any]) -> dict[str, Any]:
    """Take the part of an LVIS set whose images a COCO set has; ids are the same in both.

    Args:
        lvis: Content of an LVIS file.
        coco: Content of a COCO file.

    Raises:
        ValueError: If the first is not an LVIS file, or they share no image.
    """
    if not all("neg_category_ids" in image for image in lvis["images"]):
        raise ValueError("--lvis has images without neg_category_ids: give lvis_v1_val.json")
    ids = {image["id"] for image in coco["images"]}
    images = [image for image in lvis["images"] if image["id"] in ids]
    if not images:
        raise ValueError("the two sets share no image: give LVIS v1 val and COCO val2017")
    kept = {image["id"] for image in images}
    annotations = [one for one in lvis["annotations"] if one["image_id"] in kept]
    return {**lvis, "images": images, "annotations": annotations}


def make_table(args: argparse.Namespace) -> None:
    """Run the command `table`."""
    models: dict[str, Scores] = {args.name: read_scores(args.coco, args.lvis)}
    rows = rows_of(dict(PAPER) | models if args.paper else models)
    say(markdown(rows))
    if args.json:
        make_folder(args.json.parent)
        write_text(args.json, json.dumps(rows, indent=2) + "\n")


def make_subset(args: argparse.Namespace) -> None:
    """Run the command `subset`."""
    if args.output.exists():
        raise ValueError(f"{args.output} is there already: remove it or name another")
    sets = [parse_json(file.read_bytes(), str(file)) for file in (args.lvis, args.coco)]
    for file, content in zip((args.lvis, args.coco), sets, strict=True):
        if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
            raise ValueError(f"{file} has no images and annotations: it is not a data set")
    subset = shared_images(*sets)
    make_folder(args.output.parent)
    write_json(args.output, subset)
    say(
        f"{args.output}: {len(subset['images'])} of {len(sets[0]['images'])} images, "
        f"{len(subset['annotations'])} of {len(sets[0]['annotations'])} objects"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="print the gap of two evaluations")
    table.add_argument("--coco", required=True, type=Path, help="results.json on COCO")
    table.add_argument("--lvis", required=True, type=Path, help="results.json on LVIS")
    table.add_argument("--name", default="this run", help="name of the row (default: %(default)s)")
    table.add_argument("--paper", action="store_true", help="with the paper's rows")
    table.add_argument("--json", type=Path, help="write the rows to this file, too")
    table.set_defaults(run=make_table)
    subset = commands.add_parser("subset", help="write lvis_v1_val_5k.json")
    subset.add_argument("--lvis", required=True, type=Path, help="lvis_v1_val.json")
    subset.add_argument("--coco", required=True, type=Path, help="instances_val2017.json")
    subset.add_argument("--output", required=True, type=Path, help="must not exist")
    subset.set_defaults(run=make_subset)
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> int:
    for file in (args.coco, args.lvis):
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
    args.run(args)
    return 0


main = program(parse, _run, refused=1, name="coco_lvis_gap.py")


if __name__ == "__main__":
    sys.exit(main())
