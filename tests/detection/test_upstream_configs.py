"""Our backbone inside detectron2's own configs: a LazyConfig that it ships, and yacs."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.engine import DefaultPredictor, DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model

from eva_detection.model.backbone import add_eva_config
from eva_detection.optimizer import build_adamw

UPSTREAM = Path(__file__).resolve().parents[2] / "detection" / "configs" / "upstream"
TINY_YACS = (
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.EVA.VARIANT", "eva_ti_patch16"),
    *("MODEL.EVA.IMG_SIZE", 128),
    *("MODEL.EVA.SQUARE_PAD", 128),
    *("MODEL.EVA.WINDOW_SIZE", 4),
    *("MODEL.EVA.GLOBAL_ATTN_INDEXES", [5, 11]),
    *("MODEL.EVA.OUT_CHANNELS", 32),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 20),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.ROI_HEADS.NUM_CLASSES", 10),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", 16),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    *("DATASETS.TRAIN", ("digit_scenes_train",)),
    *("DATASETS.TEST", ("digit_scenes_val",)),
    *("DATALOADER.NUM_WORKERS", 0),
    *("INPUT.MASK_FORMAT", "bitmask"),
    *("INPUT.MIN_SIZE_TRAIN", (128,)),
    *("INPUT.MAX_SIZE_TRAIN", 128),
    *("INPUT.MIN_SIZE_TEST", 128),
    *("INPUT.MAX_SIZE_TEST", 128),
    *("SOLVER.IMS_PER_BATCH", 2),
    *("SOLVER.AMP.ENABLED", False),
    *("SOLVER.MAX_ITER", 1),
    *("SOLVER.STEPS", ()),
    *("SOLVER.WARMUP_ITERS", 0),
)


@pytest.fixture
def yacs():
    """Function: the yacs config of three lines, with overrides."""

    def load(*overrides):
        cfg = get_cfg()
        add_eva_config(cfg)
        cfg.merge_from_file(str(UPSTREAM / "cascade_mask_rcnn_vitdet_eva_g.yaml"))
        cfg.merge_from_list(list(overrides))
        return cfg

    return load


def test_the_yacs_file_is_the_coco_recipe(yacs, load_config):
    """Every name, shape and setting: the official detectors load as `MODEL.WEIGHTS`."""
    recipe = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1280").model
    cfg = yacs("MODEL.DEVICE", "meta")
    with torch.device("meta"):
        ours, lazy = build_model(cfg), instantiate(recipe)
    shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (ours, lazy)]
    assert shapes[0] == shapes[1]
    assert list(recipe.pixel_mean) == cfg.MODEL.PIXEL_MEAN
    assert list(recipe.pixel_std) == cfg.MODEL.PIXEL_STD


class Trainer(DefaultTrainer):
    """As in detection/README.md."""

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_adamw(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)


def test_detectron2_s_trainer_and_predictor(
    yacs, registered_demo_data, own_logging, tmp_path, picture, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    cfg = yacs(*TINY_YACS, "OUTPUT_DIR", str(tmp_path), "TEST.EVAL_PERIOD", 0)
    default_setup(cfg, None)
    trainer = Trainer(cfg)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    losses = {name for name in trainer.storage.histories() if "loss" in name}
    assert {"loss_rpn_cls", "loss_cls_stage2", "loss_mask", "total_loss"} <= losses
    assert trainer.storage.history("total_loss").latest() > 0
    after = trainer.model.state_dict()
    assert not torch.equal(after["backbone.net.pos_embed"], before["backbone.net.pos_embed"])
    frozen = "backbone.net.patch_embed.proj.weight"
    assert torch.equal(after[frozen], before[frozen])

    cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    predictor = DefaultPredictor(cfg)
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, after[name]), name
    found = predictor(picture)["instances"]
    assert found.image_size == picture.shape[:2]
    assert len(found) > 0
