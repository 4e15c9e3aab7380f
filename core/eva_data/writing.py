"""Labels as YOLO, Pascal VOC, Label Studio and CVAT read them, and other files, by templates."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray

from eva_data.files import make_folder, write_text

_TOLERANCE = 0.4  # px by which an outline that people edit may leave its mask


class Format(NamedTuple):
    """Folder of the images; files of the dataset; folder and template of those of each image."""

    images: str
    files: tuple[str, ...] = ()
    labels: str = ""
    label_file: str = ""


FORMATS: Mapping[str, Format] = {
    "coco": Format("images/train"),  # whose file `eva_report.detection_demo` writes
    "yolo": Format("images/train", ("data.yaml",), "labels/train", "yolo.txt"),
    "voc": Format("JPEGImages", (), "Annotations", "voc.xml"),
    "label-studio": Format("images", ("tasks.json", "label_config.xml")),
    "cvat": Format("images", ("annotations.xml",)),
}


def outline(mask: NDArray[Any], *, tolerance: float = 0.0) -> NDArray[np.float64]:
    """Draw around a mask (H, W), along the outer edges of its pixels, with one line.

    Several parts, and holes, are joined by lines there and back, as YOLO has one outline of an
    object. Corners are left out where that moves the line by less than `tolerance` pixels.

    Returns:
        (n, 2) x and y of its corners in pixels.
    """
    from skimage.measure import approximate_polygon, find_contours

    rings = find_contours(np.pad(mask, 1).astype(float), 0.5)  # at (row, column) of centres
    rings = [approximate_polygon(ring, tolerance) for ring in rings] if tolerance else rings
    line = np.concatenate([*rings, *(ring[:1] for ring in reversed(rings[:-1]))])
    return line[:, ::-1] - 0.5


def filled_in(template: str, **values: Any) -> str:
    """Fill in a template of the folder `templates`, which says what it takes."""
    loader = jinja2.PackageLoader("eva_data")
    environment = jinja2.Environment(loader=loader, autoescape=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template(f"{template}.j2").render(values)


def write_labels(
    folder: Path, form: str, names: Sequence[str], images: Sequence[Mapping[str, Any]]
) -> None:
    """Write labels in one of `FORMATS`.

    Images have `name`, `size` (height, width) and `objects`: with the number of a class as
    `category_id`, `bbox`, `score`, and perhaps a compressed RLE as `segmentation`.
    """
    _, files, labels, label_file = FORMATS[form]
    tolerance = 0.0 if labels else _TOLERANCE

    def described() -> Iterator[dict[str, Any]]:
        for image in images:
            objects = [_described(one, names, tolerance) for one in image["objects"]]
            yield {"name": image["name"], "size": image["size"], "objects": objects}

    masks = any("segmentation" in one for image in images for one in image["objects"])
    for file in files:
        text = filled_in(file, names=names, images=described(), masks=masks)
        write_text(folder / file, text)
    make_folder(folder / labels)
    for image in described() if labels else ():
        target = (folder / labels / image["name"]).with_suffix(Path(label_file).suffix)
        target.write_text(filled_in(label_file, **image), encoding="utf-8")


def _described(one: Mapping[str, Any], names: Sequence[str], tolerance: float) -> dict[str, Any]:
    (x, y, width, height), number, code = one["bbox"], one["category_id"], one.get("segmentation")
    line = outline(mask_api.decode(code), tolerance=tolerance).tolist() if code else []
    box = [round(value, 2) for value in (x, y, x + width, y + height)]
    about = {"number": number, "name": names[number], "score": one["score"]}
    return about | {"box": box, "line": line}
