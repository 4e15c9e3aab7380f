"""Own data in COCO format: from one command to scores and predictions."""

import argparse
import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MessageHub

from eva_mmdetection.data import coco_file, own_data
from eva_mmdetection.data.coco_file import CocoFileMetric
from eva_mmdetection.inference import predictor
from eva_openmmlab import config
from eva_openmmlab.checkpoint_hook import EVACheckpointHook

NAMES = ["a cat", "b {{dog}}", "c"]


@pytest.fixture(scope="module")
def own(write_scenes, tmp_path_factory):
    """Folder with `train.json`, `val.json` and their pictures: other names, ids and gaps.

    Files lack areas, crowd flags and ids; one category has no object, one object is a crowd
    without a mask, one picture has no object.
    """
    root = tmp_path_factory.mktemp("mmdet_own")
    for seed, (part, count) in enumerate({"train": 5, "val": 2}.items()):
        data = write_scenes(root / part, count, seed=seed + 9)
        ids = {3: 30, 7: 4}
        for one in data["annotations"]:
            one["category_id"] = ids[one["category_id"]]
            for key in ("id", "area", "iscrowd"):
                del one[key]
        if part == "train":
            data["annotations"] = [one for one in data["annotations"] if one["image_id"] != 5]
            crowd = {"image_id": 1, "category_id": 4, "bbox": [1, 1, 9, 9], "iscrowd": 1}
            data["annotations"].append(crowd)
        names = dict(zip((4, 30, 99), NAMES, strict=True))
        data["categories"] = [{"id": key, "name": name} for key, name in names.items()]
        (root / f"{part}.json").write_text(json.dumps(data))
    return root


def flags(root, *parts):
    for part in parts:
        yield from (f"--{part}-annotations", root / f"{part}.json")
        yield from (f"--{part}-images", root / part)


def test_classes_of_coco_have_the_ids_of_coco():
    expected = {one["id"]: one["name"] for one in COCO_CATEGORIES if one["isthing"]}
    assert predictor._categories(CocoDataset.METAINFO) == expected


def configured(name, load_config, root, *more, pipeline=None):
    config, parser = load_config(name), argparse.ArgumentParser()
    own_data.add_arguments(parser)
    if pipeline:
        config.val_dataloader.dataset.pipeline = pipeline
    words = [str(word) for word in (*flags(root, "train", "val"), "--allow-empty-classes", *more)]
    return own_data.apply(config, own_data.check(parser.parse_args(words)))


def test_classes_and_colours_are_what_mmdetections_tools_take(load_config, own):
    """Tuples, also where a config has lists: one adds a class to them, one draws with them."""
    cfg = configured("coco/cascade_mask_rcnn_eva_g_1280", load_config, own)
    info = DATASETS.build(cfg.val_dataloader.dataset).metainfo
    assert (*info["classes"], "background") == info["classes"] + ("background",)
    assert {*map(type, info["palette"])} == {tuple}


def kinds_of(cfg, kind):
    loader = cfg.train_dataloader.dataset
    while "dataset" in loader:
        loader = loader.dataset
    (step,) = (one for one in loader.pipeline if one.type == kind)
    return step


def test_boxes_alone_leave_the_mask_head_out(load_config, own):
    stock = [{"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}]
    name = "coco/cascade_mask_rcnn_eva_g_1280"
    cfg = configured(name, load_config, own, "--boxes-only", pipeline=stock)
    assert not cfg.val_dataloader.dataset.pipeline[0].with_mask
    assert cfg.model.roi_head.mask_head is cfg.model.roi_head.mask_roi_extractor is None
    assert cfg.val_evaluator.metric == ["bbox"]
    assert not kinds_of(cfg, "LoadAnnotations").with_mask
    assert not kinds_of(cfg, "RandomCrop").recompute_bbox
    assert not kinds_of(cfg, "FilterAnnotations").by_mask


def test_a_one_stage_detector_that_reads_masks_learns_them_from_own_data(own, tmp_path):
    """SOLOv2 of mmdetection; what else a user has stated of the dataset stays, too."""
    file = tmp_path / "solo.py"
    file.write_text(
        "_base_ = 'mmdet::solov2/solov2_r50_fpn_1x_coco.py'\n"
        "train_dataloader = dict(dataset=dict(indices=3))\n"
    )
    load = lambda _: config.load_config(file)  # noqa: E731
    cfg = configured("solo", load, own)
    assert kinds_of(cfg, "LoadAnnotations").with_mask
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 3
    with pytest.raises(ValueError, match="SOLOv2 learns masks alone"):
        configured("solo", load, own, "--boxes-only")


@pytest.mark.parametrize("names", [NAMES[::-1], ["a cat", "no such class"]])
def test_names_that_mmdetection_would_mistake_are_refused(own, names):
    """It numbers classes by the file; what reads the config alone would call them otherwise."""
    part = {"type": "CocoDataset", "ann_file": str(own / "val.json")}

    def check(classes):
        loader = {"dataset": {"type": "RepeatDataset", "dataset": part | {"metainfo": classes}}}
        coco_file.require_order_of_files(Config({"val_dataloader": loader}))

    check({"classes": NAMES})
    check({"classes": NAMES[1:]})
    with pytest.raises(ValueError, match=r"order of .*val\.json"):
        check({"classes": names})


def test_validation_without_a_mask_is_told_on_the_terminal(load_config, own, tmp_path, caplog):
    root = shutil.copytree(own, tmp_path / "own")
    data = json.loads((own / "val.json").read_text())
    del data["annotations"][0]["segmentation"]
    (root / "val.json").write_text(json.dumps(data))
    caplog.set_level("INFO", logger=own_data.__name__)
    cfg = configured("coco/cascade_mask_rcnn_eva_g_1280", load_config, root)
    assert cfg.val_evaluator.metric == ["bbox"]
    (note,) = (record for record in caplog.records if "No mask AP: 1 of" in record.message)
    assert note.shown


def test_a_recipe_of_lvis_counts_all_classes_and_scores_by_cocos_rules(load_config, own):
    cfg = configured("lvis/cascade_mask_rcnn_eva_g_1280", load_config, own)
    assert cfg.train_dataloader.dataset.type == "ClassBalancedDataset"
    assert cfg.train_dataloader.dataset.dataset.type == "CocoFileDataset"
    losses = [head.loss_cls for head in cfg.model.roi_head.bbox_head]
    assert {(loss.num_sampled, loss.num_classes) for loss in losses} == {(0, 3)}
    assert cfg.custom_hooks == []
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == "CocoFileMetric"
    assert cfg.default_hooks.checkpoint.save_best == "coco/bbox_mAP"


@pytest.mark.parametrize("found", [0, 1])
def test_scores_without_objects_are_not_numbers_and_not_the_best(found, own, tmp_path):
    data = json.loads((own / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps({**data, "annotations": []}))
    metric = CocoFileMetric(ann_file=str(tmp_path / "val.json"), metric=["bbox"])
    metric.dataset_meta = {"classes": NAMES, "category_ids": [4, 30, 99]}
    boxes = torch.tensor([[1.0, 1, 20, 20]] * found).reshape(-1, 4)
    instances = dict(bboxes=boxes, scores=torch.ones(found), labels=torch.zeros(found).long())
    for image in (1, 2):
        metric.process({}, [dict(pred_instances=instances, img_id=image, ori_shape=(64, 64))])
    scores = metric.evaluate(size=2)
    assert math.isnan(scores["coco/bbox_mAP"])
    assert all(math.isnan(value) for value in scores.values())
    hook = EVACheckpointHook(save_best="coco/bbox_mAP", rule="greater", by_epoch=False)
    hub = MessageHub.get_instance(str(tmp_path))
    runner = SimpleNamespace(epoch=0, iter=1, message_hub=hub, train_loop=None)
    hook._save_best_checkpoint(runner, scores)
    assert hook.best_ckpt_path is None
