"""Tiles of large images: the grid, detection in tiles, objects of training data cut to them."""

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray

from eva_data.detection.datasets import CocoDataset, Entry
from eva_data.detection.keypoints import move_keypoints

Tile = tuple[int, int, int, int]  # x, y, width, height in px
Array = NDArray[Any]

_AT_ONCE = 4  # tiles on a GPU; CPUs are faster with one
_LEAST = 0.3  # of an object's area; what a border leaves less of is ignored
_SAME = 0.5  # IoU of two boxes of an object, or what a whole one covers of a cut one
_NEAR = 0.02  # of a tile's side: a box so close to a seam may be cut by it
_AUTO = 1.5  # of the training size, above which "auto" slices


@dataclass(frozen=True)
class Slicing:
    """Tiles of a `size` in px, of which neighbours have at least a fraction `overlap` in common.

    Images whose longer side is at most `above` px, or the size, are left whole.
    """

    size: int
    overlap: float = 0.2
    above: float = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < 1:
            raise ValueError(f"no tiles of {self.size} px with an overlap of {self.overlap}")

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Cover an image with tiles, row by row."""
        if max(height, width) <= max(self.above, self.size):
            return [(0, 0, width, height)]
        stride = max(1, int(self.size * (1 - self.overlap)))
        sides = (windows(side, window=self.size, stride=stride) for side in (height, width))
        return [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in product(*sides)]


def add_slicing(parser: argparse.ArgumentParser) -> None:
    """Add `--slice` and `--overlap`, which look at large images in tiles."""

    def pixels(value: str) -> int | str:
        return value if value == "auto" else int(value)

    help_text = (
        'look at large images in tiles of this side, too; "auto": of the training size, where '
    )
    help_text += "images are more than 1.5 times as large"
    side = parser.add_argument("--slice", type=pixels, metavar="PIXELS", help=help_text)
    add_overlap(parser, "--overlap", side)


def add_overlap(parser: Any, name: str, side: argparse.Action) -> None:
    """Add the overlap of tiles, to a parser or a group; with it, their side is required."""

    class Overlap(argparse.Action):
        def __call__(self, _: Any, options: argparse.Namespace, value: Any, *_rest: Any) -> None:
            side.required = True
            setattr(options, self.dest, value)

    help_text = "least fraction of a tile that its neighbour has, too (default: %(default)s)"
    parser.add_argument(
        name, action=Overlap, type=float, default=0.2, metavar="FRACTION", help=help_text
    )


def read_slicing(size: int | str, overlap: float, *, training: int, patch: int) -> Slicing:
    """Read `--slice` and `--overlap` for a model of a training size and a patch in px."""
    pixels = training if size == "auto" else int(size)
    if pixels < patch:
        raise ValueError(f"--slice {size}: {pixels} px are less than the model's patch of {patch}")
    return Slicing(pixels, overlap, _AUTO * training if size == "auto" else 0)


def windows(size: int, *, window: int, stride: int) -> list[slice]:
    """Place windows along a side; the last one ends at the border, so it may overlap more."""
    last = max(size - window, 0)
    starts = [*range(0, last, stride), last]
    return [slice(start, min(start + window, size)) for start in starts]


def detect_in_tiles(
    run: Callable[[Sequence[Tile]], Sequence[Any]],
    tiles: Sequence[Tile],
    *,
    device: Any,
    join: Callable[[list[Any]], Any],
    fields: Callable[[Any], Sequence[Any]],
) -> Any:
    """Detect in tiles, and in the image, which alone has large objects whole: each object once.

    `run` detects in some tiles, fewer where memory ends, in coordinates of the image; `join` joins
    what was found; `fields` are its boxes (n, 4), x0, y0, x1, y1, scores and classes, as tensors.
    """
    *_, (x, y, width, height) = tiles
    views = [*tiles, (0, 0, x + width, y + height)]
    detections, most = list[Any](), 1 if device.type == "cpu" else _AT_ONCE
    while len(detections) < len(views):
        batch = views[len(detections) : len(detections) + most]
        try:
            detections += run(batch)
        except RuntimeError as error:
            if len(batch) == 1 or type(error).__name__ != "OutOfMemoryError":
                raise
            most = len(batch) // 2
    joined = join(detections)
    origins = np.repeat(
        np.arange(len(views)), [len(tile_detections) for tile_detections in detections]
    )
    boxes, scores, classes = (field.cpu().numpy() for field in fields(joined))
    return joined[_suppress(boxes, scores, classes, origins, np.array(views, float))]


def _suppress(boxes: Array, scores: Array, classes: Array, origins: Array, views: Array) -> Array:
    """Suppress boxes of other tiles; those that a seam cuts come last and go when half covered."""
    views[:, 2:] += views[:, :2]
    near = _NEAR * (views[:, 2:] - views[:, :2]).max(1, keepdims=True)[origins]
    cut = ((np.abs(boxes - views[origins]) <= near) & (views != views[-1])[origins]).any(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    waiting, selected = np.lexsort((-scores, cut)), list[int]()
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        selected.append(best)
        ends = np.minimum(boxes[best, 2:], boxes[waiting, 2:])
        common = (ends - np.maximum(boxes[best, :2], boxes[waiting, :2])).clip(0).prod(1)
        same = common > _SAME * (areas[best] + areas[waiting] - common)
        same |= cut[waiting] & (common > _SAME * areas[waiting])
        other = (origins[waiting] != origins[best]) & (classes[waiting] == classes[best])
        waiting = waiting[~(same & other)]
    indices = np.array(selected, int)
    return indices[np.argsort(-scores[indices], kind="stable")]


def tile_dataset(dataset: CocoDataset, slicing: Slicing) -> CocoDataset:
    """View the large images of a dataset as tiles: an entry for each, with `tile` to be cropped.

    An object less than 30 % of which is in a tile is a crowd there. Masks become RLEs.
    """
    if dataset.whole is not None:
        return dataset
    objects_of: dict[int, list[Entry]] = defaultdict(list)
    for annotation in dataset.objects:
        objects_of[annotation["image_id"]].append(annotation)
    images, objects = dict[int, Entry](), list[Entry]()
    for key, entry in dataset.images.items():
        boxes = np.array([annotation["bbox"] for annotation in objects_of[key]]).reshape(-1, 4)
        for tile in slicing.tiles(entry["height"], entry["width"]):
            (x, y, width, height), number = tile, len(images) + 1
            images[number] = entry | {"id": number, "width": width, "height": height, "tile": tile}
            inside = boxes[:, :2] < (x + width, y + height)
            inside &= boxes[:, :2] + boxes[:, 2:] > (x, y)
            for index in np.flatnonzero(inside.all(1)):
                part = _part(objects_of[key][index], tile)
                objects += [part | {"image_id": number}] if part["area"] else []
    return dataclasses.replace(dataset, images=images, objects=objects, whole=dataset)


def _part(annotation: Entry, tile: Tile) -> Entry:
    """Cut an object to a tile, in whose coordinates it is then."""
    low, sides = np.array(annotation["bbox"]).reshape(2, 2)
    start = np.maximum(low - tile[:2], 0)
    size = np.minimum(low + sides - tile[:2], tile[2:]) - start
    share, new = float(size.prod() / sides.prod()), dict[str, Any]()
    mask = annotation.get("segmentation")
    if mask:
        first = np.floor(low).astype(int)
        whole = _window(mask, (*first, *np.ceil(low + sides - first).astype(int)))
        new["segmentation"] = code = _window(mask, tile)
        share = float(mask_api.area(code)) / max(1, mask_api.area(whole))
    if "keypoints" in annotation:
        new["keypoints"] = move_keypoints(annotation["keypoints"], tile)
    crowd = int(annotation["iscrowd"] or share < _LEAST)
    new |= {"bbox": [*start.tolist(), *size.tolist()], "area": annotation["area"] * share}
    return annotation | new | {"iscrowd": crowd}


def encode_mask(mask: Array) -> dict[str, Any]:
    """Encode a mask (H, W) as a compressed RLE."""
    code: dict[str, Any] = mask_api.encode(np.asfortranarray(mask, np.uint8))
    return code | {"counts": code["counts"].decode()}


def _window(mask: Any, tile: Any) -> Any:
    """Encode what is in a tile of polygons or of an RLE of an image."""
    x, y, width, height = map(int, tile)
    if isinstance(mask, dict):
        return encode_mask(mask_api.decode(mask)[max(y, 0) : y + height, max(x, 0) : x + width])
    moved = [(np.reshape(polygon, (-1, 2)) - (x, y)).ravel().tolist() for polygon in mask]
    code = mask_api.merge(mask_api.frPyObjects(moved, height, width))
    return code | {"counts": code["counts"].decode()}
