"""Objects in the coordinates of a georeferenced image, as GeoJSON; rasterio reads these."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api

from eva_data.files import make_folder, write_text


def write_features(folder: Path, names: Sequence[str], image: Mapping[str, Any]) -> None:
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
    file = folder / f"{Path(image['name']).stem}.geojson"
    if file.exists():
        raise ValueError(f"{image['name']} and another image would both have {file.name}")
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
