"""Trees of aerial photographs: trained on a whole image and on tiles, detected in both.

The photographs and boxes, drawn by hand, are those of the PyPI package deepforest 2.1.0 (MIT): 574
trees in one of 2,299 x 2,472 px for training; 377 in three smaller ones, of other places too, for
evaluation. Yields `(name, value)`: AP50 and AP of the small recipe, after some steps on tiles and a
sixth of them on the whole image, whose many trees take three times as long a step.

    python benchmarks/sliced_trees.py --iterations 180
"""

import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measuring import Figure, eva, show

from eva_runs.options import command_parser

RECIPE, SIDE = "custom/cascade_mask_rcnn_vitdet_eva_small", "256"
MOST = "dataloader.evaluator.max_dets_per_image=1000"  # COCO counts 100 an image


def measure(folder: Path, steps_on_tiles: int) -> Iterator[Figure]:
    """Train twice and evaluate four times, in a folder."""
    packages = importlib.import_module("miniature.real_data")
    packages.fetch(folder, packages.TREES_PACKAGE)
    packages.write_trees(folder / "trees", folder)
    data, tiled = ["--data", str(folder / "trees"), MOST], ["--tile", SIDE]
    for training, steps, more in (
        ("whole_image", steps_on_tiles // 6, []),
        ("tiles", steps_on_tiles, tiled),
    ):
        run = f"train.output_dir={folder / training}"
        eva("detection", "train", RECIPE, *data, *more, run, f"train.max_iter={steps}")
        for detection, cut in (("whole_images", []), ("slices", ["--slice", SIDE])):
            output = folder / f"{training}_{detection}"
            words = [str(folder / training), *data, *cut, f"train.output_dir={output}"]
            eva("detection", "evaluate", *words)
            scores = json.loads((output / "results.json").read_text())["bbox"]
            yield from ((f"{output.name} {name}", scores[name]) for name in ("AP50", "AP"))


if __name__ == "__main__":
    parser = command_parser(__doc__)
    parser.add_argument("--iterations", type=int, default=180)
    with tempfile.TemporaryDirectory() as temporary:
        show(measure(Path(temporary), parser.parse_args().iterations), rounds=1)
