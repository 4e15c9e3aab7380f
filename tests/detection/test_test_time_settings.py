"""The settings of test-time augmentation, in Python and in a config, and what it refuses."""

import json

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import GeneralizedRCNN

from eva_detection.config.recipes import drop_masks
from eva_detection.config.settings import check_names
from eva_detection.data.loading import TestSet
from eva_detection.inference.predictor import Predictor
from eva_detection.inference.test_time_augmentation import (
    SIZES,
    EVARCNNWithTTA,
    with_test_time_augmentation,
)
from eva_detection.training import train as train_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]
INFINITE = float("inf")


@pytest.fixture(scope="module")
def build(make_tiny_detector):
    """Function: the tiny detector, always with the same weights."""

    def build_detector():
        torch.manual_seed(0)
        model = make_tiny_detector()
        for predictor in model.roi_heads.box_predictor:  # else all scores are alike
            torch.nn.init.normal_(predictor.cls_score.weight)
        return model.eval()

    return build_detector


@pytest.fixture(scope="module")
def detector(build):
    return build()


def test_the_official_area_ranges(detector):
    tta = EVARCNNWithTTA(detector, area_ranges="official")
    assert [tuple(scale) for scale in tta.scales] == [(size, size) for size in SIZES]
    assert tta.area_ranges == (
        (1024, INFINITE),
        (256, INFINITE),
        (0, INFINITE),
        (0, 256),
        (0, 576),
        (0, 256),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_sizes": []}, "min_sizes"),
        ({"min_sizes": 128}, "min_sizes"),
        ({"min_sizes": "128"}, "min_sizes"),
        ({"min_sizes": [128, -1]}, "min_sizes"),
        ({"min_sizes": [96, 128], "max_sizes": [128]}, "shorter"),
        ({"area_ranges": [(0, 9)]}, r"area_ranges .* 6"),
        ({"area_ranges": "oficial"}, "area_ranges"),
        ({"min_sizes": [128], "area_ranges": "official"}, r"for min_sizes \[1280, 1536"),
        ({"min_sizes": [128], "area_ranges": [(9, 3)]}, "area_ranges"),
        ({"min_sizes": [128], "area_ranges": [(1, 2, 3)]}, "unpack"),
        ({"mask_size": 1000}, "mask_size=1000"),
        ({"flip": "no"}, "'no'"),
        ({"use_soft_nms": True, "method": "linaer"}, "'linaer'"),
        ({"use_soft_nms": True, "iou_threshold": 60}, "60"),
        ({"use_soft_nms": True, "sigma": 0}, "sigma 0"),
        ({"max_detections": 0}, "max_detections"),
        ({"method": "gaussian"}, "only act with use_soft_nms=True"),
        ({"use_soft_nms": False, "class_wise": False}, "only act with use_soft_nms=True"),
    ],
)
def test_wrong_settings(settings, message, detector):
    with pytest.raises(ValueError, match=message):
        EVARCNNWithTTA(detector, **settings)


def test_wrong_detectors(tiny_config):
    boxes = tiny_config()
    drop_masks(boxes.model, boxes.dataloader)
    with pytest.raises(ValueError, match="needs a mask head"):
        EVARCNNWithTTA(instantiate(boxes.model), mask_size=1536)
    cfg = tiny_config()
    cfg.model._target_ = GeneralizedRCNN
    with pytest.raises(ValueError, match="got GeneralizedRCNN with EVACascadeROIHeads"):
        EVARCNNWithTTA(instantiate(cfg.model))


# In a config


def test_wrapped_as_the_config_says(tiny_config, detector):
    assert with_test_time_augmentation(tiny_config(), detector) is detector
    off = tiny_config("test.aug.enabled=False", "test.aug.min_sizes=[128]")
    assert with_test_time_augmentation(off, detector) is detector
    on = tiny_config("test.aug.min_sizes=[96,128]", "test.aug.area_ranges=[[9,null],[0,1e3]]")
    tta = with_test_time_augmentation(on, detector)
    assert tta.model is detector
    assert tta.scales == ((96, 96), (128, 128))
    assert tta.area_ranges == ((9, INFINITE), (0, 1000))
    with pytest.raises(ValueError, match=r"test\.aug: .*min_size"):
        with_test_time_augmentation(tiny_config("test.aug.min_size=[128]"), detector)


def test_the_recipe(load_config, detector, tmp_path):
    overrides = ("test.aug.min_sizes=[96,128]", "test.aug.mask_size=128", "test.aug.flip=True")
    cfg = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_tta")
    assert tuple(cfg.test.aug.min_sizes) == SIZES
    assert with_test_time_augmentation(cfg, detector).mask_scale == SIZES.index(1536)
    check_names(cfg, overrides)
    cfg = LazyConfig.apply_overrides(cfg, list(overrides))
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    for each in (cfg, LazyConfig.load(str(tmp_path / "config.yaml"))):
        tta = with_test_time_augmentation(each, detector)
        assert (tta.scales, tta.mask_scale, tta.flip) == (((96, 96), (128, 128)), 1, True)
    assert tta.merge.cap == 1000
    assert cfg.model.roi_heads.use_soft_nms
    assert cfg.model.backbone.square_pad == min(SIZES)


def test_no_augmentation_during_training(tiny_config, registered_demo_data, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        train_module, "evaluate", lambda test_set, model, **more: calls.append(more) or {}
    )
    overrides = (f"train.output_dir={tmp_path}", "train.max_iter=1", "test.aug.min_sizes=[128]")
    train_module.train(tiny_config(*overrides), resume=False)
    assert calls == [{"augment": False}]


def test_not_for_training(build, picture):
    tta = EVARCNNWithTTA(build(), min_sizes=[128]).train()
    with pytest.raises(RuntimeError, match=r"for inference: call eval\(\) first"):
        tta([{"image": torch.from_numpy(picture.transpose(2, 0, 1))}])


def test_evaluation(build, tiny_config, registered_demo_data, tmp_path):
    results, predictions = {}, {}
    for name, more in {
        "plain": (),
        "one": ("test.aug.min_sizes=[128]",),
        "two": ("test.aug.min_sizes=[112,144]", "test.aug.flip=True"),
    }.items():
        output = tmp_path / name
        output.mkdir()
        cfg = tiny_config(f"train.output_dir={output}", *more)
        results[name] = train_module.evaluate(TestSet(cfg), build())
        file = output / "inference" / "coco_instances_results.json"
        predictions[name] = json.loads(file.read_text(encoding="utf-8"))
        assert (output / "results.json").exists()
    assert results["one"].keys() == {"bbox", "segm"}
    assert predictions["one"] == predictions["plain"] != predictions["two"]
    assert 0 < len(predictions["two"]) <= 6 * 30


def test_predictor(build, repository, tiny_overrides, picture, tmp_path):
    file = tmp_path / "tiny.pth"
    torch.save({"model": build().state_dict()}, file)

    def load(*more, **settings):
        return Predictor.from_config(
            repository / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py",
            weights=file,
            score_threshold=0.05,
            overrides=(*tiny_overrides, *more),
            **settings,
        )

    plain, one = load(), load("test.aug.min_sizes=[128]")
    assert isinstance(one.model, EVARCNNWithTTA)
    expected, found = plain(picture), one(picture)
    assert len(expected) > 3
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    boxes = (instances.pred_boxes.tensor for instances in (found, expected))
    torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)
    two = load("test.aug.min_sizes=[112,144]")(picture)
    assert not torch.equal(two.scores, expected.scores)
