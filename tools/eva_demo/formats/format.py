"""What the formats of the demo data share: how one is written, and how it is checked."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Libraries for pictures are imported where they are used, so that --help comes at once.
if TYPE_CHECKING:
    from eva_demo.scenes import Scene, SceneGenerator
    from eva_demo.splits import Split

_JPEG_QUALITY = 93


@functools.lru_cache(maxsize=2)
def scene_generator(split: "Split", size: int, seed: int) -> "SceneGenerator":
    """Make the generator of a split, once per process; digits grow with the picture.

    Args:
        split: Split of the scenes.
        size: Height and width of a scene in pixels.
        seed: Seed of all scenes.
    """
    from eva_demo.scenes import SceneGenerator

    digit_px = (round(size * 22 / 128), round(size * 56 / 128))
    return SceneGenerator(split, size=size, digit_px=digit_px, seed=seed)


def demo_scene(split: "Split", size: int, seed: int, index: int) -> "Scene":
    """Make a scene of the demo data."""
    return scene_generator(split, size, seed).scene(index)


class Format(NamedTuple):
    """How one format is written into its folder, and how it is checked.

    Attributes:
        prepare: Called with folder and split; makes the folders of the split.
        export: A function of a module, called with folder, split, index and what `make` returned,
            for all scenes of a split from several processes; writes the pictures and returns what
            the files of contents say of the scene.
        finish: Called with folder and the returned values of each split, in order; writes the files
            of contents and returns them, for the manifest to record their sha256.
        check: Called with folder; raises a ValueError that names the first wrong entry.
        make: A function of a module, called with split, size, seed and index; makes what is
            exported.
    """

    prepare: Callable[[Path, "Split"], None]
    export: Callable[[Path, "Split", int, Any], Any]
    finish: Callable[[Path, Mapping["Split", list[Any]]], list[Path]]
    check: Callable[[Path], None]
    make: Callable[["Split", int, int, int], Any] = demo_scene


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
