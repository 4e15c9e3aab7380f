"""One handwritten digit on a photograph, and an English caption that says what is to be seen.

A caption names the digit as a word, and mostly the ground (brick, grass, gravel or a photograph),
the colour of the ink, the size and the place. Validation has no word that training has not.

* `{train,val}/{00000..}.tar`: webdataset shards of pairs `KEY.jpg` and `KEY.txt`.
* `zero_shot/CLASS/NUMBER.jpg`: other images with the digits and photographs of validation, all
  digits alike; `classnames.txt` and `templates.txt` go with it.
* `wds/`: the images of `zero_shot` in the layout of CLIP_benchmark's `wds/` datasets.
* `captions.json`: what is in each image.

Letter in shape comments: S = height and width of an image.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_demo.sources import Generator, Glyph, Split, box_of_mask, choose_paint, write_texts

# Raised whenever the same seed gives other images or captions, so that old datasets are noticed.
CAPTION_VERSION = 1

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GROUNDS: Mapping[str, str] = {  # background class -> words
    "brick": "brick",
    "grass": "grass",
    "gravel": "gravel",
    "other": "a photograph",
}
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "white": (245, 245, 245),
    "red": (215, 25, 30),
    "green": (25, 150, 45),
    "blue": (30, 60, 215),
    "yellow": (250, 225, 25),
    "orange": (250, 135, 10),
    "purple": (125, 30, 165),
    "pink": (255, 150, 200),
    "turquoise": (40, 215, 205),
}
# Height of the digit in sides of the image.
SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0.48, 0.53),
    "medium": (0.60, 0.66),
    "large": (0.74, 0.80),
}
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_TEMPLATES = (
    "a {size} {colour} {number} on {ground}, {place}",
    "a photo of a {size} number {number} in {colour} on {ground}, {place}",
    "the number {number}, {size} and {colour}, painted on {ground}, {place}",
    "{ground} with a {size} {colour} {number} {place}",
    "a handwritten {number} in {colour} ink, {size}, {place} of {ground}",
    "a {colour} digit {number} written on {ground}, {size}, {place}",
    "{place} of {ground} there is a {size} {colour} {number}",
    "on {ground}, somebody wrote a {size} {number} in {colour} {place}",
)
_SHORT = (
    "a photo of the number {number} on {ground}",
    "the number {number} in {colour}",
    "a {colour} {number} on {ground}",
    "a photo of the number {number}",
)
_SHORT_SHARE = 0.15
# With them a classifier of the ten words is made.
ZERO_SHOT_TEMPLATES = (
    "a photo of the number {}",
    "a photo of the number {} on brick",
    "a photo of the number {} on grass",
    "a photo of the number {} on gravel",
    "a photo of the number {} on a photograph",
)
_MAX_ROTATION = 12.0
_MIN_CONTRAST = 40.0  # less than in scenes: the grounds are mostly grey, the ink is not
_PAIRS_PER_SCENE = 3
_ZERO_SHOT_PER_SCENE = 2
_PAIRS_PER_SHARD = 500
_QUALITY = 93


Captioned = tuple[NDArray[np.uint8], dict[str, Any]]  # image (S, S, 3), and what is in it


class CaptionGenerator(Generator):
    """The images of one split, and what is in them."""

    def make(self, index: int) -> list[Captioned]:
        """Make the three pairs of a scene, and in validation its two zero-shot images."""
        first = index * _PAIRS_PER_SCENE
        samples = [self.digit(first + number) for number in range(_PAIRS_PER_SCENE)]
        if self.split == "val":
            first = index * _ZERO_SHOT_PER_SCENE
            numbers = range(first, first + _ZERO_SHOT_PER_SCENE)
            samples += [self.digit(number, zero_shot=True) for number in numbers]
        return samples

    def digit(self, index: int, *, zero_shot: bool = False) -> Captioned:
        """Make one image and its caption.

        Args:
            index: Number of the image, from 0; for a zero-shot image its last figure is the digit.
            zero_shot: Make an image for zero-shot evaluation, which has nothing in common with
                the pair of this number.
        """
        rng = self._random(int(zero_shot), index, CAPTION_VERSION)
        category = index % 10 if zero_shot else int(rng.integers(10))
        row = self._handwriting.row(category, rng)
        photo, image = self._photographs.crop(rng)
        size = str(rng.choice([*SIZES]))
        px = float(rng.uniform(*SIZES[size])) * self.size
        cell, glyph = self._placed(row, px, rng=rng)
        colours = rng.permutation(np.array([*COLOURS.values()], np.float32))  # (colours, 3)
        paint = choose_paint(image[glyph.mask], min_contrast=_MIN_CONTRAST, colours=colours)
        paint.apply(image, glyph)
        tint = tuple(int(value) for value in paint.tint)
        colour = next(name for name, colour_value in COLOURS.items() if colour_value == tint)
        templates = _SHORT if rng.random() < _SHORT_SHARE else _TEMPLATES
        caption = templates[rng.integers(len(templates))].format(
            number=NUMBERS[category],
            ground=GROUNDS[photo.background_class],
            colour=colour,
            size=size,
            place=cell,
        )
        return image, {
            "caption": caption,
            "digit": category,
            "digit_index": row,
            "photo": photo.name,
            "ground": photo.background_class,
            "colour": colour,
            "size": size,
            "place": cell,
            "side": self.size,
        }

    def _placed(self, row: int, px: float, *, rng: np.random.Generator) -> tuple[str, Glyph]:
        """Draw a place for a digit of `px` pixels: its words, and the digit there."""
        angle = float(rng.uniform(-_MAX_ROTATION, _MAX_ROTATION))
        cell = int(rng.integers(3)), int(rng.integers(3))  # row and column
        side = np.array([cell[1], cell[0]]) - 1  # of x and y: -1, 0 or 1
        offset = side * rng.uniform(0.7, 0.95, 2) + (side == 0) * rng.uniform(-0.15, 0.15, 2)
        middle = (self.size - 1) / 2
        trial = self._handwriting.glyph(row, px=px, angle=angle, side=self.size)
        x0, y0, x1, y1 = box_of_mask(trial.mask)  # a digit need not fill its scan, nor its middle
        room = (self.size - np.array([x1 - x0, y1 - y0])) / 2 - 1
        beside = (np.array([x0 + x1, y0 + y1]) - 1) / 2 - middle
        x, y = middle - beside + offset * room
        centre = (float(x), float(y))
        glyph = self._handwriting.glyph(row, px=px, angle=angle, side=self.size, centre=centre)
        words = "centre" if cell == (1, 1) else f"{_ROWS[cell[0]]} {_COLUMNS[cell[1]]}"
        return f"at the {words}", glyph


def export_captions(
    folder: Path, split: Split, index: int, samples: list[Captioned]
) -> list[tuple[bytes, dict[str, Any]]]:
    """Encode the images of a scene; return them with what is in them."""
    entries = []
    for image, entry in samples:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=_QUALITY, subsampling=0)
        entries.append((stream.getvalue(), entry))
    return entries


def finish_captions(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write the shards, the class folders, CLIP_benchmark's copy and `captions.json`."""
    contents: dict[str, list[dict[str, Any]]] = {}
    for split, scenes in exported.items():
        pairs = [entry for entries in scenes for entry in entries[:_PAIRS_PER_SCENE]]
        _write_shards(folder / split, pairs)
        contents[split] = [about for _, about in pairs]
    contents["zero_shot"] = []
    members: list[tuple[str, bytes]] = []
    zero_shot = [entry for entries in exported["val"] for entry in entries[_PAIRS_PER_SCENE:]]
    for number, (image, about) in enumerate(zero_shot):
        name = f"zero_shot/{NUMBERS[about['digit']]}/{number + 1:06d}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
        contents["zero_shot"].append(about | {"file": name})
        members.append((f"{number:06d}.jpg", image))
        members.append((f"{number:06d}.cls", str(about["digit"]).encode()))
    _write_tar(folder / "wds" / "test" / "0.tar", members)
    names = "".join(f"{name}\n" for name in NUMBERS)
    templates = "".join(f"{template}\n" for template in ZERO_SHOT_TEMPLATES)
    texts = {
        "captions.json": json.dumps(contents),
        "classnames.txt": names,
        "templates.txt": templates,
        "wds/test/nshards.txt": "1\n",
        "wds/classnames.txt": names,
        "wds/dataset_type.txt": "classification\n",
        "wds/zeroshot_classification_templates.txt": templates.replace("{}", "{c}"),
    }
    write_texts(folder, texts)


def _write_shards(folder: Path, pairs: list[tuple[bytes, dict[str, Any]]]) -> None:
    """Write pairs into shards as img2dataset names them; note each one's key."""
    for shard, first in enumerate(range(0, len(pairs), _PAIRS_PER_SHARD)):
        members = []
        for number, (image, entry) in enumerate(pairs[first : first + _PAIRS_PER_SHARD]):
            entry["key"] = f"{shard:05d}{number:04d}"
            members.append((f"{entry['key']}.jpg", image))
            members.append((f"{entry['key']}.txt", entry["caption"].encode()))
        _write_tar(folder / f"{shard:05d}.tar", members)


def _write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar file whose bytes depend on the members only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
