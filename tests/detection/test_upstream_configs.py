"""Our backbone inside detectron2's own configs: a LazyConfig that it ships, and yacs."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.engine import DefaultPredictor, DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import StandardROIHeads, build_backbone, build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from eva_backbone import get_vit_lr_decay_rate
from eva_detection.config.recipes import stock_config
from eva_detection.model.backbone import EVAViTDet, add_eva_config
from eva_detection.model.rcnn import EVARCNN
from eva_detection.training.optimizer import build_adamw

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]
UPSTREAM = Path(__file__).resolve().parents[2] / "detection" / "configs" / "upstream"
LAZY = "upstream/mask_rcnn_vitdet_eva_g_1024"
TINY_LAZY = (
    "model.backbone.net.depth=2",
    "model.backbone.net.embed_dim=32",
    "model.backbone.net.num_heads=2",
    "model.backbone.net.mlp_dim=64",
    "model.backbone.net.img_size=128",
    "model.backbone.net.window_size=4",
    "model.backbone.net.global_attn_indexes=[1]",
    "model.backbone.square_pad=128",
    "model.backbone.net.drop_path_rate=0.0",
    "model.roi_heads.batch_size_per_image=8",
    "model.roi_heads.num_classes=10",
    "model.roi_heads.box_predictor.test_score_thresh=0.0",
    "model.proposal_generator.post_nms_topk=[20,20]",
)
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


def _labelled(size):
    """An image with one object."""
    objects = Instances((size, size))
    objects.gt_boxes = Boxes(torch.tensor([[20.0, 20, 70, 80]]))
    objects.gt_classes = torch.tensor([4])
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, 20:80, 20:70] = True
    objects.gt_masks = BitMasks(mask)
    return {"image": torch.rand(3, size, size) * 255, "instances": objects}


def test_the_lazy_config_inherits_all_but_the_backbone(load_config):
    cfg = load_config(LAZY)
    stock = stock_config("common/models/mask_rcnn_vitdet.py").model
    assert {name for name in stock if cfg.model[name] != stock[name]} == {"_target_", "backbone"}
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert type(model) is EVARCNN
    assert type(model.backbone) is EVAViTDet
    assert type(model.proposal_generator) is RPN
    assert type(model.roi_heads) is StandardROIHeads
    assert model.backbone.padding_constraints == {"size_divisibility": 32, "square_size": 1024}
    assert model.backbone.net.blocks[3].attn.rel_pos_h.shape[0] == 2 * 1024 // 16 - 1


def test_the_lazy_config_trains_and_detects(load_config):
    model = instantiate(load_config(LAZY, *TINY_LAZY).model)
    with EventStorage():
        losses = model.train()([_labelled(128)])
    assert losses.keys() == {
        "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"
    }  # fmt: skip
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.backbone.net.parameters() if p.requires_grad]
    assert all(one is not None and one.isfinite().all() for one in gradients)
    with torch.no_grad():
        (found,) = model.eval()([{"image": torch.rand(3, 100, 128) * 255}])
    assert len(found["instances"]) > 0
    assert found["instances"].pred_masks.shape[1:] == (100, 128)


def test_three_lines_register_what_the_yacs_file_names(run_started, tmp_path):
    file = UPSTREAM / "cascade_mask_rcnn_vitdet_eva_g.yaml"
    script = f"""
from detectron2.config import get_cfg
from eva_detection.model.backbone import add_eva_config
cfg = get_cfg(); add_eva_config(cfg); cfg.merge_from_file({str(file)!r})
from detectron2.modeling import META_ARCH_REGISTRY, BACKBONE_REGISTRY
META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)
"""
    done = run_started("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr


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


def _facts(model):
    """What does not show in names and shapes of parameters."""
    proposals, heads = model.proposal_generator, model.roi_heads
    names = (
        "pre_nms_topk",
        "post_nms_topk",
        "nms_thresh",
        "batch_size_per_image",
        "smooth_l1_beta",
    )
    found = {name: getattr(proposals, name) for name in names}
    found["anchors"] = [tuple(one.shape) for one in proposals.anchor_generator.cell_anchors]
    for index, predictor in enumerate(heads.box_predictor):
        for name in (
            "test_score_thresh",
            "test_nms_thresh",
            "test_topk_per_image",
            "smooth_l1_beta",
        ):
            found[f"{name}{index}"] = getattr(predictor, name)
        found[f"weights{index}"] = predictor.box2box_transform.weights
    found["matchers"] = [one.thresholds for one in heads.proposal_matchers]
    for name in (
        "batch_size_per_image",
        "positive_fraction",
        "box_in_features",
        "mask_in_features",
    ):
        found[f"heads {name}"] = getattr(heads, name)
    for name in ("box_pooler", "mask_pooler"):
        pooler = getattr(heads, name)
        levels = [(one.output_size, one.spatial_scale, one.sampling_ratio, one.aligned)
                  for one in pooler.level_poolers]  # fmt: skip
        found[name] = (levels, pooler.canonical_box_size, pooler.canonical_level)
    return found | {"format": model.input_format}


def test_the_yacs_file_is_the_coco_recipe(yacs, load_config):
    """Every name, shape and setting: the official detectors load as `MODEL.WEIGHTS`."""
    recipe = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1280").model
    cfg = yacs("MODEL.DEVICE", "meta")
    with torch.device("meta"):
        ours, lazy = build_model(cfg), instantiate(recipe)
    shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (ours, lazy)]
    assert shapes[0] == shapes[1]
    assert _facts(ours) == _facts(lazy)
    assert list(recipe.pixel_mean) == cfg.MODEL.PIXEL_MEAN
    assert list(recipe.pixel_std) == cfg.MODEL.PIXEL_STD


def test_a_config_for_another_backbone_is_named(yacs, caplog):
    """`KeyError: 'res4'` came without a reason, and BGR pixels without a word."""
    bare = get_cfg()
    add_eva_config(bare)
    bare.MODEL.BACKBONE.NAME = "EVAViTDet"
    with torch.device("meta"):
        build_backbone(bare)
    (text,) = [one.getMessage() for one in caplog.records]
    assert text.startswith("the config has values for another backbone: INPUT.FORMAT BGR (EVA's")
    for part in (
        "PIXEL_MEAN [103.53, 116.28, 123.675] (of BGR",
        "PIXEL_STD [1.0, 1.0, 1.0]",
        "RPN.IN_FEATURES ['res4']",
        "ROI_HEADS.IN_FEATURES",
    ):
        assert part in text
    assert text.endswith("upstream/cascade_mask_rcnn_vitdet_eva_g.yaml")
    caplog.clear()
    with torch.device("meta"):
        build_backbone(yacs())
    assert not caplog.records


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


def test_adamw_decays_by_layer(yacs):
    cfg = yacs(*TINY_YACS, "SOLVER.BASE_LR", 1e-3)
    model = build_model(cfg)
    optimizer = build_adamw(cfg, model, lr_decay_rate=0.5)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 1e-3 * get_vit_lr_decay_rate(name, lr_decay_rate=0.5, num_layers=12)
            assert rate[id(parameter)] == pytest.approx(expected), name
    assert len(set(rate.values())) == 14
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
