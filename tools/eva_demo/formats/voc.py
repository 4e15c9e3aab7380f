"""Digit scenes as a folder of Pascal VOC, boxes alone: the writer and its own check."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from eva_demo.formats.format import Format, demand, save_picture

if TYPE_CHECKING:
    from eva_demo.scenes import Scene
    from eva_demo.splits import Split

_FOLDERS = ("Annotations", "JPEGImages", "ImageSets/Main")


def _prepare(folder: Path, split: "Split") -> None:
    del split
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _export(folder: Path, split: "Split", index: int, scene: "Scene") -> str:
    """Write picture and annotations; return their name without suffix."""
    name = f"{split}_{index + 1:06d}"
    save_picture(scene, folder / "JPEGImages" / f"{name}.jpg")
    height, width = scene.image.shape[:2]
    lines = [
        "<annotation>",
        f"  <filename>{escape(name)}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.box.tolist()  # VOC counts from 1, and names the last pixel
        lines += [
            f"  <object><name>{instance.category}</name><difficult>0</difficult>",
            f"    <bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>",
            "  </object>",
        ]
    (folder / "Annotations" / f"{name}.xml").write_text("\n".join([*lines, "</annotation>", ""]))
    return name


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write the lists, and return them and the annotations."""
    lists = []
    for split, names in scenes.items():
        file = folder / "ImageSets" / "Main" / f"{split}.txt"
        file.write_text("".join(f"{name}\n" for name in names))
        lists.append(file)
    return [*lists, *sorted((folder / "Annotations").iterdir())]


def _check(folder: Path) -> None:
    """Read the folder as training does."""
    from eva_data.detection.coco import to_coco
    from eva_data.detection.voc import open_voc

    source = open_voc(folder)
    demand({*source.parts} == {"train", "val"}, f"{folder}: train or val is missing")
    for part in source.parts.values():
        lists = to_coco(source, part, scored=False)
        demand(not lists.unreadable, f"{folder}: {' '.join(lists.unreadable)}")
        for one in lists.annotations:
            demand(min(one["bbox"][2:]) > 0, f"{folder}: empty box in image {one['image_id']}")


VOC_BOXES = Format(_prepare, _export, _finish, _check)
