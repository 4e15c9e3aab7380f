"""What the demo recipe trains on: registration, and augmented ground truth that is right."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, detection_utils

from eva_detection.data import datasets

DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug"
ROUNDS = 6  # augmentations of each image

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")


@pytest.fixture
def mapper(load_config):
    return instantiate(load_config(DEMO).dataloader.train.mapper)


@pytest.fixture
def samples(mapper, registered_demo_data):
    """(entry, what the mapper made of it) of every training image, a few times."""
    np.random.seed(0)  # noqa: NPY002  (detectron2's augmentations draw from it)
    entries = DatasetCatalog.get("digit_scenes_train")
    return [(entry, mapper(entry)) for _ in range(ROUNDS) for entry in entries]


def _bounds(mask):
    rows, columns = torch.where(mask)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_boxes_are_the_bounds_of_the_masks(samples):
    instances = [sample["instances"] for _, sample in samples]
    assert sum(map(len, instances)) > 100
    for one in instances:
        masks = one.gt_masks.tensor
        assert masks.shape[1:] == one.image_size
        for box, mask in zip(one.gt_boxes.tensor, masks, strict=True):
            assert (box - _bounds(mask)).abs().max() <= 0.5
            assert mask.sum() > 4


def test_masks_are_not_filled_by_padding(samples):
    """`FixedSizeCrop(pad=True)` fills bitmasks with 255: a "digit" as large as the image."""
    for entry, sample in samples:
        one = sample["instances"]
        assert sample["image"].shape[1:] == one.image_size
        largest = max(max(annotation["bbox"][2:]) for annotation in entry["annotations"])
        for box, mask in zip(one.gt_boxes.tensor, one.gt_masks.tensor, strict=True):
            assert (box[2:] - box[:2]).max() <= 1.25 * largest + 2
            assert mask.float().mean() < 0.35


def test_digits_stay_with_their_pixels_and_classes(samples):
    """The mask of a class is where that class's ink was, moved and scaled like the image."""
    checked = 0
    for entry, sample in samples:
        image = detection_utils.read_image(entry["file_name"], format="RGB")
        one = sample["instances"]
        if len(one) != len(entry["annotations"]):
            continue  # one was cropped away
        classes = [annotation["category_id"] for annotation in entry["annotations"]]
        assert one.gt_classes.tolist() == classes
        for annotation, mask in zip(entry["annotations"], one.gt_masks.tensor, strict=True):
            before = image[_decode(annotation)].mean(0)
            after = sample["image"].permute(1, 2, 0).numpy()[mask.numpy()].mean(0)
            ranks = np.argsort(before), np.argsort(after)  # of brightness in R, G, B
            clear = np.ptp(before) > 40
            checked += clear
            assert not clear or (ranks[0] == ranks[1]).all()
    assert checked > 50


def _decode(annotation):
    from pycocotools import mask

    return mask.decode(annotation["segmentation"]).astype(bool)


def test_nothing_is_mirrored(samples):
    """A flip would turn digits into other signs: a crop of the scaled original matches best."""
    for entry, sample in samples[:8]:
        image = detection_utils.read_image(entry["file_name"], format="RGB")
        seen = sample["image"].permute(1, 2, 0).numpy()
        scores = [_best_match(original, seen) for original in (image, image[:, ::-1])]
        assert scores[0] > 0.85 > scores[1] + 0.1


def _best_match(image, seen):
    """Correlation of the middle of `seen` with the image at the scales of the jitter."""
    height, width = seen.shape[:2]
    template = seen[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    best = -1.0
    for side in range(100, 162, 4):
        scaled = cv2.resize(np.ascontiguousarray(image), (side, side))
        scores = cv2.matchTemplate(scaled, np.ascontiguousarray(template), cv2.TM_CCOEFF_NORMED)
        best = max(best, float(scores.max()))
    return best


def test_no_mapped_sample_is_shared_with_the_data_set(mapper, registered_demo_data):
    entry = DatasetCatalog.get("digit_scenes_train")[0]
    before = repr(entry)
    mapper(entry)
    assert repr(entry) == before


def test_validation_is_not_augmented(load_config, registered_demo_data):
    loader = instantiate(load_config(DEMO).dataloader.test)
    samples = [sample for batch in loader for sample in batch]
    entries = DatasetCatalog.get("digit_scenes_val")
    assert len(samples) == len(entries) == 6
    for sample, entry in zip(samples, entries, strict=True):
        image = detection_utils.read_image(entry["file_name"], format="RGB")
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), image)
        assert sample["image_id"] == entry["image_id"]


def test_contact_sheet_of_augmented_ground_truth(samples, tmp_path):
    """A picture to look at; this test only proves that it shows something."""
    tiles = [_draw(sample) for _, sample in samples[:16] + samples[-8:]]
    rows = [np.hstack(tiles[start : start + 6]) for start in range(0, 24, 6)]
    file = tmp_path / "ground_truth.png"
    assert cv2.imwrite(str(file), np.vstack(rows)[:, :, ::-1])
    assert cv2.imread(str(file)).shape == (4 * 256, 6 * 256, 3)


def _draw(sample):
    canvas = np.zeros((128, 128, 3), np.uint8)
    image = sample["image"].permute(1, 2, 0).numpy()
    canvas[: image.shape[0], : image.shape[1]] = image
    canvas = canvas.repeat(2, axis=0).repeat(2, axis=1)
    one = sample["instances"]
    for box, mask, label in zip(
        one.gt_boxes.tensor, one.gt_masks.tensor, one.gt_classes, strict=True
    ):
        big = mask.numpy().astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        outlines, _ = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, (255, 0, 255), 1)
        x0, y0, x1, y1 = (2 * box).int().tolist()
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), (0, 255, 0), 1)
        cv2.putText(canvas, str(label), (x0 + 2, y0 + 14), 0, 0.5, (255, 255, 0), 1)
    return canvas


def test_the_root_is_detectron2s(monkeypatch, register_below):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/somewhere/else")
    assert datasets.dataset_root() == Path("/somewhere/else")
    register_below(datasets.dataset_root())
    for name in ("digit_scenes_train", "digit_scenes_val", "objects365_v2_train"):
        entry = MetadataCatalog.get(name)
        assert entry.json_file.startswith("/somewhere/else/")
        assert entry.image_root.startswith("/somewhere/else/")
        assert entry.evaluator_type == "coco"
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert datasets.dataset_root() == Path.home() / "data"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert datasets.dataset_root() == Path("datasets")


@pytest.mark.parametrize(
    ("version", "folder", "file"),
    [
        ("v1", "objects365_v1", "objects365_{split}.json"),
        ("v2", "objects365", "zhiyuan_objv2_{split}.json"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_objects365_as_released(register_below, tmp_path, version, folder, file, split):
    """Both versions lie side by side; classes follow the ids, whatever the order in the file."""
    register_below(tmp_path)
    name = f"objects365_{version}_{split}"
    annotations = tmp_path / folder / "annotations" / file.format(split=split)
    annotations.parent.mkdir(parents=True)
    box = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [box],
        "categories": [{"id": 2, "name": "second"}, {"id": 1, "name": "first"}],
    }
    annotations.write_text(json.dumps(content))
    (entry,) = DatasetCatalog.get(name)
    assert entry["file_name"] == str(tmp_path / folder / split / "a.jpg")
    assert entry["annotations"][0]["category_id"] == 1
    assert MetadataCatalog.get(name).thing_classes == ["first", "second"]


def test_a_users_own_registration_is_left_alone(register_below, tmp_path):
    register_below(tmp_path)
    datasets.register_all(tmp_path / "another")
    folder = Path(MetadataCatalog.get("digit_scenes_train").image_root)
    assert folder == tmp_path / "digit_scenes" / "coco" / "train"


def test_what_the_demo_data_holds(registered_demo_data):
    entries = DatasetCatalog.get("digit_scenes_train")
    assert len(entries) == 16
    assert MetadataCatalog.get("digit_scenes_train").thing_classes == [str(i) for i in range(10)]
    for entry in entries:
        assert Path(entry["file_name"]).is_file()
        assert {annotation["category_id"] for annotation in entry["annotations"]} <= set(range(10))
