"""The same objects as YOLO, VOC and COCO are the same dataset, whole and in tiles."""

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.tiles import Slicing

pytestmark = pytest.mark.smoke
WIDTH, HEIGHT = 220, 100
NAMES = ["cat", "dog"]
EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def boxes(draw, longest=WIDTH):
    """Draw a class and a box of whole pixels: class, left, top, width, height.

    Boxes of one pixel alone are refused as fractions of an image.
    """
    width = draw(st.integers(2, longest))
    height = draw(st.integers(2, min(longest, HEIGHT)))
    left = draw(st.integers(0, WIDTH - width))
    return draw(st.integers(0, 1)), left, draw(st.integers(0, HEIGHT - height)), width, height


def write_yolo(folder, images):
    (folder / "labels").mkdir(exist_ok=True)
    for number, objects in enumerate(images):
        lines = [
            f"{kind} {(x + w / 2) / WIDTH!r} {(y + h / 2) / HEIGHT!r} {w / WIDTH!r} {h / HEIGHT!r}"
            for kind, x, y, w, h in objects
        ]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"names: {NAMES}\ntrain: images\n")


def write_voc(folder, images):
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "JPEGImages").unlink(missing_ok=True)
    (folder / "JPEGImages").symlink_to("images")
    for number, objects in enumerate(images):
        inside = "".join(
            f"<object><name>{NAMES[kind]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for kind, x, y, w, h in objects
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        file = folder / "Annotations" / f"{number}.xml"
        file.write_text(f"<annotation><filename>{number}.jpg</filename>{size}{inside}</annotation>")


def write_coco(folder, images):
    entries = [
        {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
        for number in range(len(images))
    ]
    objects = [
        {"image_id": number, "category_id": kind + 1, "bbox": box, "area": box[2] * box[3]}
        for number, found in enumerate(images)
        for kind, *box in found
    ]
    objects = [{"id": number, "iscrowd": 0, **entry} for number, entry in enumerate(objects, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    data = {"images": entries, "annotations": objects, "categories": categories}
    (folder / "train.json").write_text(json.dumps(data))


WRITERS = {"yolo": write_yolo, "voc": write_voc, "coco": write_coco}


@pytest.fixture
def spec_of(tmp_path):
    """Function: the dataset of some images' objects in a format, as a request."""

    def write(form, images):
        folder = tmp_path / form
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(len(images)):
            file = folder / "images" / f"{number}.jpg"
            if not file.exists():
                Image.new("RGB", (WIDTH, HEIGHT)).save(file)
        for file in [*folder.glob("labels/*"), *folder.glob("Annotations/*")]:
            file.unlink()
        WRITERS[form](folder, images)
        files = {"train": (folder / "train.json", folder / "images")} if form == "coco" else {}
        paths = () if form == "coco" else (folder,)
        return DataRequest(paths=paths, files=files, parts=("train",), boxes_only=True)

    return write


def objects_of(dataset):
    """List image, class and box, moved back by the corner of its tile, of each object."""
    listed = []
    for entry in dataset.objects:
        image = dataset.images[entry["image_id"]]
        x, y, width, height = entry["bbox"]
        left, top, *_ = image.get("tile", (0, 0))
        box = [round(value, 6) for value in (x + left, y + top, width, height)]
        listed.append((image["file_name"], dataset.categories[entry["category_id"]], *box))
    return sorted(listed)


@EXAMPLES
@given(st.lists(st.lists(boxes(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_formats_agree(spec_of, images):
    expected = sorted(
        (f"{number}.jpg", NAMES[kind], *box)
        for number, objects in enumerate(images)
        for kind, *box in objects
    )
    for form in WRITERS:
        dataset = resolve(spec_of(form, images)).parts["train"]
        assert objects_of(dataset) == expected, form


@EXAMPLES
@given(st.lists(boxes(longest=20), min_size=1, max_size=5), st.sampled_from(sorted(WRITERS)))
def test_what_fits_in_the_overlap_of_tiles_is_whole_in_one(spec_of, objects, form):
    """Tiles of 100 px share 20: moved back, their objects are those of the image."""
    spec = spec_of(form, [objects])
    tiles = resolve(dataclasses.replace(spec, tile=Slicing(100, 0.2))).parts["train"]
    whole = set(objects_of(resolve(spec).parts["train"]))
    assert whole <= set(objects_of(tiles))
    for _, _, left, top, width, height in objects_of(tiles):
        assert any(
            x <= left and y <= top and left + width <= x + w and top + height <= y + h
            for _, _, x, y, w, h in whole
        )
