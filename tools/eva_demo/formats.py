"""What the formats of the demo data share: how one is written, and how it is checked."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Libraries for pictures are imported where they are used, so that --help comes at once.
if TYPE_CHECKING:
    from eva_demo.scenes import Scene, Split

_JPEG_QUALITY = 93


class Format(NamedTuple):
    """How one format is written into its folder, and how it is checked.

    Attributes:
        prepare: Called with folder and split; makes the folders of the split.
        export: A function of a module, called with folder, split, index and scene, for all scenes
            of a split from several processes; writes the pictures and returns what the files of
            contents say of the scene.
        finish: Called with folder and the returned values of each split, in order; writes the files
            of contents and returns them, for the manifest to record their sha256.
        check: Called with folder; raises a ValueError that names the first wrong entry.
    """

    prepare: Callable[[Path, "Split"], None]
    export: Callable[[Path, "Split", int, "Scene"], Any]
    finish: Callable[[Path, Mapping["Split", list[Any]]], list[Path]]
    check: Callable[[Path], None]


def save_picture(scene: "Scene", file: Path) -> None:
    """Write the picture of a scene as JPEG."""
    from PIL import Image

    Image.fromarray(scene.image).save(file, quality=_JPEG_QUALITY, subsampling=0)


def demand(true: bool, message: str) -> None:
    """Raise a ValueError with the message unless the first argument is true."""
    if not true:
        raise ValueError(message)


def demand_disjoint(where: Path, what: str, train: Iterable[Any], val: Iterable[Any]) -> None:
    """Raise a ValueError if training and validation have something in common.

    Args:
        where: Folder, for the message.
        what: Name of the things that are compared.
        train: Things in training scenes.
        val: Things in validation scenes.
    """
    shared = sorted(set(train) & set(val))
    demand(not shared, f"{where}: train and val share the {what} {shared}")
