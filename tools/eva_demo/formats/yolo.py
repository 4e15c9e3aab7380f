"""Digit scenes in YOLO's form, with outlines of the digits: the writer and its own check."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, save_picture

if TYPE_CHECKING:
    import numpy as np

    from eva_demo.scenes import Scene
    from eva_demo.splits import Split

_YAML = """\
# path: where train and val are; left out, it is the folder of this file
train: images/train
val: images/val
nc: 10
names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


def _prepare(folder: Path, split: "Split") -> None:
    for name in ("images", "labels"):
        (folder / name / split).mkdir(parents=True)


def outline(mask: "np.ndarray[Any, Any]") -> list[tuple[float, float]]:
    """Draw around a mask, along the outer edges of its pixels, with one line.

    Several parts, and holes, are joined by lines there and back, as YOLO has one outline of an
    object.

    Args:
        mask: (H, W), bool.

    Returns:
        x and y of its corners in pixels.
    """
    import numpy as np
    from skimage.measure import find_contours

    rings = find_contours(np.pad(mask, 1).astype(float), 0.5)  # at (row, column) of centres
    corners = [(float(x) - 0.5, float(y) - 0.5) for ring in rings for y, x in ring]
    return corners + [(float(r[0][1]) - 0.5, float(r[0][0]) - 0.5) for r in reversed(rings[:-1])]


def _export(folder: Path, split: "Split", index: int, scene: "Scene") -> Path:
    """Write the picture and its labels; return the file of the labels."""
    name = f"{index + 1:06d}"
    save_picture(scene, folder / "images" / split / f"{name}.jpg")
    height, width = scene.image.shape[:2]
    lines = []
    for instance in scene.instances:
        values = [
            f"{value:.6f}" for x, y in outline(instance.mask) for value in (x / width, y / height)
        ]
        lines.append(" ".join([str(instance.category), *values]) + "\n")
    file = folder / "labels" / split / f"{name}.txt"
    file.write_text("".join(lines))
    return file


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write `data.yaml`; return it and the files of labels."""
    file = folder / "data.yaml"
    file.write_text(_YAML)
    return [file, *(label for split in scenes.values() for label in split)]


def _check(folder: Path) -> None:
    """Read the set as training does."""
    from eva_data.detection.coco import to_coco
    from eva_data.detection.yolo import open_yolo

    demand((folder / "data.yaml").is_file(), f"{folder / 'data.yaml'} is missing")
    source = open_yolo(folder / "data.yaml")
    for part in source.parts.values():
        lists = to_coco(source, part, scored=False)
        demand(not lists.unreadable, f"{folder}: {' '.join(lists.unreadable)}")
        for one in lists.annotations:
            demand(min(one["bbox"][2:]) > 0, f"{folder}: empty box in image {one['image_id']}")


YOLO_OUTLINES = Format(_prepare, _export, _finish, _check)
