"""Digit scenes as semantic maps in ADE20K's layout: the writer and its own check.

The four kinds of background and the digits are the five classes. Label 0 is unlabelled, as in
ADE20K: the pixels around a digit, where JPEG mixes both. `classes.toml` names the labels, and
`scenes.json` says what is in each picture, from which the check proves that training and
validation are disjoint.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, demand_disjoint, save_picture

if TYPE_CHECKING:
    from eva_demo.scenes import Scene
    from eva_demo.splits import Split

_FOLDERS: Mapping["Split", str] = {"train": "training", "val": "validation"}  # ADE20K's names
COLORS: Mapping[str, tuple[int, int, int]] = {  # labels 1, 2, ...
    "brick": (178, 82, 62),
    "grass": (74, 160, 44),
    "gravel": (140, 140, 150),
    "other": (52, 101, 164),
    "digit": (252, 200, 20),
}
UNLABELLED = 0


def _prepare(folder: Path, split: "Split") -> None:
    for kind in ("images", "annotations"):
        (folder / kind / _FOLDERS[split]).mkdir(parents=True)


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write `classes.toml` and `scenes.json`."""
    names, contents = folder / "classes.toml", folder / "scenes.json"
    names.write_text(_class_file())
    contents.write_text(json.dumps({_FOLDERS[split]: listed for split, listed in scenes.items()}))
    return [names, contents]


def _class_file() -> str:
    """Make the text that `segmentation/train.py --classes` reads."""
    head = f"ignore = [{UNLABELLED}]  # labels without a class\n"
    entries = (
        f'\n[[classes]]\nlabel = {number}\nname = "{name}"\ncolor = {list(color)}\n'
        for number, (name, color) in enumerate(COLORS.items(), start=1)
    )
    return head + "".join(entries)


def _export(folder: Path, split: "Split", index: int, scene: "Scene") -> dict[str, Any]:
    """Write picture and map of a scene; return its entry in `scenes.json`."""
    import cv2
    import numpy as np
    from PIL import Image

    name = f"{index + 1:06d}"
    labels = list(COLORS)
    digits = np.any([instance.mask for instance in scene.instances], axis=0)
    around = cv2.dilate(digits.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    label_map = np.full(digits.shape, labels.index(scene.background_class) + 1, np.uint8)
    label_map[around] = UNLABELLED
    label_map[digits] = labels.index("digit") + 1
    save_picture(scene, folder / "images" / _FOLDERS[split] / f"{name}.jpg")
    Image.fromarray(label_map).save(folder / "annotations" / _FOLDERS[split] / f"{name}.png")
    return {
        "name": name,
        "photo": scene.background,
        "digits": [instance.digit_index for instance in scene.instances],
        "pixels": np.bincount(label_map.ravel(), minlength=len(labels) + 1).tolist(),
    }


def _check(folder: Path) -> None:
    """Check the maps against the pictures, `scenes.json` and the rules of the data set."""
    for name in ("classes.toml", "scenes.json"):
        demand((folder / name).is_file(), f"{folder / name} is missing")
    classes = tomllib.loads((folder / "classes.toml").read_text())["classes"]
    found = {entry["name"]: entry["label"] for entry in classes}
    wanted = {name: number for number, name in enumerate(COLORS, start=1)}
    demand(found == wanted, f"{folder / 'classes.toml'}: labels are {found}, not {wanted}")
    scenes = json.loads((folder / "scenes.json").read_text())
    photos: dict[str, set[str]] = {}
    digits: dict[str, set[int]] = {}
    for split in _FOLDERS.values():
        for entry in scenes[split]:
            _check_scene(folder, split, entry)
        names = {entry["name"] for entry in scenes[split]}
        for kind in ("images", "annotations"):
            more = sorted({path.stem for path in (folder / kind / split).iterdir()} - names)
            demand(not more, f"{folder / kind / split}: {more} are not in scenes.json")
        photos[split] = {entry["photo"] for entry in scenes[split]}
        digits[split] = {index for entry in scenes[split] for index in entry["digits"]}
    demand_disjoint(folder, "photographs", photos["training"], photos["validation"])
    demand_disjoint(folder, "digits", digits["training"], digits["validation"])


def _check_scene(folder: Path, split: str, entry: Mapping[str, Any]) -> None:
    """Check one picture and its map."""
    import numpy as np
    from PIL import Image

    picture_file = folder / "images" / split / f"{entry['name']}.jpg"
    map_file = folder / "annotations" / split / f"{entry['name']}.png"
    for path in (picture_file, map_file):
        demand(path.is_file(), f"{path} is missing")
    with Image.open(picture_file) as picture, Image.open(map_file) as stored:
        demand(stored.mode == "L", f"{map_file} has mode {stored.mode}, not L (8-bit labels)")
        demand(
            picture.size == stored.size,
            f"{map_file} is {stored.size}, but its picture is {picture.size}",
        )
        pixels = np.bincount(np.asarray(stored).ravel(), minlength=len(COLORS) + 1).tolist()
    demand(
        pixels == entry["pixels"],
        f"{map_file} has {pixels} pixels of labels 0, 1, ..., not {entry['pixels']}",
    )


SEMANTIC_MAPS = Format(_prepare, _export, _finish, _check)
