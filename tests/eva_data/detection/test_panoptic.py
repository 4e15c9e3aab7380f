"""COCO's panoptic format as own data: found, read, split and checked."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from eva_command.verify import main as verify
from eva_data.detection.panoptic import as_rgb, read_ids
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.sources import PARTS
from eva_data.detection.verify import check_parts

SIZE, KEYS = 16, (7, 300)


@pytest.fixture
def write(tmp_path):
    """Function: write both parts, an id in each half of four images; returns the folder.

    `edit` changes the content of the training file, `ids` those of its first PNG file.
    """

    def make(edit=lambda content: None, ids=lambda ids: ids):
        for part in PARTS:
            pngs = tmp_path / "annotations" / f"panoptic_{part}"
            for folder in (pngs, tmp_path / part):
                folder.mkdir(parents=True)
            images, annotations = [], []
            for key in range(1, 5):
                halves = np.repeat(np.array(KEYS), SIZE // 2)[:, None].repeat(SIZE, 1)
                halves = ids(halves) if (part, key) == ("train", 1) else halves
                pixels = Image.fromarray(as_rgb(halves))
                pixels.save(pngs / f"{key}.png")
                Image.new("RGB", (SIZE, SIZE), (9 * key, 0, 0)).save(tmp_path / part / f"{key}.jpg")
                images.append({"id": key, "file_name": f"{key}.jpg", "width": SIZE, "height": SIZE})
                segments = [{"id": 7, "category_id": 4}, {"id": 300, "category_id": 2}]
                about = {"image_id": key, "file_name": f"{key}.png", "segments_info": segments}
                annotations.append(about)
            categories = [{"id": 2, "name": "floor", "isthing": 0}]
            categories += [{"id": 4, "name": "disc", "isthing": 1}]
            content = {"images": images, "annotations": annotations, "categories": categories}
            if part == "train":
                edit(content)
            (pngs.parent / f"panoptic_{part}.json").write_text(json.dumps(content))
        return tmp_path

    return make


def test_a_folder_is_recognised_and_read(write):
    root = write()
    data = resolve(DataRequest(paths=(root,)))
    for part, dataset in data.parts.items():
        assert dataset.panoptic.things == {4}
        assert dataset.panoptic.folder == root / "annotations" / f"panoptic_{part}"
        keys = [(entry["segment_id"], entry["category_id"]) for entry in dataset.objects]
        assert keys == [(7, 4), (300, 2)] * 4
    ids = read_ids(data.parts["train"].panoptic.folder / "1.png")
    assert {*np.unique(ids)} == {*KEYS}
    with pytest.raises(ValueError, match="panoptic"):
        data.for_detector(None, masks=True)


def test_a_share_is_held_out_in_the_same_format(write, tmp_path):
    root = write()
    file = root / "annotations" / "panoptic_train.json"
    request = DataRequest(files={"train": (file, root / "train")}, val_fraction=0.5)
    placed = resolve(request).place(tmp_path / "run")
    placed.write(continues=False)
    written = [json.loads(dataset.path.read_text()) for dataset in placed.parts.values()]
    assert sum(len(part["images"]) for part in written) == 4
    for part in written:
        assert [category["isthing"] for category in part["categories"]] == [0, 1]
        assert {len(entry["segments_info"]) for entry in part["annotations"]} == {2}


FAULTS = {
    "an id without a segment": (lambda ids: np.where(ids == 7, 9, ids), "9", "id"),
    "a segment without pixels": (lambda ids: ids * 0 + 300, "7", "pixels"),
    "another size": (lambda ids: ids[:-2], "14", "size"),
}


@pytest.mark.parametrize(("ids", "value", "kind"), FAULTS.values(), ids=FAULTS)
def test_faults_of_png_files_are_named(write, ids, value, kind):
    root = write(ids=ids)
    part = next(iter(check_parts(root, boxes_only=False)))
    part.check_segments(workers=1)
    listed = {entry["kind"]: entry for entry in part.findings.as_json()}
    examples = str(listed[f"segments.{kind}"])
    assert "1.png" in examples
    assert value in examples
    assert {*part.dataset.images} == {2, 3, 4}


def _repeat(content):
    content["annotations"][0]["segments_info"][1]["id"] = 7


def _unknown(content):
    content["annotations"][0]["segments_info"][0]["category_id"] = 99


def _lacking(content):
    del content["annotations"][0]


def _outside(content):
    content["annotations"][0]["file_name"] = "../../evil.png"


LISTS = [(_repeat, "segment 7 of 1.png"), (_unknown, "99"), (_lacking, "images[0]")]


@pytest.mark.parametrize(("edit", "value"), [*LISTS, (_outside, "../../evil.png")])
def test_faults_of_the_list_are_named(write, edit, value):
    with pytest.raises(ValueError, match=r"panoptic_train\.json") as error:
        resolve(DataRequest(paths=(write(edit=edit),)))
    assert value in str(error.value)


def test_other_options_are_refused(write):
    with pytest.raises(ValueError, match="boxes-only"):
        resolve(DataRequest(paths=(write(),), boxes_only=True))


def test_a_cleaned_copy_is_data_again(write, tmp_path):
    root, clean = write(ids=FAULTS["another size"][0]), tmp_path / "clean"
    assert verify(["coco", "--data", str(root), "--write", str(clean), "--workers", "1"]) == 1
    files = {part: (clean / f"{part}.json", root / part) for part in PARTS}
    dataset = resolve(DataRequest(files=files)).parts["train"]
    assert {*dataset.images} == {2, 3, 4}
    pngs = [dataset.panoptic.folder / name for name in dataset.panoptic.files.values()]
    assert [{*np.unique(read_ids(file))} for file in pngs] == [{*KEYS}] * 3


def test_a_cleaned_copy_stays_in_its_folder(write, tmp_path):
    root = write(edit=_outside)
    shutil.copy(root / "annotations" / "panoptic_train" / "1.png", root / "evil.png")
    clean = tmp_path / "a" / "clean"
    assert verify(["coco", "--data", str(root), "--write", str(clean), "--workers", "1"]) == 1
    assert [*(tmp_path / "a").rglob("evil.png")] == []
    assert {image["id"] for image in json.loads((clean / "train.json").read_text())["images"]} == {
        *(2, 3, 4)
    }
