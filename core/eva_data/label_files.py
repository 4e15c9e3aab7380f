"""Label files of an image: from templates, which see it as `describe_image` has it, and GeoJSON."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray

from eva_data.saving import make_folder, require_new, write_text

TOLERANCE = 0.4  # px by which an outline that people edit may leave its mask


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


def georeference_of(source: Any) -> tuple[Any, Any] | None:
    """Read transform and reference system of an image, by rasterio; None if it lacks either.

    Raises:
        ModuleNotFoundError: If rasterio is not installed.
    """
    import rasterio

    with warnings.catch_warnings(), contextlib.suppress(rasterio.errors.RasterioIOError):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(source) as dataset:
            if not dataset.transform.is_identity and dataset.crs is not None:
                return dataset.transform, dataset.crs
    return None


def write_features(folder: Path, names: Sequence[str], image: Mapping[str, Any]) -> None:
    """Write the objects of an image to `NAME.geojson`: outlines of masks, or boxes.

    Coordinates are of the image's reference system, which the file names as GDAL and QGIS read it.

    Raises:
        ValueError: If the image has no georeference.
        ModuleNotFoundError: If rasterio is not installed.
    """
    source = image.get("source")
    georeference = georeference_of(source)
    if georeference is None:
        raise ValueError(f"{source} has no georeference, which GeoJSON needs: choose another --to")
    transform, system = georeference
    authority = system.to_authority()
    name = f"urn:ogc:def:crs:{'::'.join(authority)}" if authority else system.to_wkt()
    content = {
        "type": "FeatureCollection",
        "name": image["name"],
        "crs": {"type": "name", "properties": {"name": name}},
        "features": [*_features(image["objects"], names, transform)],
    }
    make_folder(folder)
    file = require_new(folder / f"{Path(image['name']).stem}.geojson", image["name"])
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
