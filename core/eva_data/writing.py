"""Labels as YOLO, Pascal VOC, COCO and annotation programs read them, and other templates."""

import contextlib
import itertools
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.panoptic import as_rgb
from eva_data.detection.tiles import encode_mask
from eva_data.files import printable
from eva_data.saving import link_or_copy, make_folder, replace_file, replace_folder, write_text

TOLERANCE = 0.4  # px by which an outline that people edit may leave its mask
_LEAST_AREA = 16  # px
_LEAST_POINT = 0.05  # score of a keypoint that is labelled, as detectron2 draws them
_NO_OBJECTS = ("background", "other", "unlabeled", "unlabelled", "void")  # names of classes


class Format(NamedTuple):
    """Folder of the images; files of the dataset; folder and template of those of each image."""

    images: str
    files: tuple[str, ...] = ()
    labels: str = ""
    label_file: str = ""
    coco: str = ""  # file in COCO's format


FORMATS: Mapping[str, Format] = {
    "coco": Format("images/train", coco="annotations/instances_train.json"),
    "coco-panoptic": Format("images/train", coco="annotations/panoptic_train.json"),
    "yolo": Format("images/train", ("data.yaml",), "labels/train", "yolo.txt"),
    "voc": Format("JPEGImages", (), "Annotations", "voc.xml"),
    "label-studio": Format("images", ("tasks.json", "label_config.xml")),
    "cvat": Format("images", ("annotations.xml",)),
    "geojson": Format("features"),  # in the coordinates of georeferenced images, without these
    "fiftyone": Format("data", coco="labels.json"),
}


def entries_of(form: str) -> set[str]:
    """Name the files and folders of a dataset: a key of `FORMATS`, or "maps" of label maps."""
    if form == "maps":
        return {"images", "maps", "classes.toml"}
    about = FORMATS[form]
    places = about.images, *about.files, about.labels, about.coco
    return {path.partition("/")[0] for path in places if path}


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


def render_template(template: str, **values: Any) -> str:
    """Fill in a template of the folder `templates`, which says what it takes."""
    loader = jinja2.PackageLoader("eva_data")
    environment = jinja2.Environment(loader=loader, autoescape=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template(f"{template}.j2").render(values)


def is_seen(item: Mapping[str, Any]) -> bool:
    """Return whether an object has a pixel at least, which formats need."""
    mask = item.get("segmentation")
    return bool(min(item["bbox"][2:]) >= 1 and (not mask or mask_api.area(mask)))


def is_object(name: str) -> bool:
    """Return whether objects are of a class, and not the background of a segmentor's."""
    return name.strip().lower() not in _NO_OBJECTS


def regions_of(classes: NDArray[Any], count: int) -> list[dict[str, Any]]:
    """Make an object of each connected region of a class below `count` (H, W), from 16 px on."""
    from skimage.measure import label, regionprops

    parts, objects = label(classes, background=-1, connectivity=1), list[dict[str, Any]]()
    for region in regionprops(parts):
        number = int(classes[tuple(region.coords[0])])
        if number < count and region.area >= _LEAST_AREA:
            code = encode_mask(parts == region.label)
            about = {"category_id": number, "bbox": mask_api.toBbox(code).tolist()}
            objects.append(about | {"segmentation": code})
    return objects


@contextlib.contextmanager
def writing_dataset(
    output: Path,
    form: str | None,
    categories: Mapping[int, str],
    *,
    regions: bool = False,
    keypoints: KeypointNames | None = None,
    things: Collection[int] | None = None,
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write images with their objects to `output / form`, which is there at the end; None: nothing.

    `categories` are ids and names in the model's order. Of `regions`, which a segmentor finds,
    those of its background are left out. `things` are indices of classes, in the panoptic format;
    None for all.

    Yields:
        A function that adds an image, as that of `writing_predictions`; its `source`, a file or
        content, becomes part of the dataset.

    Raises:
        ValueError: If two images have one name (`a/b.jpg`, `a__b.jpg`) or one label file (`a.jpg`,
            `a.png`).
    """
    if form is None:
        yield lambda image: None
        return
    written = [not regions or is_object(name) for name in categories.values()]
    numbers = [number for number, is_written in enumerate(written) if is_written]
    categories = dict(itertools.compress(categories.items(), written))
    about, names, records = FORMATS[form], [*categories.values()], list[dict[str, Any]]()
    with replace_folder(output / form) as folder, contextlib.ExitStack() as stack:
        for subfolder in (about.images, about.labels):
            make_folder(folder / subfolder)
        if form == "coco-panoptic":
            kinds = [not regions if things is None else number in things for number in numbers]
            writer = writing_segments(folder / about.coco, categories, kinds)
            to_coco = stack.enter_context(writer)
        elif about.coco:
            writer = writing_predictions(folder / about.coco, categories, keypoints=keypoints)
            to_coco = stack.enter_context(writer)

        def add(image: Mapping[str, Any]) -> None:
            parts = (
                part for part in re.split("[/:]", image["name"]) if part not in ("", ".", "..")
            )
            name = printable("__".join(parts)).lstrip(".")  # no hidden file
            objects = [
                _with_visibility({**item, "category_id": numbers.index(item["category_id"])})
                for item in image["objects"]
                if item["category_id"] in numbers
            ]
            image = {**image, "name": name, "objects": objects}
            if form == "geojson":
                _write_features(folder / about.images, names, image)
                return
            path = _require_new(folder / about.images / name, name)
            if about.coco:
                to_coco({**image, "objects": filter(is_seen, image["objects"])})
            elif about.labels:
                target = (folder / about.labels / name).with_suffix(about.label_file[-4:])
                _require_new(target, name)
                content = render_template(
                    about.label_file, **describe_image(image, names, tolerance=0.0)
                )
                target.write_text(content, encoding="utf-8")
            else:
                records.append(describe_image(image, names))
            source = image.get("source")
            if isinstance(source, bytes):
                path.write_bytes(source)
            elif source:
                link_or_copy(Path(source), path)

        yield add
        masks = any(item["line"] for image in records for item in image["objects"])
        for file in about.files:
            write_text(
                folder / file, render_template(file, names=names, images=records, masks=masks)
            )


def _require_new(file: Path, name: str) -> Path:
    """Return a file for an image; a ValueError if another image has it."""
    if file.exists():
        raise ValueError(f"{name} and another image would both have {file.name}")
    return file


def _with_visibility(item: dict[str, Any]) -> dict[str, Any]:
    """Write 2, of a visible keypoint, for the score of each; all 0 where that is too low."""
    if "keypoints" in item:
        x, y, score = np.reshape(item["keypoints"], (-1, 3)).T
        labelled = score >= _LEAST_POINT
        points = np.stack([x, y, np.full_like(score, 2)], axis=1) * labelled[:, None]
        item |= {"keypoints": points.ravel().tolist(), "num_keypoints": int(labelled.sum())}
    return item


def _write_features(folder: Path, names: Sequence[str], image: Mapping[str, Any]) -> None:
    """Write the objects of an image to `NAME.geojson`: outlines of masks, or boxes.

    Coordinates are of the image's reference system, which the file names as GDAL and QGIS read it.

    Raises:
        ValueError: If the image has no georeference.
        ModuleNotFoundError: If rasterio is not installed.
    """
    import rasterio

    source = image.get("source")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(source) as dataset:
            transform, system = dataset.transform, dataset.crs
    if transform.is_identity or system is None:
        raise ValueError(f"{source} has no georeference, which GeoJSON needs: choose another --to")
    authority = system.to_authority()
    name = f"urn:ogc:def:crs:{'::'.join(authority)}" if authority else system.to_wkt()
    content = {
        "type": "FeatureCollection",
        "name": image["name"],
        "crs": {"type": "name", "properties": {"name": name}},
        "features": [*_features(image["objects"], names, transform)],
    }
    make_folder(folder)
    file = _require_new(folder / f"{Path(image['name']).stem}.geojson", image["name"])
    write_text(file, json.dumps(content) + "\n")


def _features(
    objects: Sequence[Mapping[str, Any]], names: Sequence[str], transform: Any
) -> Iterator[dict[str, Any]]:
    from rasterio.features import shapes

    for item in objects:
        x, y, width, height = item["bbox"]
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        a, b, c, d, e, f = transform[:6]
        parts = [[[[a * px + b * py + c, d * px + e * py + f] for px, py in corners]]]
        mask = mask_api.decode(item["segmentation"]) if item.get("segmentation") else None
        if mask is not None and mask.any():
            drawn = shapes(mask.astype(np.uint8), mask=mask > 0, transform=transform)
            parts = [geometry["coordinates"] for geometry, _ in drawn]
        score = {} if item.get("score") is None else {"score": round(item["score"], 6)}
        yield {
            "type": "Feature",
            "properties": {"class": names[item["category_id"]], **score},
            "geometry": {"type": "MultiPolygon", "coordinates": parts},
        }


@contextlib.contextmanager
def writing_segments(
    file: Path, categories: Mapping[int, str], things: Sequence[bool]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write objects with masks in COCO's panoptic format: PNG files in a folder beside the file.

    Of masks that overlap, the one with the higher score has the pixels; `things` says which of the
    `categories` are counted: each object of them is a segment, and all of another class are one.

    Yields:
        A function that adds an image, as that of `writing_predictions`.
    """
    ids, images, annotations = [*categories], list[dict[str, Any]](), list[dict[str, Any]]()
    folder = file.with_suffix("")
    make_folder(folder)

    def add(image: Mapping[str, Any]) -> None:
        key, (height, width) = len(images) + 1, image["size"]
        segments = np.zeros((height, width), np.int64)
        name = Path(image["name"]).with_suffix(".png").name
        _require_new(folder / name, image["name"])
        masked = sorted(image["objects"], key=lambda item: item.get("score") or 0)
        if not all("segmentation" in item for item in masked):
            raise ValueError(
                f"{image['name']} has an object without a mask, which is no segment: choose a "
                "model with masks, or another --to"
            )
        labels = [item["category_id"] for item in masked]
        keys = [(label, index * things[label]) for index, label in enumerate(labels, start=1)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
        for segment, item in zip(keys, masked, strict=True):
            segments[mask_api.decode(item["segmentation"]) > 0] = numbers[segment]
        described = [
            {"id": number, "category_id": ids[label], "iscrowd": 0} | _measure(segments == number)
            for (label, _), number in numbers.items()
            if (segments == number).any()
        ]
        Image.fromarray(as_rgb(segments)).save(folder / name)
        images.append({"id": key, "file_name": image["name"], "width": width, "height": height})
        annotations.append({"image_id": key, "file_name": name, "segments_info": described})

    yield add
    entries = [
        {"id": key, "name": name, "isthing": int(is_thing)}
        for (key, name), is_thing in zip(categories.items(), things, strict=True)
    ]
    content = {"images": images, "annotations": annotations, "categories": entries}
    write_text(file, json.dumps(content))


def _measure(mask: NDArray[np.bool_]) -> dict[str, Any]:
    code = encode_mask(mask)
    return {"area": int(mask_api.area(code)), "bbox": mask_api.toBbox(code).tolist()}


@contextlib.contextmanager
def writing_predictions(
    file: Path, categories: Mapping[int, str], *, keypoints: KeypointNames | None = None
) -> Iterator[Callable[..., None]]:
    """Write predictions to a COCO file, which appears under its name at the end.

    `pycocotools.COCO` reads it as an annotation file, whose objects have a score. `categories` are
    ids and names in the model's order, which list the `keypoints`.

    Yields:
        A function that adds an image: its `name`, `size` (height, width) and `objects`, with the
        index of a class as `category_id`, `bbox` (x, y, width, height), and perhaps `score` and a
        compressed RLE as `segmentation`; and further fields of its entry.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    ids, count, number_of = list(categories), itertools.count(1), itertools.count(1)

    def add(image: Mapping[str, Any], **entry: Any) -> None:
        image_id, (height, width) = next(number_of), image["size"]
        about = {"id": image_id, "file_name": image["name"], **entry}
        about |= {"width": width, "height": height}
        images.write((", " if image_id > 1 else "") + json.dumps(about))
        for detection in image["objects"]:
            mask, box = detection.get("segmentation"), detection["bbox"]
            area = float(mask_api.area(mask)) if mask else box[2] * box[3]
            number = next(count)
            annotation = {
                "id": number,
                "image_id": image_id,
                **detection,
                "area": area,
                "iscrowd": 0,
            }
            annotation["category_id"] = ids[detection["category_id"]]
            stream.write(",\n" if number > 1 else "\n")
            json.dump(annotation, stream)

    with (
        replace_file(file) as part,
        part.open("w", encoding="utf-8") as stream,
        tempfile.TemporaryFile("w+", encoding="utf-8") as images,  # of any number
    ):
        stream.write('{"annotations": [')
        yield add
        points = keypoints.as_json() if keypoints else {}
        entries = [{"id": key, "name": name, **points} for key, name in categories.items()]
        stream.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
        stream.write('],\n"categories": ' + json.dumps(entries) + "}\n")


def describe_image(
    image: Mapping[str, Any], names: Sequence[str], *, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Describe an image for the templates: each object with its name, box, outline and score."""
    objects = list[dict[str, Any]]()
    for item in filter(is_seen, image["objects"]):
        (x, y, width, height), number = item["bbox"], item["category_id"]
        code = item.get("segmentation")
        line = outline(mask_api.decode(code), tolerance=tolerance).tolist() if code else []
        box = [round(value, 2) for value in (x, y, x + width, y + height)]
        about = {"number": number, "name": names[number], "score": item.get("score")}
        objects.append(about | {"box": box, "line": line})
    return {"name": image["name"], "size": image["size"], "objects": objects}
