"""Detection in tiles in mmdetection: predictor and evaluation, and detections for others."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from PIL import Image

from eva_data.detection.coco import read_coco
from eva_data.detection.tiles import Slicing, tile_dataset
from eva_mmdetection.commands import evaluate
from eva_mmdetection.inference.predictor import Predictor


@pytest.fixture(scope="module")
def build(tiny_run):
    """Function: the predictor of a tiny run with some options."""
    return lambda **options: Predictor.from_config(
        tiny_run, device="cpu", score_threshold=0.02, **options
    )


@pytest.fixture(scope="module")
def large():
    """A picture of two by two tiles of 64 px, the training size."""
    return np.random.default_rng(1).integers(0, 256, (100, 110, 3), dtype=np.uint8)


def _same(first, second):
    names = ("bboxes", "scores", "labels", "masks")
    return all(torch.equal(first[name], second[name]) for name in names)


def test_slices_of_one_tile_change_nothing(build, large):
    assert _same(build(slice=110)(large), build()(large))
    assert not _same(build(slice="auto")(large), build()(large))
    assert all(_same(one, build()(large)) for one in build()([large, large]))
    assert _same(build(slice="auto")(large[:90, :96]), build()(large[:90, :96]))


def test_slices_find_what_their_tiles_and_the_image_show(build, large):
    plain, sliced = build(), build(slice=64)
    found = sliced(large)
    alone = [(plain(large[y : y + 64, x : x + 64]), x, y) for y in (0, 36) for x in (0, 46)]
    alone.append((plain(large), 0, 0))
    boxes = torch.cat([one.bboxes + torch.tensor([x, y, x, y]) for one, x, y in alone])
    assert (found.bboxes[:, None] - boxes).abs().amax(2).amin(1).max() < 1e-3
    assert found.masks.shape == (len(found), 100, 110)
    assert len(found) > len(plain(large))
    assert len(sliced.in_coco_format(large)) == len(found)


def test_detections_of_supervision(build, large):
    supervision = pytest.importorskip("supervision")
    found = build()(large)
    ours = found[:3].to_supervision()
    names = ours.data.pop("class_name").tolist()
    sample = type("Sample", (), {"pred_instances": found[:3]})
    assert ours == supervision.Detections.from_mmdetection(sample)
    assert names == [build().names[label] for label in found.labels[:3]]


def test_evaluation_with_slices(tiny, tiny_run, launch, mmengine_runs, tmp_path):
    """A train of two pictures side by side is cut; its scores stand in the results."""
    annotations = json.loads((tiny / "annotations/instances_val.json").read_text())
    for one in annotations["images"]:
        image = np.asarray(Image.open(tiny / "val" / one["file_name"]))
        Image.fromarray(np.concatenate([image, image], 1)).save(tmp_path / one["file_name"])
        one["width"] *= 2
    (tmp_path / "val.json").write_text(json.dumps(annotations))
    words = (tiny_run, "--val-annotations", tmp_path / "val.json", "--val-images", tmp_path)
    found = {}
    for name, options in (("sliced", ("--slice", 64)), ("whole", ())):
        out = tmp_path / name
        launch(evaluate, *words, *options, "--work-dir", out / "run", "--out", out)
        found[name] = json.loads((out / "predictions.segm.json").read_text())
    assert len(found["sliced"]) > len(found["whole"]) > 0
    text = mmengine_runs.fails("mmdet", evaluate, *words, "--slice", 4, "--work-dir", tmp_path)
    assert "--slice 4" in text


def test_training_ignores_what_the_border_of_a_tile_cuts(tiny):
    """Each tile is read as its part of the picture, with its objects as `tiled` says."""
    file, folder = tiny / "annotations/instances_train.json", tiny / "train"
    labels = dict(type="LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=True)
    steps = [dict(type="LoadImageFromFile"), labels, dict(type="PackDetInputs")]
    names = dict(classes=["disc", "bar"], category_ids=[3, 7])
    dataset = DATASETS.build(
        dict(
            type="CocoFileDataset", ann_file=str(file), data_prefix=dict(img=str(folder)),
            metainfo=names, pipeline=steps, tile=[40, 0.2],
        )
    )  # fmt: skip
    expected = tile_dataset(read_coco(file), Slicing(40, 0.2))
    assert len(dataset) == len(expected.images) == 24
    for index, (key, entry) in enumerate(expected.images.items()):
        sample, (x, y, width, height) = dataset[index], entry["tile"]
        pixels = np.asarray(Image.open(folder / entry["file_name"]))[y : y + height, x : x + width]
        assert np.array_equal(sample["inputs"].numpy().transpose(1, 2, 0), pixels[:, :, ::-1])
        crowds = [one["iscrowd"] for one in expected.objects if one["image_id"] == key]
        found = sample["data_samples"]
        assert len(found.ignored_instances) == sum(crowds)
        assert len(found.gt_instances) == len(crowds) - sum(crowds)
    assert any(one["iscrowd"] for one in expected.objects)
