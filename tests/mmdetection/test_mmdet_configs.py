"""Each recipe of mmdetection: it builds, states what the recipe of detectron2 does, and is data."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from eva_openmmlab import config as configuration
from eva_openmmlab.optimizer import EVALayerDecayConstructor, EVAWarmupLR
from eva_runs.recipes import list_recipes

RECIPES = [r.name for r in list_recipes("mmdetection") if "rcnn" in r.name]  # others have no twin


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_builds_and_its_parameters_are_those_of_detectron2(name, load_config, twin):
    cfg, other = load_config(name), twin(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
        theirs = instantiate(other.model)
    ours = sorted(tuple(value.shape) for value in model.parameters())
    assert ours == sorted(tuple(value.shape) for value in theirs.parameters())
    frozen = sum(v.numel() for v in model.parameters() if not v.requires_grad)
    assert frozen == sum(v.numel() for v in theirs.parameters() if not v.requires_grad)
    nets = model.backbone.net, theirs.backbone.net
    for key in ("rel_pos", "window_size", "img_size", "canvas"):
        assert len({str(getattr(net, key, None)) for net in nets}) == 1, key
    assert model.backbone.net.patch_size == theirs.backbone.net.patch_size
    divisor = theirs.backbone.square_pad or theirs.backbone.size_divisibility
    assert cfg.model.data_preprocessor.pad_size_divisor == divisor


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_the_schedule_optimizer_data_and_rules_of_detectron2(
    name, load_config, twin
):
    cfg, other = load_config(name), twin(name)
    accumulate = other.train.get("accumulate", 1)
    assert cfg.train_cfg.max_iters == other.train.max_iter * accumulate
    settings = cfg.optim_wrapper.optimizer
    assert settings.lr == other.optimizer.lr
    assert settings.weight_decay == other.optimizer.weight_decay
    decay = other.optimizer.params.lr_factor_func.keywords
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay == decay["lr_decay_rate"]
    clip = (cfg.optim_wrapper.get("clip_grad") or {}).get("max_norm")
    assert clip == other.optimizer.get("max_grad_norm")
    (scheduler,) = cfg.param_scheduler
    kinds = {key: value for key, value in scheduler.items() if key != "type"}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    iters = cfg.train_cfg.max_iters
    ours = EVAWarmupLR(optimizer, end=iters, **kinds)
    multiplier = instantiate(other.lr_multiplier)
    for step in range(0, iters, max(iters // 60, 1)):
        assert ours.factor(step) == pytest.approx(multiplier(step / iters), rel=1e-6), step

    if "custom/" not in name and "demo/" not in name:
        assert cfg.auto_scale_lr.base_batch_size == other.dataloader.train.total_batch_size
    rules = cfg.model.test_cfg.rcnn
    for predictor in other.model.roi_heads.box_predictors:
        if not other.model.roi_heads.get("use_soft_nms"):
            assert rules.score_thr == predictor.test_score_thresh
            assert rules.max_per_img == predictor.get("test_topk_per_image", 100)
    assert rules.maskness_thr == other.model.roi_heads.get("maskness_thresh")
    assert cfg.load_from == (other.train.init_checkpoint or None) or "objects365" in name


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_names_data_sets_and_metrics_that_fit_its_heads(name, load_config):
    cfg = load_config(name)
    counts = {head.num_classes for head in cfg.model.roi_head.bbox_head}
    for loader in configuration.LOADERS:
        for part in configuration.parts_of(cfg[loader].dataset):
            dataset = DATASETS.build({**part, "lazy_init": True})
            assert {len(dataset.metainfo["classes"])} == counts
            assert dataset.test_mode == (loader != "train_dataloader")
            assert str(Path(part.data_root) / part.ann_file) == dataset.ann_file
    (tested,) = configuration.parts_of(cfg.test_dataloader.dataset)
    assert cfg.test_evaluator == cfg.val_evaluator
    assert cfg.test_evaluator.ann_file == str(Path(tested.data_root) / tested.ann_file)
    assert METRICS.get(cfg.test_evaluator.type) is not None
    masks = cfg.model.roi_head.mask_head is not None
    assert ("segm" in cfg.test_evaluator.metric) == masks


def test_the_optimizer_groups_a_detector_by_layers_and_decays_everything(tiny):
    cfg = Config.fromfile(tiny / "tiny.py")
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert EVALayerDecayConstructor.__name__ == cfg.optim_wrapper.constructor
    groups = wrapper.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.05}
    assert [group["lr"] for group in groups] == pytest.approx([1e-3 * 0.8**k for k in (3, 2, 1, 0)])
    counted = sum(value.numel() for group in groups for value in group["params"])
    assert counted == sum(value.numel() for value in model.parameters())
