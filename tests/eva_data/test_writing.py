"""Labels as other programs read them: masks and boxes, names of any letters, folders of images."""

import copy
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pycocotools.mask as mask_api
import pytest
from PIL import Image

from eva_data.detection.coco import read_coco
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.writing import regions_of, writing_dataset

NAMES = ["a <b>", 'é "q" 😀']
CATEGORIES = {3: NAMES[0], 7: NAMES[1]}
SIZE = (40, 60)


def _mask(lines, size=SIZE):
    """Mask of an outline, holes and all."""
    return mask_api.decode(mask_api.frPyObjects([np.ravel(lines).tolist()], *size))[..., 0]


@pytest.fixture
def images():
    mask = np.zeros(SIZE, np.uint8)
    mask[5:20, 10:30] = 1
    mask[10:14, 15:20] = 0
    mask[30:38, 40:55] = 1
    code = mask_api.encode(np.asfortranarray(mask))
    whole = {"category_id": 1, "bbox": [10.0, 5.0, 45.0, 33.0], "score": 0.9}
    whole["segmentation"] = {**code, "counts": code["counts"].decode()}
    box = {"category_id": 0, "bbox": [1.0, 2.0, 3.5, 4.0], "score": 0.5}
    one = {"name": "a & b.png", "size": SIZE, "objects": [whole]}
    return mask, [one, {"name": "c/d.png", "size": SIZE, "objects": [box]}]


def write(output, form, given):
    """Write labels and their images; return the folder."""
    content = io.BytesIO()
    Image.new("RGB", SIZE[::-1]).save(content, "PNG")
    with writing_dataset(output, form, CATEGORIES) as add:
        for one in given:
            add(one | {"source": content.getvalue()})
    return output / form


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_label_studio_has_predictions_in_percent(images, tmp_path):
    mask, given = images
    folder = write(tmp_path, "label-studio", given)
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [one["data"]["image"].partition("=")[2] for one in tasks] == [
        "images/a%20%26%20b.png", "images/c__d.png"
    ]  # fmt: skip
    (outline,), (box,) = (one["predictions"][0]["result"] for one in tasks)
    assert outline["value"]["polygonlabels"] == [NAMES[1]]
    assert _iou(_mask(np.array(outline["value"]["points"]) * [0.6, 0.4]), mask) > 0.9
    found = [box["value"][key] for key in ("x", "y", "width", "height")]
    assert found == pytest.approx([100 / 60, 5, 350 / 60, 10])


def test_cvat_has_boxes_and_polygons_in_pixels(images, tmp_path):
    mask, given = images
    folder = write(tmp_path, "cvat", given)
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    assert [one.get("name") for one in root.iter("image")] == ["a & b.png", "c__d.png"]
    (polygon,), (box,) = root.iter("polygon"), root.iter("box")
    points = [[*map(float, one.split(","))] for one in polygon.get("points").split(";")]
    assert _iou(_mask(points), mask) > 0.9
    assert [float(box.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")] == [1, 2, 4.5, 6]
    assert [polygon.get("label"), box.get("label")] == [NAMES[1], NAMES[0]]


@pytest.mark.parametrize("form", ["cvat", "label-studio", "fiftyone"])
def test_what_is_written_for_a_label_program_is_trained_on(form, images, tmp_path):
    mask, (one, other) = images
    for number, image in enumerate((one, other)):
        folder = write(tmp_path / str(number), form, [image])
        data = resolve(DataRequest(paths=(folder,), parts=("train",))).parts["train"]
        (entry,), (found,) = data.images.values(), data.objects
        assert Path(data.folder, entry["file_name"]).is_file()
        (expected,) = image["objects"]
        assert [*data.categories.values()] == NAMES
        assert data.categories[found["category_id"]] == NAMES[expected["category_id"]]
        assert found["bbox"] == pytest.approx(expected["bbox"], abs=0.01)
        if "segmentation" in found:
            code = found["segmentation"]
            code = mask_api.frPyObjects(code, *SIZE)[0] if isinstance(code, list) else code
            assert _iou(mask_api.decode(code), mask) > 0.9
        assert ("segmentation" in found) == (number == 0)


CVAT = """<annotations><image name="a.png" width="60" height="40">
<tag label="night" source="manual"></tag>
<mask label="cat" rle="1, 2, 2, 1" left="3" top="2" width="3" height="2"></mask>
<{0} label="cat" points="1,1;5,1;5,5" cx="1" rotation="{1}" xtl="1" ytl="2" xbr="3" ybr="4"></{0}>
</image></annotations>"""


def test_masks_of_cvat_are_read_and_shapes_without_an_area_are_named(tmp_path):
    write(tmp_path, "cvat", [{"name": "a.png", "size": SIZE, "objects": []}])
    request = DataRequest(paths=(tmp_path / "cvat",), parts=("train",))
    for kind, rotation in (("polyline", 0), ("box", 30.5)):
        (tmp_path / "cvat/annotations.xml").write_text(CVAT.format(kind, rotation))
        with pytest.raises(ValueError, match=rf"a\.png.*2.*{kind}"):
            resolve(request)
    (tmp_path / "cvat/annotations.xml").write_text(CVAT.format("polygon", 0))
    data = resolve(request).parts["train"]
    assert [*data.categories.values()] == ["cat"]
    rows, columns = np.nonzero(mask_api.decode(data.objects[0]["segmentation"]))
    assert [*zip(rows.tolist(), columns.tolist(), strict=True)] == [(2, 4), (2, 5), (3, 5)]


BOX = '<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4"></box>'
MASK = '<mask label="cat" rle="{}" left="0" top="0" width="{}" height="{}"></mask>'
IMAGE = '<image name="{}" width="60" height="40">{}</image>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (IMAGE.format("turned.jpg", BOX), r"turned\.jpg: .* 60 x 40 .*EXIF.* 40 x 60"),
        (IMAGE.format("a.png", BOX).replace("60", "600"), r"a\.png: .* 600 x 40 .* 60 x 40"),
        (IMAGE.format("a.png", BOX) * 2, r"a\.png.*listed once"),
        (IMAGE.format("../a.png", BOX), r"\.\./a\.png"),
        (IMAGE.format("/etc/hostname", BOX), "/etc/hostname"),
        (IMAGE.format("a.png", MASK.format(4 * 10**10, 200_000, 200_000)), r"a\.png.*200000"),
        (IMAGE.format("a.png", MASK.format(9, 3, 4)), r"a\.png, object 1: .*3 x 4"),
        (f'<track label="cat">{BOX}</track>', "CVAT for video"),
    ],
)
def test_labels_of_cvat_that_are_not_of_the_image(content, message, tmp_path):
    folder = write(tmp_path, "cvat", [{"name": "a.png", "size": SIZE, "objects": []}])
    turned = Image.Exif()
    turned[0x0112] = 6  # upright by a quarter turn
    Image.new("RGB", SIZE[::-1]).save(folder / "images/turned.jpg", exif=turned)
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "a.png")
    (folder / "annotations.xml").write_text(f"<annotations>{content}</annotations>")
    with pytest.raises(ValueError, match=message):
        resolve(DataRequest(paths=(folder,), parts=("train",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tasks: tasks * 2, r"task 2: .*c__d\.png.*listed once"),
        (
            lambda tasks: tasks[0]["predictions"][0]["result"][0].update(original_width=30),
            "30 x 40",
        ),
        (lambda tasks: tasks[0]["predictions"][0]["result"][0].update(image_rotation=90), "90"),
    ],
)
def test_labels_of_label_studio_that_are_not_of_the_image(change, message, images, tmp_path):
    folder = write(tmp_path, "label-studio", images[1][1:])
    tasks = json.loads((folder / "tasks.json").read_text())
    (folder / "tasks.json").write_text(json.dumps(change(tasks) or tasks))
    with pytest.raises(ValueError, match=message):
        resolve(DataRequest(paths=(folder,), parts=("train",)))


def test_what_label_studio_exports_beside_shapes_is_left_out(images, tmp_path):
    folder = write(tmp_path, "label-studio", images[1][1:])
    (task,) = json.loads((folder / "tasks.json").read_text())
    answer = {"type": "choices", "value": {"choices": ["night"]}}
    result = [answer, *task["predictions"][0]["result"]]
    data = {"id": "17", "photo": task["data"]["image"] + "?token=1", "note": "of May"}
    tasks = [{"data": data, "annotations": [{"result": result}], "predictions": [5]}]
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8-sig")
    data = resolve(DataRequest(paths=(folder,), parts=("train",))).parts["train"]
    assert [one["bbox"] for one in data.objects] == [[1, 2, 3.5, 4]]


def test_the_last_word_in_label_studio_is_a_person_s(images, tmp_path):
    folder = write(tmp_path, "label-studio", images[1][1:])
    (task,) = json.loads((folder / "tasks.json").read_text())
    result = copy.deepcopy(task["predictions"][0]["result"])
    result[0]["value"]["rectanglelabels"] = [NAMES[1]]
    task["annotations"] = [{"result": [], "was_cancelled": True}, {"result": result}]
    exported = folder / "project-1.json"
    exported.write_text(json.dumps([task]))
    data = resolve(DataRequest(paths=(exported,), parts=("train",))).parts["train"]
    assert [data.categories[one["category_id"]] for one in data.objects] == [NAMES[1]]
    result[0]["type"] = "brushlabels"
    exported.write_text(json.dumps([task]))
    with pytest.raises(ValueError, match=r"1.*1.*brushlabels"):
        resolve(DataRequest(paths=(exported,), parts=("train",)))
    exported.write_text('[{"annotations": []}]')
    with pytest.raises(ValueError, match=r"task 1: .*data"):
        resolve(DataRequest(paths=(exported,), parts=("train",)))


def test_tasks_of_label_studio_that_nobody_labelled_are_no_empty_images(images, tmp_path):
    folder = write(tmp_path, "label-studio", images[1])
    tasks = json.loads((folder / "tasks.json").read_text())
    del tasks[0]["predictions"]
    tasks[0]["annotations"] = [{"result": [], "was_cancelled": True}]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    data = resolve(DataRequest(paths=(folder,), parts=("train",))).parts["train"]
    assert len(data.images) == len(tasks) - 1


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_images_with_one_label_file_are_refused(form, images, tmp_path):
    given = [images[1][0] | {"name": name} for name in ("a.jpg", "a.png")]
    with pytest.raises(ValueError, match=r"a\.png"):
        write(tmp_path, form, given)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_images_with_one_name_are_refused_and_stay(form, images, tmp_path):
    files = [tmp_path / "photos/a/b.png", tmp_path / "photos/a__b.png"]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]))

    def label():
        with writing_dataset(tmp_path / "labelled", form, CATEGORIES) as add:
            for name, file in zip(("a/b.png", "a__b.png"), files, strict=True):
                add(images[1][0] | {"name": name, "source": str(file)})

    with pytest.raises(ValueError, match=r"a__b\.png"):
        label()
    assert [file.read_bytes() for file in files] == [b"\0", b"\1"]


def test_paths_above_do_not_hide_images(images, tmp_path):
    (one, _), name = images[1], "../photos/./é\udcff.png"
    place = write(tmp_path, "yolo", [one | {"name": name}]) / "images/train"
    (file,) = place.iterdir()
    assert file.name.startswith("photos__é")


def test_keypoints_are_labels_that_are_read_again(images, tmp_path):
    """Points without a score worth a label are not labelled; predictions keep the scores."""
    box = {"category_id": 0, "bbox": [1.0, 2.0, 30.0, 20.0], "score": 0.9}
    box["keypoints"] = [3.5, 4.0, 0.7, 9.0, 8.0, 0.01]
    image = images[1][0] | {"objects": [box]}
    points = KeypointNames(names=("nose", "tail"))
    with writing_dataset(tmp_path, "coco", CATEGORIES, keypoints=points) as add:
        add(image)
    labels = read_coco(tmp_path / "coco/annotations/instances_train.json")
    assert labels.keypoints == points
    assert [entry["keypoints"] for entry in labels.objects] == [[3.5, 4.0, 2, 0, 0, 0]]


def test_stuff_is_one_segment_and_things_are_counted(tmp_path):
    classes = np.zeros(SIZE, int)
    classes[:, 20:40] = 1  # parts both others in two
    classes[:20, 50:] = classes[30:, 50:] = 2
    names = {1: "sky", 2: "road", 3: "car"}
    image = {"name": "a.png", "size": SIZE, "objects": regions_of(classes, 3)}
    with writing_dataset(tmp_path, "coco-panoptic", names, regions=True, things={2}) as add:
        add(image)
    labels = read_coco(tmp_path / "coco-panoptic/annotations/panoptic_train.json")
    areas = [(entry["category_id"], entry["area"]) for entry in labels.objects]
    assert sorted(areas) == [(1, 1300), (2, 800), (3, 100), (3, 200)]


def test_a_box_is_no_segment(images, tmp_path):
    with pytest.raises(ValueError, match="mask"):
        write(tmp_path, "coco-panoptic", images[1])
