"""Own data in COCO format: from one command to scores and predictions."""

import copy
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as mask_api
import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from pycocotools.coco import COCO

from eva_mmdetection.data import own_data, pipelines
from eva_mmdetection.data.coco_file import CocoFileDataset
from eva_mmdetection.evaluation import evaluate
from eva_mmdetection.evaluation.metrics import CocoFileMetric
from eva_mmdetection.inference import demo, predictor
from eva_mmdetection.inference.predictor import Predictor
from eva_mmdetection.training import train
from eva_openmmlab import command_line
from eva_openmmlab.hooks import EVACheckpointHook

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.meshgrid:UserWarning", "ignore:The draw is False:UserWarning"
)
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


@pytest.fixture(scope="module")
def run(own, tiny, launch):
    """Work folder; its `tiny.py` is all that the other programs need."""
    launch(train, tiny / "tiny.py", "--work-dir", own / "run", *flags(own, "train", "val"))
    return own / "run"


def test_the_saved_config_states_data_and_classes(run, own):
    cfg = Config.fromfile(run / "tiny.py")
    assert {head.num_classes for head in cfg.model.roi_head.bbox_head} == {3}
    assert cfg.model.roi_head.mask_head.num_classes == 3
    assert cfg.model.rpn_head.get("num_classes") is None
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        metainfo = cfg[name].dataset.metainfo
        assert metainfo.classes == NAMES
        assert metainfo.category_ids == [4, 30, 99]
    assert cfg.val_evaluator.ann_file == str(own / "val.json")
    assert cfg.val_evaluator.metric == ["bbox", "segm"]


def test_it_is_scored_and_class_names_are_in_the_checkpoint(run, scalars):
    assert sum("loss" in entry for entry in scalars(run)) == 3
    (scores,) = (entry for entry in scalars(run) if "coco/bbox_mAP" in entry)
    assert {f"coco/{name}_precision" for name in NAMES} <= {*scores}
    saved = torch.load(run / "iter_3.pth", weights_only=False)  # written by this test
    assert list(saved["meta"]["dataset_meta"]["classes"]) == NAMES


def test_what_own_data_change_is_in_the_log(run, own, launch, tmp_path):
    launch(
        evaluate, run / "tiny.py", run / "iter_3.pth", "--work-dir", tmp_path,
        *flags(own, "val"), "--cfg-options", "log_level=INFO",
    )  # fmt: skip
    text = (tmp_path / "log.txt").read_text()
    assert f"Own data: {own / 'val.json'}" in text
    assert "The detector has 3 classes (id, name): 4 a cat, 30 b {{dog}}, 99 c" in text


@pytest.mark.filterwarnings(  # mmdetection's drawing
    "ignore:__array_wrap__ must accept:DeprecationWarning", "ignore:.* out of bounds:UserWarning"
)
def test_only_the_saved_config_is_needed_to_evaluate_and_predict(run, own, launch, tmp_path):
    config, weights = run / "tiny.py", run / "iter_3.pth"
    launch(evaluate, config, weights, "--work-dir", tmp_path / "test")
    launch(
        evaluate, config, weights, "--work-dir", tmp_path / "again", *flags(own, "val"),
        "--show-dir", tmp_path / "drawn",
    )  # fmt: skip
    files = [next((tmp_path / name).glob("2*/*.json")) for name in ("test", "again")]
    first, second = (Config.fromfile(file) for file in files)
    assert first["coco/bbox_mAP"] == second["coco/bbox_mAP"]
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    arguments = ["--output", tmp_path / "shown", "--device", "cpu", "--score-threshold", "0"]
    launch(demo, config, weights, own / "val", *arguments)
    assert (tmp_path / "shown" / "1.png").is_file()
    found = COCO(tmp_path / "shown" / "predictions.json")
    assert {entry["name"] for entry in found.cats.values()} == {*NAMES}
    assert {one["category_id"] for one in found.anns.values()} <= {4, 30, 99}
    predictor = Predictor.from_config(config, weights=weights, score_threshold=0, device="cpu")
    ours = predictor(own / "val" / "1.png")
    image = next(key for key, one in found.imgs.items() if one["file_name"].endswith("1.png"))
    theirs = found.imgToAnns[image]
    assert len(ours) == len(theirs) > 0
    mask = mask_api.decode(theirs[0]["segmentation"])
    np.testing.assert_array_equal(mask.astype(bool), ours.masks[0].numpy())


def test_a_root_has_no_effect_on_own_data_and_is_refused(run, own, fails, tmp_path):
    command = [evaluate, run / "tiny.py", run / "iter_3.pth", "--work-dir", tmp_path / "test"]
    assert "--data-root" in fails(*command, "--data-root", own)


def test_an_unknown_device_is_one_sentence(run, own, launch, tmp_path, capsys):
    arguments = [own / "val", "--output", tmp_path, "--device", "gpu"]
    with pytest.raises(SystemExit):
        launch(demo, run / "tiny.py", run / "iter_3.pth", *arguments)
    assert "device 'gpu' must be cpu, cuda or cuda:N" in capsys.readouterr().err


def test_a_strip_is_detected_in_as_other_pictures_are(run, own, launch, tmp_path):
    for name, shape in {"a": (900, 2, 3), "b": (40, 50, 3)}.items():
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / f"{name}.png")
    arguments = [tmp_path, "--output", tmp_path / "shown", "--device", "cpu"]
    launch(demo, run / "tiny.py", run / "iter_3.pth", *arguments)
    entries = json.loads((tmp_path / "shown" / "predictions.json").read_text())["images"]
    assert [Path(entry["file_name"]).name for entry in entries] == ["a.png", "b.png"]


@pytest.mark.parametrize("bitmaps", [False, True])
def test_a_strip_keeps_a_pixel_of_its_short_side_in_training(bitmaps, tmp_path):
    Image.new("RGB", (1200, 2), "white").save(tmp_path / "strip.png")
    instance = {"bbox": [5, 0, 35, 2], "bbox_label": 0, "ignore_flag": 0}
    instance["mask"] = [[5, 0, 35, 0, 35, 2, 5, 2]]
    record = {"img_path": str(tmp_path / "strip.png"), "img_id": 1, "instances": [instance]}
    steps = pipelines.training(64, ratios=(0.5, 0.5), flip=0, bitmaps=bitmaps)
    found = Compose(steps[:-2])(record | {"height": 2, "width": 1200})
    assert found["img_shape"] == (1, 32)
    assert found["gt_masks"].height == 1
    later = Compose(pipelines.testing(64))(record)
    assert later["inputs"].shape == (3, 1, 64)


def test_classes_of_coco_have_the_ids_of_coco(load_config):
    dataset = load_config("coco/cascade_mask_rcnn_eva_g_1536").test_dataloader.dataset
    expected = {one["id"]: one["name"] for one in COCO_CATEGORIES if one["isthing"]}
    assert predictor._categories(dataset) == expected


def test_the_empty_picture_and_the_crowd_are_not_trained_on(own, run):
    from mmdet.registry import DATASETS

    dataset = DATASETS.build(Config.fromfile(run / "tiny.py").train_dataloader.dataset)
    assert len(dataset) == 4
    assert [len(dataset.get_data_info(index)["instances"]) for index in range(4)] == [2] * 4


def training():
    return command_line.training_parser("mmdetection", own_data, what="", examples="")


def configured(name, load_config, root, *more):
    parser = training()
    words = [str(word) for word in (name, *flags(root, "train", "val"), *more)]
    return own_data.apply(load_config(name), parser.parse_args(words))


def changed(own, folder, change):
    """A copy of the data with annotations that are changed in place."""
    data = json.loads((own / "train.json").read_text())
    change(data["annotations"])
    folder.mkdir(exist_ok=True)
    (folder / "train.json").write_text(json.dumps(data))
    (folder / "val.json").write_text((own / "val.json").read_text())
    for part in ("train", "val"):
        (folder / part).symlink_to(own / part)
    return folder


def kinds_of(cfg, kind):
    loader = cfg.train_dataloader.dataset
    while "dataset" in loader:
        loader = loader.dataset
    (step,) = (one for one in loader.pipeline if one.type == kind)
    return step


def test_absolute_names_of_pictures_are_read_where_they_are(own, tmp_path):
    content = json.loads((own / "val.json").read_text())
    for image in content["images"]:
        image["file_name"] = str(own / "val" / image["file_name"])
    (tmp_path / "val.json").write_text(json.dumps(content))
    ids = [entry["id"] for entry in content["categories"]]
    names = [entry["name"] for entry in content["categories"]]
    dataset = CocoFileDataset(
        ann_file=str(tmp_path / "val.json"),
        data_prefix={"img": str(tmp_path)},
        metainfo={"classes": names, "category_ids": ids},
        pipeline=[],
        lazy_init=True,
    )
    assert all(Path(one["img_path"]).is_file() for one in dataset.load_data_list())


def test_boxes_alone_leave_the_mask_head_out(load_config, own):
    cfg = configured("coco/cascade_mask_rcnn_eva_g_1280", load_config, own, "--boxes-only")
    assert cfg.model.roi_head.mask_head is cfg.model.roi_head.mask_roi_extractor is None
    assert cfg.val_evaluator.metric == ["bbox"]
    assert not kinds_of(cfg, "LoadAnnotations").with_mask
    assert not kinds_of(cfg, "RandomCrop").recompute_bbox
    assert not kinds_of(cfg, "FilterAnnotations").by_mask


def test_boxes_alone_leave_damaged_masks_unread(load_config, own, tmp_path):
    code = {"size": [1, 1], "counts": "?"}
    other = changed(own, tmp_path, lambda found: found[0].update(segmentation=code))
    recipe = "demo/cascade_mask_rcnn_eva_debug"
    with pytest.raises(ValueError, match="has an RLE of size"):
        configured(recipe, load_config, other)
    cfg = configured(recipe, load_config, other, "--boxes-only")
    datasets = [cfg[f"{part}_dataloader"].dataset for part in ("train", "val", "test")]
    assert [data.boxes_only for data in datasets] == [True] * 3
    assert cfg.val_evaluator.boxes_only
    from mmdet.registry import DATASETS, METRICS

    plain = {**datasets[0], "pipeline": [], "lazy_init": True}
    records = DATASETS.build(plain).load_data_list()
    assert not any("mask" in one for record in records for one in record["instances"])
    assert METRICS.build(cfg.val_evaluator)._boxes_only


def test_a_set_of_yolo_becomes_a_file_of_the_run(load_config, own, tmp_path):
    root, names = tmp_path / "yolo", ["1", "2", "3", "4", "5"]
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in names:
        shutil.copy(own / "train" / f"{name}.png", root / "images")
        (root / f"labels/{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    recipe, flag = "demo/cascade_mask_rcnn_eva_debug", ("--data", str(root), "--val-share", "0.4")

    def apply(parser, *more):
        args = parser.parse_args([recipe, *more, *flag])
        config = load_config(recipe)
        config.work_dir = str(tmp_path / "run")
        return own_data.apply(config, args)

    cfg = apply(training())
    files = [json.loads((tmp_path / f"run/data/{part}.json").read_text()) for part in PARTS]
    assert [cfg[f"{part}_dataloader"].dataset.ann_file for part in PARTS] == [
        str(tmp_path / f"run/data/{part}.json") for part in PARTS
    ]
    found = [{image["file_name"] for image in file["images"]} for file in files]
    assert found[0] | found[1] == {f"{name}.png" for name in names}
    assert not found[0] & found[1]
    assert cfg.model.roi_head.mask_head is None
    tested = apply(command_line.test_parser("mmdetection", own_data, what=""), "weights.pth")
    assert tested.test_dataloader.dataset.ann_file == str(tmp_path / "run/test/data/evaluated.json")
    (tmp_path / "run/iter_1.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has a run .*: continue it with --resume"):
        apply(training())
    apply(training(), "--resume")
    (root / "labels/1.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(ValueError, match="not those that the run began with"):
        apply(training(), "--resume")


PARTS = ("train", "val")


def test_run_length_codes_are_read_as_pixels(load_config, own, tmp_path):
    code = {"size": [64, 64], "counts": [10, 20, 64 * 64 - 30]}
    other = changed(own, tmp_path, lambda found: found[0].update(segmentation=code))
    recipe = "coco/cascade_mask_rcnn_eva_g_1280"
    before, after = (configured(recipe, load_config, root) for root in (own, other))
    assert not kinds_of(before, "LoadAnnotations").poly2mask
    assert kinds_of(after, "LoadAnnotations").poly2mask


def test_objects_without_masks_are_named(load_config, own, tmp_path):
    other = changed(own, tmp_path, lambda found: found[0].pop("segmentation"))
    with pytest.raises(ValueError, match=r"1 of 8 objects of .* no usable mask .*--boxes-only"):
        configured("demo/cascade_mask_rcnn_eva_debug", load_config, other)


def test_a_recipe_of_lvis_counts_all_classes_and_scores_by_cocos_rules(load_config, own):
    cfg = configured("lvis/cascade_mask_rcnn_eva_g_1280", load_config, own)
    assert cfg.train_dataloader.dataset.type == "ClassBalancedDataset"
    assert cfg.train_dataloader.dataset.dataset.type == "CocoFileDataset"
    losses = [head.loss_cls for head in cfg.model.roi_head.bbox_head]
    assert {(loss.num_sampled, loss.num_classes) for loss in losses} == {(0, 3)}
    assert cfg.custom_hooks == []
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == "CocoFileMetric"
    assert cfg.default_hooks.checkpoint.save_best == "coco/bbox_mAP"


def test_one_file_takes_the_place_of_several(load_config, own):
    cfg = configured("objects365/cascade_mask_rcnn_eva_g_1024", load_config, own)
    assert cfg.train_dataloader.dataset.type == "CocoFileDataset"
    assert {head.num_classes for head in cfg.model.roi_head.bbox_head} == {3}
    assert cfg.val_evaluator.metric == ["bbox"]


def test_a_config_stays_as_it_is(load_config, own):
    before = load_config("coco/cascade_mask_rcnn_eva_g_1280")
    parser = training()
    words = [str(word) for word in ("x", *flags(own, "train", "val"))]
    kept = copy.deepcopy(before._cfg_dict)
    own_data.apply(before, parser.parse_args(words))
    assert before._cfg_dict == kept


def test_other_categories_of_the_evaluation_are_refused(load_config, own, tmp_path):
    other = changed(own, tmp_path, lambda found: None)
    data = json.loads((own / "val.json").read_text())
    data["categories"][0]["name"] = "wolf"
    (other / "val.json").unlink()
    (other / "val.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"has category 4 'wolf'; in .*train\.json it is 'a cat'"):
        configured("demo/cascade_mask_rcnn_eva_debug", load_config, other)


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
    hub = SimpleNamespace(runtime_info={})
    hook._save_best_checkpoint(SimpleNamespace(epoch=0, iter=1, message_hub=hub), scores)
    assert hook.best_ckpt_path is None
