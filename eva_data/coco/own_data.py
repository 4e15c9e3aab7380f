"""Own data in COCO format on a command line: `--train-annotations` and the like."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.files import CocoFile, check_images, read_coco

PARTS = ("train", "val")
_FLAGS = tuple(f"{part}_{what}" for part in PARTS for what in ("annotations", "images"))


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data.

    Args:
        parser: Parser of a program that trains or evaluates a detector.
        training: Add the flags for training data too.
    """
    about = "any data set in COCO format"
    if training:
        about += "; the training file defines the classes"
    group = parser.add_argument_group("your own data", about)
    for part, what in (("train", "training"), ("val", "evaluation")):
        if training or part == "val":
            add = group.add_argument
            add(f"--{part}-annotations", metavar="FILE", help=f"JSON file for {what}")
            add(f"--{part}-images", metavar="DIR", help=f"folder of images for {what}")
    group.add_argument(
        "--boxes-only", action="store_true", help="no mask head, even where the files have masks"
    )


def given(args: argparse.Namespace) -> dict[str, str]:
    """Return the flags that name a file or folder.

    Args:
        args: The command line with the flags of `add_arguments`, or without them.

    Raises:
        ValueError: If `--boxes-only` stands alone.
    """
    found = {flag: getattr(args, flag) for flag in _FLAGS if getattr(args, flag, None)}
    if not found and getattr(args, "boxes_only", False):
        raise ValueError("--boxes-only goes with --val-annotations and the like")
    return found


def require_flags(args: argparse.Namespace, parts: Sequence[str], *, rule: str) -> dict[str, str]:
    """Return the flags of own data; if one is given, all of some parts must be, and lead somewhere.

    Args:
        args: The command line with the flags of `add_arguments`.
        parts: Parts that the program needs, of `PARTS`.
        rule: Sentence with the flags that go together, for the message.

    Raises:
        ValueError: If flags are missing.
        FileNotFoundError: If a file or folder is not there.
    """
    named = given(args)
    wanted = [f"{part}_{what}" for part in parts for what in ("annotations", "images")]
    missing = [_flag(name) for name in wanted if named and name not in named]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: {rule}")
    for name in wanted if named else ():
        if not Path(named[name]).exists():
            raise FileNotFoundError(f"{_flag(name)} {named[name]} is not there")
    return named


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_files(
    args: argparse.Namespace, parts: Sequence[str], *, rule: str
) -> tuple[dict[str, CocoFile], dict[str, str]]:
    """Read and check the files that the flags name.

    Args:
        args: The command line with the flags of `add_arguments`.
        parts: Parts that the program needs, of `PARTS`.
        rule: Sentence with the flags that go together, for the message.

    Returns:
        Part -> file, and part -> folder of its images; nothing without flags.

    Raises:
        ValueError: If flags are missing or the files are not right.
    """
    named = require_flags(args, parts, rule=rule)
    if not named:
        return {}, {}
    files, folders = {}, {}
    for part in parts:
        folders[part] = str(Path(named[f"{part}_images"]).absolute())
        files[part] = read_coco(Path(named[f"{part}_annotations"]).absolute())
        check_images(files[part], folders[part])
    if "train" in files and not files["train"].things:
        raise ValueError(f"{files['train'].path} has no objects to train on, crowds aside")
    return files, folders


def reason_against_masks(file: CocoFile, *, training: bool) -> str | None:
    """Find out why a detector on this file cannot have masks.

    Args:
        file: The file.
        training: Whether it is trained on.

    Returns:
        The reason, or None if there is not one.

    Raises:
        ValueError: If some objects to train on have a mask and others do not.
    """
    lacking = [one for one in file.things if "segmentation" not in one]
    if training and 0 < len(lacking) < len(file.things):
        raise ValueError(
            f"{len(lacking)} of {len(file.things)} objects of {file.path} have no usable mask (the "
            f"first: bbox {lacking[0]['bbox']} in image {lacking[0]['image_id']}): complete them, "
            "or train boxes alone with --boxes-only"
        )
    return f"no object of {file.path} has a mask" if len(lacking) == len(file.things) > 0 else None


def without_masks(file: CocoFile) -> int:
    """Count the objects of a file, crowds aside, that have no usable mask."""
    return sum("segmentation" not in one for one in file.things)


def has_run_lengths(file: CocoFile) -> bool:
    """Return whether an object of a file, crowds aside, is a run-length code and not polygons."""
    return any(isinstance(one.get("segmentation"), dict) for one in file.things)


def as_annotations(file: CocoFile, categories: Mapping[int, str]) -> dict[str, Any]:
    """Return a file as scorers of COCO read it: with every category, and ids of objects from 1.

    Args:
        file: The file.
        categories: Name of each category id; the classes of the model, in order of the ids.
    """
    objects = []
    for number, one in enumerate(file.objects, start=1):  # the scorer takes id 0 for none
        x, y, width, height = one["bbox"]
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        # of a crowd; others have one or no mask AP
        objects.append({"segmentation": [corners]} | one | {"id": number})
    return {
        "images": [dict(entry) for entry in file.images.values()],
        "annotations": objects,
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
    }
