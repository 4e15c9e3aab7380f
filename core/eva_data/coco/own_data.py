"""Own data on a command line: `--data`, `--train-annotations` and the like."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.any_form import Found, Wanted, find
from eva_data.coco.files import CocoFile
from eva_data.holdout import check_share

PARTS = ("train", "val")
_FLAGS = tuple(f"{part}_{what}" for part in PARTS for what in ("annotations", "images"))


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data.

    Args:
        parser: Parser of a program that trains or evaluates a detector.
        training: Add the flags for training data too.
    """
    about = "any data set in the form of YOLO, Pascal VOC or COCO"
    if training:
        about += "; the training data define the classes"
    group = parser.add_argument_group("your own data", about)
    add = group.add_argument
    add(
        "--data",
        action="append",
        metavar="PATH",
        help="data.yaml of YOLO, folder of Pascal VOC, or folder of a COCO export, in place of the "
        "files and folders below; given several times, all of them together",
    )
    for part, what in (("train", "training"), ("val", "evaluation")):
        if training or part == "val":
            add(f"--{part}-annotations", metavar="FILE", help=f"COCO's JSON file for {what}")
            add(f"--{part}-images", metavar="DIR", help=f"folder of images for {what}")
    add(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="share of the training pictures to evaluate on, such as 0.1, where no others are "
        "named; chosen by their names, always the same",
    )
    add("--boxes-only", action="store_true", help="no mask head; masks are not looked at")


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that name data.

    Args:
        args: The command line with the flags of `add_arguments`, or without them.

    Raises:
        ValueError: If `--boxes-only` or `--val-share` stands alone, or flags exclude each other.
    """
    named = ("data", *_FLAGS)
    found = {flag: getattr(args, flag) for flag in named if getattr(args, flag, None)}
    share = getattr(args, "val_share", None)
    if not found and getattr(args, "boxes_only", False):
        raise ValueError("--boxes-only goes with --data, --val-annotations and the like")
    if not found and share is not None:
        raise ValueError("--val-share goes with --data, or with --train-annotations")
    if "data" in found and len(found) > 1:
        others = ", ".join(_spelled(flag) for flag in found if flag != "data")
        given = " ".join(map(str, _listed(found["data"])))
        raise ValueError(f"--data {given} names all data: leave out {others}")
    if share is not None:
        check_share(share)
        if both := [_spelled(flag) for flag in found if flag.startswith("val")]:
            raise ValueError(
                f"--val-share {share:g} takes pictures for evaluation from the training data: "
                f"leave it out, or {', '.join(both)}"
            )
    return found


def place_of_data(args: argparse.Namespace) -> str | None:
    """Return the first file or folder of own data that a command line names; None without.

    Args:
        args: The command line with the flags of `add_arguments`, or without them.
    """
    named = (getattr(args, flag, None) for flag in ("data", *_FLAGS))
    return next((str(_listed(one)[0]) for one in named if one), None)


def read_data(args: argparse.Namespace, parts: Sequence[str], *, rule: str) -> Found:
    """Read and check the data that the flags name.

    Args:
        args: The command line with the flags of `add_arguments`.
        parts: Parts that the program needs, of `PARTS`.
        rule: Sentence with the flags that go together, for the message.

    Returns:
        Files and folders by part; none without flags.

    Raises:
        ValueError: If flags are missing or the data are not right.
    """
    named = given(args)
    if not named:
        return Found(files={}, folders={})
    share = getattr(args, "val_share", None)
    files = []
    if "data" not in named:
        needed = ("train",) if share is not None else parts
        wanted = [f"{part}_{what}" for part in needed for what in ("annotations", "images")]
        missing = [_spelled(flag) for flag in wanted if flag not in named]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing: {rule}")
        for part in needed:
            file, folder = (Path(named[f"{part}_{what}"]) for what in ("annotations", "images"))
            files.append((part, file.absolute(), folder.absolute()))
    found = find(
        Wanted(
            data=_paths(named),
            files=tuple(files),
            share=share,
            boxes_only=bool(getattr(args, "boxes_only", False)),
            parts=tuple(parts),
        )
    )
    if "train" in found.files and not found.files["train"].things:
        raise ValueError(f"{found.files['train'].path} has no objects to train on, crowds aside")
    return found


def _paths(named: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the paths of `--data`, each once."""
    paths = [Path(one).absolute() for one in _listed(named.get("data", ()))]
    return tuple(dict.fromkeys(paths))


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _spelled(flag: str) -> str:
    return "--" + flag.replace("_", "-")


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
            f"first: bbox {lacking[0]['bbox']} in image {lacking[0]['image_id']}, "
            f"{file.images[lacking[0]['image_id']]['file_name']}): complete them, or train boxes "
            "alone with --boxes-only"
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
