"""Own panoptic data: from one command to PQ, a report, predictions and their export."""

import argparse
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import Config
from PIL import Image

from eva_command import own_data as eva_train, training
from eva_data.detection.panoptic import as_rgb, read_ids
from eva_data.detection.sources import find_exports
from eva_mmdetection.commands import demo, train
from eva_mmdetection.data import own_data
from eva_mmdetection.data.panoptic import PanopticFileDataset, PanopticMetric
from eva_mmdetection.inference.predictor import Predictor
from eva_openmmlab.config import set_data_root

SIDE, PART = 32, "panoptic_{}"
CATEGORIES = [
    {"id": 2, "name": "floor", "isthing": 0},
    {"id": 5, "name": "wall", "isthing": 0},
    {"id": 7, "name": "disc", "isthing": 1},
]
RESPELLED = {"classes": ("Disc", "floor", "WALL"), "category_ids": (7, 2, 5)}
SMALL = """
_base_ = {base!r}
load_from = None
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(img_size=32, pretrain_img_size=32, embed_dim=16, num_heads=2, mlp_dim=24,
        patch_size=16, depth=4, interaction_indexes=None, deform_num_heads=2, conv_inplane=4,
        drop_path_rate=0.5),
    panoptic_head=dict(in_channels=[16] * 4, num_queries=8),
    train_cfg=dict(num_points=64),
    test_cfg=dict(object_mask_thr=0.0, iou_thr=0.3, max_per_image=8),
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=-1))
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folder of six and two images in COCO's panoptic format, stuff listed before things."""
    root = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        pngs = root / "annotations" / PART.format(part)
        pngs.mkdir(parents=True)
        (root / part).mkdir()
        images, annotations = [], []
        for key in range(1, count + 1):
            ids = np.full((SIDE, SIDE), 300)
            ids[:, SIDE // 2 :] = 5
            x, y = generator.integers(0, SIDE - 12, 2)
            ids[y : y + 12, x : x + 12] = 70_000
            image = (as_rgb(ids) * [3, 90, 90]).astype(np.uint8)
            Image.fromarray(as_rgb(ids)).save(pngs / f"{key}.png")
            Image.fromarray(image).save(root / part / f"{key}.jpg")
            present = [*np.unique(ids).tolist()]
            categories = {300: 2, 5: 5, 70_000: 7}
            segments = [{"id": number, "category_id": categories[number]} for number in present]
            images.append({"id": key, "file_name": f"{key}.jpg", "width": SIDE, "height": SIDE})
            about = {"image_id": key, "file_name": f"{key}.png", "segments_info": segments}
            annotations.append(about)
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (pngs.parent / f"{pngs.name}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def run(scenes, configs, launch, tmp_path_factory):
    """Folder of a run of four iterations."""
    root = tmp_path_factory.mktemp("run")
    base = str(configs / "demo/mask2former_eva_debug_panoptic.py")
    (root / "small.py").write_text(SMALL.format(base=base))
    launch(train, root / "small.py", "--data", scenes, "--work-dir", root / "whole")
    return root / "whole"


def quality(file, other):
    """PQ of each class, in percent, by panopticapi's formula: sum of IoU / (TP + FP/2 + FN/2)."""
    overlaps, counts = Counter(), Counter()
    truth, predicted = (json.loads(path.read_text()) for path in (file, other))
    for ours, theirs in zip(truth["annotations"], predicted["annotations"], strict=True):
        sides = []
        for path, entry in ((file, ours), (other, theirs)):
            ids = read_ids(path.with_suffix("") / entry["file_name"])
            sides.append([(s["category_id"], ids == s["id"]) for s in entry["segments_info"]])
            counts.update(category for category, _ in sides[-1])
        for category, mask in sides[0]:
            for other_category, other_mask in sides[1]:
                iou = (mask & other_mask).sum() / (mask | other_mask).sum()
                if category == other_category and iou > 0.5:
                    overlaps[category] += iou
    return {key: 100 * overlaps[key] / (number / 2) for key, number in counts.items()}


def test_pq_is_panopticapis_formula(scenes, tmp_path):
    """Of predictions that miss an object, and shift the border of stuff by some pixels."""
    truth = scenes / "annotations" / "panoptic_val.json"
    folder = truth.with_suffix("")
    settings = dict(ann_file=str(truth), seg_prefix=str(folder))
    metric = PanopticMetric(**settings, outfile_prefix=str(tmp_path / "found"))
    metric.dataset_meta = RESPELLED
    for key in (1, 2):
        ids = torch.full((1, SIDE, SIDE), 1)
        ids[..., SIDE // 2 - 3 :] = 2
        if key == 1:
            disc = read_ids(folder / "1.png") == 70_000
            ids[0, np.roll(disc, 1, axis=1)] = INSTANCE_OFFSET
        metric.process(None, [{"img_id": key, "pred_panoptic_seg": {"sem_seg": ids}}])
    scores = metric.evaluate(2)
    expected = quality(truth, tmp_path / "panoptic.json")
    assert all(0 < value < 100 for value in expected.values())
    assert scores["coco_panoptic/PQ"] == pytest.approx(np.mean([*expected.values()]))
    assert scores["coco_panoptic/PQ_th"] == pytest.approx(expected[7])


def test_names_in_other_letters_are_those_of_their_ids(scenes):
    file = scenes / "annotations" / "panoptic_val.json"
    folders = {"img": str(scenes / "val"), "seg": str(file.with_suffix(""))}
    meta = {**RESPELLED, "thing_classes": ("Disc",)}
    dataset = PanopticFileDataset(ann_file=str(file), data_prefix=folders, metainfo=meta)
    boxes = [box["bbox_label"] for box in dataset.get_data_info(0)["instances"]]
    assert boxes == [0]
    meta["classes"] = ("Disc", "ground", "WALL")
    with pytest.raises(ValueError, match="'floor'"):
        PanopticFileDataset(ann_file=str(file), data_prefix=folders, metainfo=meta)


@pytest.mark.slow
def test_a_run_has_pq_in_its_report(run):
    scores = json.loads((run / "results.json").read_text())["panoptic"]
    assert {"PQ", "SQ_th", "PQ-floor", "PQ-disc"} <= scores.keys()
    assert "PQ" in (run / "report.html").read_text()
    assert (run / "first_batch.jpg").is_file()
    assert (run / "best_coco_panoptic_PQ_iter_4.pth").is_file()


@pytest.mark.slow
def test_a_run_continues_exactly(run, scenes, launch, scalars, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("iter_4*", "best_*", "inference"))
    (other / "last_checkpoint").write_text(str(other / "iter_2.pth"))
    words = (run.parent / "small.py", "--data", scenes, "--work-dir", other, "--resume")
    launch(train, *words)
    ours, expected = (json.loads((at / "results.json").read_text()) for at in (other, run))
    assert str(ours) == str(expected)


@pytest.mark.slow
def test_predictions_are_drawn_and_exported_as_own_data(run, scenes, launch, tmp_path):
    words = ("--to", "coco-panoptic", "--score-threshold", 0, "--output", tmp_path / "out")
    launch(demo, run, scenes / "val", *words)
    assert len([*(tmp_path / "out").glob("*.jpg")]) == 2
    file, images = find_exports(tmp_path / "out" / "coco-panoptic")["train"]
    content = json.loads(file.read_text())
    assert {c["name"]: c["isthing"] for c in content["categories"]} == {
        "disc": 1, "floor": 0, "wall": 0
    }  # fmt: skip
    predictor = Predictor.from_run(run, score_threshold=0.0)
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        ids = read_ids(file.with_suffix("") / entry["file_name"])
        assert {*np.unique(ids)} - {0} == {segment["id"] for segment in entry["segments_info"]}
        segments = predictor(images / image["file_name"])
        assert (segments.masks.sum(0) <= 1).all()
        assert np.array_equal(segments.masks.any(0), ids > 0)


def test_another_data_root_is_that_of_the_scores_too(load_config):
    cfg = load_config("coco/mask2former_eva_l_640_panoptic")
    set_data_root(cfg, "/elsewhere")
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == "/elsewhere/annotations/panoptic_val2017.json"
        assert evaluator.seg_prefix == "/elsewhere/annotations/panoptic_val2017"


def test_eva_train_chooses_queries(scenes, monkeypatch):
    ran = []
    monkeypatch.setattr(eva_train, "call", lambda *words: ran.append(words) or 0)
    training.main([str(scenes)])
    assert ran == [("mmdetection train", ["custom/eomt_eva_small", "--data", str(scenes)])]


def configured(name, load_config, *words):
    parser = argparse.ArgumentParser()
    own_data.add_arguments(parser)
    data = own_data.check(parser.parse_args([str(word) for word in words]))
    return own_data.apply(load_config(name), data)


def test_any_recipe_with_queries_takes_segments_and_others_refuse_them(scenes, load_config):
    cfg: Config = configured("custom/eomt_eva_small", load_config, "--data", scenes)
    assert cfg.model.test_cfg.panoptic_on
    head, data = cfg.model.panoptic_head, cfg.train_dataloader.dataset
    assert (head.num_things_classes, head.num_stuff_classes) == (1, 2)
    assert data.metainfo.classes == ["disc", "floor", "wall"]
    assert "LoadPanoptic" in [step.type for step in data.pipeline]
    assert cfg.default_hooks.checkpoint.save_best == "coco_panoptic/PQ"
    with pytest.raises(ValueError, match="panoptic"):
        configured("custom/cascade_mask_rcnn_eva_small", load_config, "--data", scenes)
