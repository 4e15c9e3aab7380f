"""Folders that hold files in COCO format and their pictures, by the usual names.

`train/_annotations.coco.json` with the pictures beside it and `valid/` (Roboflow), or
`annotations/instances_train*.json` with `train*/` or `images/train*/` (COCO, CVAT).
"""

from pathlib import Path

_BESIDE = "_annotations.coco.json"
_FOLDERS = {"train": ("train",), "val": ("valid", "val", "validation")}
_STEMS = {"train": ("train", "default"), "val": ("val", "valid")}

Places = dict[str, tuple[Path, Path]]


def find_exports(folder: Path) -> Places:
    """Find the files of a folder.

    Args:
        folder: The folder.

    Returns:
        "train", "val" and, without the latter, "test", as far as they are there -> annotation file
        and folder of pictures.

    Raises:
        ValueError: If a file is there and its folder of pictures is not, or two files may be meant.
    """
    found: Places = {}
    for part, names in _FOLDERS.items():
        for name in names:
            if part not in found and (folder / name / _BESIDE).is_file():
                found[part] = folder / name / _BESIDE, folder / name
    if found and "val" not in found and (folder / "test" / _BESIDE).is_file():
        found["test"] = folder / "test" / _BESIDE, folder / "test"
    if (folder / _BESIDE).is_file() and not found:
        found["train"] = folder / _BESIDE, folder
    return found or _of_annotations(folder)


def _of_annotations(folder: Path) -> Places:
    found: Places = {}
    for part, stems in _STEMS.items():
        files = [
            file
            for stem in stems
            for file in sorted((folder / "annotations").glob(f"instances_{stem}*.json"))
        ]
        if part == "val":  # "val" begins "valid" too
            files = list(dict.fromkeys(files))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(
                f"{folder / 'annotations'} holds {names}: name one with --{part}-annotations and "
                f"its pictures with --{part}-images"
            )
        if files:
            found[part] = files[0], _pictures_of(folder, files[0])
    return found


def _pictures_of(folder: Path, file: Path) -> Path:
    name = file.stem.removeprefix("instances_")
    places = [folder / name, folder / "images" / name, folder / "images"]
    for place in places:
        if place.is_dir():
            return place
    raise ValueError(
        f"the pictures of {file} are not in {' or '.join(map(str, places))}: name their folder "
        "with --train-images or --val-images, and the file with --train-annotations or "
        "--val-annotations"
    )
