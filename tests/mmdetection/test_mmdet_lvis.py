"""LVIS in mmdetection: repeated images, counted classes, the federated loss, and the scores."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, Instances
from mmdet.registry import DATASETS

from eva_detection.data.datasets import repeat_factors
from eva_detection.evaluation.evaluators import LvisEvaluator
from eva_mmdetection.commands import train
from eva_mmdetection.evaluation.metrics import EVALVISMetric
from eva_mmdetection.model.federated_loss import count_images
from eva_openmmlab import config as configuration

RECIPE = "lvis/cascade_mask_rcnn_eva_g_1280"
NAMES = ["disc", "bar", "rare"]


@pytest.fixture(scope="module")
def lvis(write_scenes, tmp_path_factory):
    """A folder in mmdetection's layout of LVIS: three classes, the last in one of six images."""
    root = tmp_path_factory.mktemp("lvis")
    (root / "annotations").mkdir()
    for seed, (part, count) in enumerate({"train": 6, "val": 3}.items()):
        data = write_scenes(root / part, count, seed=seed)
        ids = {3: 1, 7: 2}
        for one in data["annotations"]:
            one["category_id"] = ids[one["category_id"]]
            del one["iscrowd"]
        data["annotations"][0]["category_id"] = 3
        for entry in data["images"]:
            entry["coco_url"] = f"http://images.cocodataset.org/{part}/{entry.pop('file_name')}"
            entry.update(neg_category_ids=[3], not_exhaustive_category_ids=[])
        data["images"][-1].update(neg_category_ids=[], not_exhaustive_category_ids=[2])
        data["categories"] = [
            {"id": key, "name": name, "frequency": frequency, "image_count": 1}
            for key, (name, frequency) in enumerate(zip(NAMES, "fcr", strict=True), start=1)
        ]
        (root / "annotations" / f"lvis_v1_{part}.json").write_text(json.dumps(data))
    return root


@pytest.fixture
def small(lvis, load_config, shrink):
    """The published recipe in small on that folder, one image in two being frequent."""
    loss = load_config(RECIPE).model.roi_head.bbox_head[0].loss_cls
    assert loss == dict(type="EVAFederatedLoss", num_classes=1203)
    loss.update(num_classes=3, num_sampled=2)
    cfg = shrink(load_config(RECIPE), count=3, loss_cls=loss)
    configuration.set_data_root(cfg, lvis)
    for loader in configuration.LOADERS:
        (dataset,) = configuration.parts_of(cfg[loader].dataset)
        dataset.metainfo = dict(classes=NAMES)
    cfg.train_dataloader.dataset.oversample_thr = 0.5
    cfg.optim_wrapper = dict(
        type="OptimWrapper",
        **{key: cfg.optim_wrapper[key] for key in ("constructor", "optimizer", "paramwise_cfg")},
    )
    cfg.env_cfg.dist_cfg.backend = "gloo"
    return cfg


def test_a_run_of_the_recipe_counts_draws_and_scores(small, launch, scalars, tmp_path):
    small.dump(tmp_path / "small.py")
    launch(train, tmp_path / "small.py", "--work-dir", tmp_path / "run")
    log = scalars(tmp_path / "run")
    assert all(math.isfinite(entry["loss"]) for entry in log if "loss" in entry)
    (scores,) = (entry for entry in log if "lvis/bbox_AP" in entry)
    assert {"lvis/segm_APr", "lvis/segm_APc", "lvis/segm_APf"} <= {*scores}
    saved = torch.load(tmp_path / "run" / "iter_3.pth", weights_only=False)  # of this test
    counts = torch.tensor([5.0, 6.0, 1.0])
    for stage in range(3):
        name = f"roi_head.bbox_head.{stage}.loss_cls.fed_loss_cls_weights"
        assert torch.equal(saved["state_dict"][name], counts.sqrt())


def test_rare_classes_are_repeated_as_in_detectron2_and_counted_once(small):
    dataset = DATASETS.build(small.train_dataloader.dataset)
    records = [
        {"annotations": [{"category_id": key} for key in dataset.dataset.get_cat_ids(index)]}
        for index in range(6)
    ]
    factors = repeat_factors(records, repeat_thresh=0.5)
    assert factors[0] == pytest.approx(3**0.5)  # one image in six, sqrt(0.5 / (1 / 6))
    expected = [index for index in range(6) for _ in range(math.ceil(factors[index]))]
    assert dataset.repeat_indices == expected  # mmdetection rounds up, detectron2 at random
    assert count_images(dataset, 3).tolist() == [5, 6, 1]


def predictions(lvis, count=40):
    """Image id -> boxes near the objects and elsewhere, scores, labels and masks."""
    data = json.loads((lvis / "annotations" / "lvis_v1_val.json").read_text())
    generator = np.random.default_rng(0)
    for entry in data["images"]:
        own = [one["bbox"] for one in data["annotations"] if one["image_id"] == entry["id"]]
        boxes = np.array([own[number % len(own)] for number in range(count)], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        boxes = (boxes + generator.normal(0, 2, boxes.shape).astype(np.float32)).clip(0, 63)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        masks = np.zeros((count, 64, 64), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        scores = generator.random(count).astype(np.float32)
        labels = generator.integers(0, 3, count)
        yield entry["id"], *map(torch.from_numpy, (boxes, scores, labels, masks))


@pytest.mark.parametrize("limit", [5, 300])
def test_scores_are_those_of_detection(limit, lvis, request):
    file = str(lvis / "annotations" / "lvis_v1_val.json")
    name = request.node.name
    MetadataCatalog.get(name).set(
        json_file=file, thing_classes=NAMES, thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 3: 2}
    )
    request.addfinalizer(lambda: MetadataCatalog.remove(name))
    theirs = LvisEvaluator(name, distributed=False, max_dets_per_image=limit)
    theirs.reset()
    ours = EVALVISMetric(ann_file=file, metric=["bbox", "segm"], max_dets=limit)
    ours.dataset_meta = {"classes": NAMES}
    for image, boxes, scores, labels, masks in predictions(lvis):
        found = Instances((64, 64))
        found.pred_boxes, found.scores, found.pred_classes = Boxes(boxes), scores, labels
        found.pred_masks = BitMasks(masks).tensor
        theirs.process([{"image_id": image}], [{"instances": found}])
        instances = dict(bboxes=boxes, scores=scores, labels=labels, masks=masks)
        ours.process({}, [dict(pred_instances=instances, img_id=image, ori_shape=(64, 64))])
    expected = theirs.evaluate()
    results = ours.evaluate(size=3)
    for kind in ("bbox", "segm"):
        assert expected[kind]["AP"] > 0
        for key, value in expected[kind].items():
            assert results[f"lvis/{kind}_{key}"] * 100 == pytest.approx(value, nan_ok=True), key
