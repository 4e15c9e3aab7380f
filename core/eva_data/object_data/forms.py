"""The form of a data set that a path leads to: YOLO, Pascal VOC, or an export in COCO format."""

from pathlib import Path

from eva_data.object_data.coco_exports import Places, find_exports
from eva_data.object_data.content import LabelledPictures, Report, refuse
from eva_data.object_data.voc_sets import VocPictures, find_voc
from eva_data.object_data.yolo_sets import YAML, YoloPictures, find_yaml

FORMS = (
    "a data.yaml of YOLO or its folder, a folder of Pascal VOC (Annotations, JPEGImages), or a "
    "folder of COCO files (train/_annotations.coco.json, or annotations/instances_train.json)"
)


def open_data(path: Path, *, report: Report = refuse) -> LabelledPictures | Places:
    """Find out what a path leads to, and open it.

    Args:
        path: A `data.yaml`, or a folder.
        report: Receives what is wrong with a label of VOC; by default it is raised.

    Returns:
        A reader of YOLO or VOC; or "train" and "val" -> file in COCO format and its pictures.

    Raises:
        ValueError: If it is something else, or something in it is not right.
    """
    try:
        if path.is_dir():
            return _open_folder(path, report)
        if path.is_file() and path.suffix.lower() in YAML:
            return YoloPictures(path)
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".json" and path.is_file():
        raise ValueError(
            f"{path} is a file in COCO format, and not a folder: name it with --train-annotations "
            "or --val-annotations, beside --train-images and --val-images"
        )
    what = "is not" if path.exists() else "is not there; it must be"
    raise ValueError(f"{path} {what} {FORMS}")


def _open_folder(folder: Path, report: Report) -> LabelledPictures | Places:
    if exports := find_exports(folder):
        return exports
    if (voc := find_voc(folder)) is not None:
        return VocPictures(voc, report=report)
    if (description := find_yaml(folder)) is not None:
        return YoloPictures(description)
    hint = ""
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        hint = "; for YOLO, write a data.yaml into it with names, train and val"
    raise ValueError(f"{folder} is not {FORMS}{hint}")
