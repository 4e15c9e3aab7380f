"""Digits of the scenes as an image folder for classification: the writer and its own check.

Each digit of a scene that is mostly visible is cut out, with some of its surroundings, into
`{train,val}/CLASS/SCENE_NUMBER.png`. `digits.json` says which handwritten digit is in
each picture, from which the check proves that training and validation are disjoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, demand_disjoint

if TYPE_CHECKING:
    from eva_demo.scenes import Scene
    from eva_demo.splits import Split

_CLASSES = tuple(str(digit) for digit in range(10))
_SIDE = 64  # pixels of a picture
_VISIBLE = 0.8  # least share of a digit that later digits have not covered
_MARGIN = 0.15  # surroundings on each side, as a share of the digit's longer side


def _prepare(folder: Path, split: "Split") -> None:
    for name in _CLASSES:
        (folder / split / name).mkdir(parents=True)


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write `digits.json`."""
    digits = {
        split: {name: digit for entries in listed for name, digit in entries.items()}
        for split, listed in scenes.items()
    }
    contents = folder / "digits.json"
    contents.write_text(json.dumps(digits))
    return [contents]


def _export(folder: Path, split: "Split", index: int, scene: "Scene") -> dict[str, int]:
    """Write the digits of a scene; return which handwritten digit each file shows."""
    import numpy as np
    from PIL import Image

    picture, entries = Image.fromarray(scene.image), {}
    for number, instance in enumerate(scene.instances):
        if instance.mask.sum() < _VISIBLE * instance.full_area:
            continue
        rows, columns = np.nonzero(instance.mask)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        side = max(bottom - top, right - left) * (1 + 2 * _MARGIN)
        y, x = (top + bottom - side) / 2, (left + right - side) / 2
        # beyond the scene's edge the crop would be black, unlike any photograph
        height, width = scene.image.shape[:2]
        y, x = np.clip([y, x], 0, [max(0.0, height - side), max(0.0, width - side)])
        crop = picture.resize(
            (_SIDE, _SIDE), Image.Resampling.BICUBIC, box=(x, y, min(x + side, width), y + side)
        )
        name = f"{instance.category}/{index + 1:06d}_{number}.png"
        crop.save(folder / split / name)
        entries[name] = int(instance.digit_index)
    return entries


def _check(folder: Path) -> None:
    """Check pictures and classes against `digits.json` and the rules of the data set."""
    from PIL import Image

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
        empty = sorted(set(_CLASSES) - {name.split("/")[0] for name in entries})
        demand(not empty, f"{folder / split}: no pictures of {', '.join(empty)}")
        for name in entries:
            with Image.open(folder / split / name) as picture:
                demand(
                    (picture.size, picture.mode) == ((_SIDE, _SIDE), "RGB"),
                    f"{folder / split / name} is {picture.size} {picture.mode}, "
                    f"not {_SIDE} x {_SIDE} RGB",
                )
    demand_disjoint(folder, "digits", digits["train"].values(), digits["val"].values())


CLASS_FOLDERS = Format(_prepare, _export, _finish, _check)
