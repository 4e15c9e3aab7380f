"""Pictures of detection go through the toolkit's decoder, in training, evaluation and inference."""

import pickle

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from PIL import Image

from eva_detection.data.mapper import ImageMapper, read_pixels


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_samples_are_those_of_detectron2(order, kind, tmp_path):
    """But for what that one makes white: the same pixels, orders and turns."""
    picture = Image.effect_noise((128, 96), 60).convert("RGB")
    exif = picture.getexif()
    exif[0x0112] = 6
    file = tmp_path / f"turned.{kind}"
    picture.save(file, exif=exif)
    box = {"bbox": [5, 6, 30, 40], "bbox_mode": 1, "category_id": 0}
    box["segmentation"] = [[5, 6, 35, 6, 35, 46]]
    record = {"file_name": str(file), "height": 128, "width": 96, "annotations": [box]}
    options = dict(is_train=True, augmentations=[], image_format=order, use_instance_mask=True)
    theirs = DatasetMapper(**options)(record)
    ours = pickle.loads(pickle.dumps(ImageMapper(**options)))(record)  # as in a worker
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["image"], theirs["image"])
    assert torch.equal(ours["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor)
    assert (ours["file_name"], ours["height"]) == (str(file), 128)
    pixels = theirs["image"].permute(1, 2, 0).numpy()
    assert np.array_equal(read_pixels(str(file), format=order), pixels)


def test_augmented_samples_are_those_of_detectron2(registered_demo_data):
    steps = [
        T.RandomFlip(horizontal=True),
        T.ResizeScale(min_scale=0.5, max_scale=2.0, target_height=128, target_width=128),
        T.FixedSizeCrop(crop_size=(128, 128), pad=False),
    ]
    options = dict(is_train=True, augmentations=steps, image_format="RGB", recompute_boxes=True)
    options |= dict(use_instance_mask=True, instance_mask_format="bitmask")
    mappers = ImageMapper(**options), DatasetMapper(**options)
    for number, record in enumerate(DatasetCatalog.get("digit_scenes_train")):
        samples = []
        for mapper in mappers:
            np.random.seed(number)  # noqa: NPY002 (which detectron2 draws from)
            samples.append(mapper(record))
        assert samples[0].keys() == samples[1].keys()
        assert torch.equal(samples[0]["image"], samples[1]["image"])
        first, second = (sample["instances"] for sample in samples)
        assert torch.equal(first.gt_boxes.tensor, second.gt_boxes.tensor)
        assert torch.equal(first.gt_classes, second.gt_classes)
        assert torch.equal(first.gt_masks.tensor, second.gt_masks.tensor)
