"""Trees of aerial photographs: trained on a whole image and on tiles, detected in both.

The photographs and boxes, drawn by hand, are those of the PyPI package deepforest 2.1.0 (MIT): 574
trees in one of 2,299 x 2,472 px for training; 377 in three smaller ones, of other places too, for
evaluation. Yields `(name, value)`: AP50 and AP of the small recipe, after some steps on tiles and a
sixth of them on the whole image, whose many trees take three times as long a step.

    python benchmarks/sliced_trees.py --iterations 180
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from measuring import Figure, show
from PIL import Image

IMAGES = {
    "train": ["2019_YELL_2_528000_4978000_image_crop2"],
    "val": ["2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061"],
}
RECIPE, SIDE = "custom/cascade_mask_rcnn_vitdet_eva_small", "256"
MOST = "dataloader.evaluator.max_dets_per_image=1000"  # COCO counts 100 an image


def measure(folder: Path, iterations: int) -> Iterator[Figure]:
    """Train twice and evaluate four times, in a folder."""
    words = ["download", "--no-deps", "-q", "deepforest==2.1.0", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for part, name in [(key, one) for key, names in IMAGES.items() for one in names]:
            place, inside = folder / "trees" / part / name, f"deepforest/data/{name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(io.BytesIO(wheel.read(f"{inside}.png"))) as image:  # fast to decode
                image.save(place.with_suffix(".png"), compress_level=0)
            boxes = wheel.read(f"{inside}.xml").decode()  # of one class
            boxes = re.sub("<name>.*?</name>", "<name>Tree</name>", boxes)
            place.with_suffix(".xml").write_text(boxes)
    data = ["--data", str(folder / "trees"), MOST]
    for training, steps in (("whole_image", iterations // 6), ("tiles", iterations)):
        tile = ["--tile", SIDE] if training == "tiles" else []
        run = f"train.output_dir={folder / training}"
        _eva("train", RECIPE, *data, *tile, run, f"train.max_iter={steps}")
        for detection, cut in (("whole_images", []), ("slices", ["--slice", SIDE])):
            output = folder / f"{training}_{detection}"
            _eva("evaluate", str(folder / training), *data, *cut, f"train.output_dir={output}")
            scores = json.loads((output / "results.json").read_text())["bbox"]
            yield from ((f"{output.name} {name}", scores[name]) for name in ("AP50", "AP"))


def _eva(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "eva_command", "detection", *words], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=180)
    with tempfile.TemporaryDirectory() as temporary:
        show(measure(Path(temporary), parser.parse_args().iterations), rounds=1)
