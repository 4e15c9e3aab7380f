"""Images and label maps of the same names in two folders.

This module needs neither torch nor mmsegmentation.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.files import IMAGE_SUFFIXES, find_files
from eva_data.holdout import held_out
from eva_data.images import image_size
from eva_segmentation.data.classes import ClassFile
from eva_segmentation.data.label_maps import LabelTable, read_label_map

MAPS = (".bmp", ".png", ".tif", ".tiff")  # without loss
_SAMPLE = 32  # pairs that are read before a run


class Pair(NamedTuple):
    """An image and its label map."""

    image: Path
    label_map: Path


def find_pairs(
    images: Path, maps: Path, *, image_ending: str = "", map_ending: str = ""
) -> tuple[list[Pair], list[Path], list[Path]]:
    """Pair the files of two folders by their names without ending and suffix.

    Args:
        images: Folder of images, searched through.
        maps: Folder of label maps, with the same folders inside.
        image_ending: End of the names of images, before the suffix.
        map_ending: End of the names of label maps, before the suffix.

    Returns:
        The pairs in order of their names, images without a map, and maps without an image.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If two files of a folder have the same name apart from the suffix.
    """
    pictures = _by_name(images, IMAGE_SUFFIXES, image_ending)
    labels = _by_name(maps, MAPS, map_ending)
    pairs = [Pair(pictures[name], labels[name]) for name in sorted(set(pictures) & set(labels))]
    return (
        pairs,
        [pictures[name] for name in sorted(set(pictures) - set(labels))],
        [labels[name] for name in sorted(set(labels) - set(pictures))],
    )


def _by_name(folder: Path, suffixes: Collection[str], ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for file in find_files(folder, suffixes):
        path = folder / file
        if not path.stem.endswith(ending) or path.stem == ending:
            continue
        name = Path(file).with_name(path.stem.removesuffix(ending)).as_posix()
        if name in found:
            raise ValueError(f"{found[name]} and {path} have the same name apart from the suffix")
        found[name] = path
    return found


def hold_out(pairs: Sequence[Pair], images: Path, share: float) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs by the names of their images, see `eva_data.holdout`.

    Args:
        pairs: The pairs.
        images: Folder of the images.
        share: Share that is held out.

    Returns:
        Pairs to train on and pairs to evaluate on.

    Raises:
        ValueError: If one of them would be empty.
    """
    names = (pair.image.relative_to(images).with_suffix("").as_posix() for pair in pairs)
    chosen = held_out(names, share).tolist()
    sides: tuple[list[Pair], list[Pair]] = [], []
    for pair, held in zip(pairs, chosen, strict=True):
        sides[held].append(pair)
    return sides


def check_pairs(images: Path, maps: Path, classes: ClassFile) -> list[Pair]:
    """Pair two folders and look at a sample of the files, spread evenly.

    Args:
        images: Folder of images.
        maps: Folder of label maps.
        classes: Classes of the maps.

    Returns:
        All pairs.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: Naming the first thing that is wrong.
    """
    pairs, lonely, unused = find_pairs(
        images, maps, image_ending=classes.image_ending, map_ending=classes.map_ending
    )
    if lonely or not pairs:
        first = f", such as {lonely[0]}" if lonely else ""
        example = f" ({unused[0].name} has no image)" if unused else ""
        raise ValueError(
            f"{len(lonely)} of {len(lonely) + len(pairs)} images in {images} have no label map of "
            f"the same name in {maps}{first}{example}; different ends of the names are stated as "
            "image_ending and map_ending in the class file"
        )
    table = LabelTable(classes.labels, classes.ignore)
    for index in sorted({round(i * (len(pairs) - 1) / _SAMPLE) for i in range(_SAMPLE + 1)}):
        pair = pairs[index]
        values = read_label_map(pair.label_map)
        size = image_size(pair.image, upright=True)
        if size != values.shape:
            raise ValueError(
                f"{pair.image} is {size} (height, width) and its map {pair.label_map} "
                f"{values.shape}: they must be equal"
            )
        table(values, pair.label_map)
    return pairs
