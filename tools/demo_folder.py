"""Digits of the scenes as an image folder for classification: the writer and its own check.

Each digit of a scene that is mostly visible is cut out, with some of its surroundings, into
``folder/{train,val}/CLASS/SCENE_NUMBER.png``. ``digits.json`` says which handwritten digit is in
each picture, from which the check proves that training and validation are disjoint.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from demo_coco import MapScenes, demand

if TYPE_CHECKING:
    from digit_scenes import Scene, Split

CLASSES = tuple(str(digit) for digit in range(10))
SIDE = 64  # pixels of a picture
VISIBLE = 0.8  # least share of a digit that later digits have not covered
MARGIN = 0.15  # surroundings on each side, as a share of the digit's longer side


def write_folder(root: Path, counts: Mapping["Split", int], map_scenes: MapScenes) -> list[Path]:
    """Writes ``root/folder/{train,val}/CLASS/*.png`` and ``digits.json``.

    Args:
        root: the folder of the data set.
        counts: number of scenes of each split.
        map_scenes: yields ``export(index, scene)`` of all scenes of a split, in order.

    Returns:
        The file ``digits.json``.
    """
    folder = root / "folder"
    digits: dict[str, dict[str, int]] = {}
    for split in counts:
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
        export = functools.partial(_export_scene, folder / split)
        digits[split] = {}
        for entries in map_scenes(split, export):
            digits[split].update(entries)
    contents = folder / "digits.json"
    contents.write_text(json.dumps(digits))
    return [contents]


def _export_scene(folder: Path, index: int, scene: "Scene") -> dict[str, int]:
    """Writes the digits of scene ``index``; returns which handwritten digit each file shows."""
    import numpy as np
    from PIL import Image

    picture, entries = Image.fromarray(scene.image), {}
    for number, instance in enumerate(scene.instances):
        if instance.mask.sum() < VISIBLE * instance.full_area:
            continue
        rows, columns = np.nonzero(instance.mask)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        side = max(bottom - top, right - left) * (1 + 2 * MARGIN)
        y, x = (top + bottom - side) / 2, (left + right - side) / 2
        # beyond the scene's edge the crop would be black, which no photograph is
        height, width = scene.image.shape[:2]
        y, x = np.clip([y, x], 0, [max(0.0, height - side), max(0.0, width - side)])
        crop = picture.resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC, box=(x, y, min(x + side, width), y + side)
        )
        name = f"{instance.category}/{index + 1:06d}_{number}.png"
        crop.save(folder / name)
        entries[name] = int(instance.digit_index)
    return entries


def check_folder(root: Path) -> None:
    """Checks pictures and classes.

    Args:
        root: the folder of the data set.

    Raises:
        ValueError: naming the first file that is wrong, and what is wrong with it.
    """
    from PIL import Image

    folder = root / "folder"
    demand((folder / "digits.json").is_file(), f"{folder / 'digits.json'} is missing")
    digits = json.loads((folder / "digits.json").read_text())
    for split, entries in digits.items():
        found = {
            path.relative_to(folder / split).as_posix() for path in folder.glob(f"{split}/*/*")
        }
        different = sorted(found ^ set(entries))
        demand(
            not different, f"{folder / split}: {different[:1]} not both on disk and in digits.json"
        )
        empty = sorted(set(CLASSES) - {name.split("/")[0] for name in entries})
        demand(not empty, f"{folder / split}: no pictures of {', '.join(empty)}")
        for name in entries:
            with Image.open(folder / split / name) as picture:
                demand(
                    (picture.size, picture.mode) == ((SIDE, SIDE), "RGB"),
                    f"{folder / split / name} is {picture.size} {picture.mode}, "
                    f"not {SIDE} x {SIDE} RGB",
                )
    shared = sorted(set(digits["train"].values()) & set(digits["val"].values()))
    demand(not shared, f"{folder}: both splits have the digits {shared}")
