"""Objects of georeferenced images as GeoJSON."""

import json

import numpy as np
import pytest
from PIL import Image

from eva_data.detection.tiles import encode_mask
from eva_data.writing import writing_dataset

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's
CATEGORIES = {1: "tree", 2: "house"}


@pytest.fixture
def field(tmp_path):
    """A GeoTIFF of 5 bands, 2 m a pixel, whose corner is at 400,000 east and 5,000,000 north."""
    file = tmp_path / "field.tif"
    settings = {"width": 30, "height": 20, "count": 5, "dtype": "uint16", "crs": "EPSG:32633"}
    transform = rasterio.transform.from_origin(400_000, 5_000_000, 2, 2)
    with rasterio.open(file, "w", driver="GTiff", transform=transform, **settings) as dataset:
        dataset.write(np.ones((5, 20, 30), np.uint16))
    return file


def _write(output, source, objects):
    with writing_dataset(output, "geojson", CATEGORIES) as add:
        add({"name": source.name, "source": source, "size": (20, 30), "objects": objects})
    return json.loads((output / "geojson/features/field.geojson").read_text())


def test_boxes_and_masks_are_in_the_image_s_coordinates(field, tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:8, 4:10] = 1
    mask[4:6, 6:8] = 0  # a hole
    objects = [
        {"category_id": 0, "bbox": [10, 5, 4, 3], "score": 0.75},
        {"category_id": 1, "bbox": [4, 2, 6, 6], "segmentation": encode_mask(mask > 0)},
    ]
    content = _write(tmp_path, field, objects)
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    box, region = content["features"]
    assert box["properties"] == {"class": "tree", "score": 0.75}
    ((ring,),) = box["geometry"]["coordinates"]
    assert ring[0] == [400_020, 4_999_990]
    assert ring[2] == [400_028, 4_999_984]
    assert region["properties"] == {"class": "house"}
    ((outer, hole),) = region["geometry"]["coordinates"]
    assert sorted({x for x, _ in outer}) == [400_008, 400_020]
    assert sorted({y for _, y in hole}) == [4_999_988, 4_999_992]


def test_an_image_without_georeference_is_named(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "field.png")
    with pytest.raises(ValueError, match=r"field.png"):
        _write(tmp_path, tmp_path / "field.png", [])
