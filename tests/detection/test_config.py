"""The config of a run: its names, its overrides, and what would be wrong only after hours."""

import pytest
from detectron2.config import LazyConfig

from eva_detection import command_line
from eva_detection.building import training_precision
from eva_detection.config.files import load_config_file
from eva_detection.config.recipes import set_backbone
from eva_detection.config.settings import apply_request, check_config
from eva_runs.recipes import find_recipe

COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"


@pytest.fixture
def cfg(load_config):
    return load_config(COCO)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.device=cpu", "fp16 training needs a GPU"),
        ("dataloader.train.dataset.names=digit_scenes_train", "digit_scenes_train"),
        ("train.log_period=0", r"train\.log_period=0"),
        ("train.checkpointer.period=0", r"train\.checkpointer\.period=0"),
        ("train.max_iter=0", r"train\.max_iter=0"),
    ],
)
def test_what_would_fail_late(cfg, override, message, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for node in (cfg.dataloader.train, cfg.dataloader.test):
        node.dataset.names = "one_of_my_own"
    cfg.dataloader.test.dataset.categories = {1: "cat", 2: "dog"}
    cfg.model.roi_heads.num_classes, cfg.train.device = 2, "cuda"
    check_config(cfg, trains=True)
    changed = LazyConfig.apply_overrides(cfg, [override])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_config(changed, trains=True)


def test_another_backbone_leaves_the_strides_of_the_maps():
    """The small recipe has patches of 8 pixels, other ViTs' have 16."""
    cfg = load_config_file(find_recipe("detection", "custom/cascade_mask_rcnn_vitdet_eva_small"))
    before = [8 / scale for scale in cfg.model.backbone.scale_factors]
    set_backbone(cfg.model, cfg.optimizer, "eva02_ti14")
    assert cfg.model.backbone.net.patch_size == 16
    assert [16 / scale for scale in cfg.model.backbone.scale_factors] == before


@pytest.mark.parametrize("enabled", [False, True])
def test_a_precision_that_nothing_reads_is_refused(enabled):
    """The recipe trains in float32; the setting alone changed nothing, without a word."""
    recipe = "custom/cascade_mask_rcnn_vitdet_eva_small"
    settings = [f"train.amp.enabled={enabled}", "train.amp.precision=bf16"]
    request = command_line.parse([recipe, *settings])
    cfg = load_config_file(find_recipe("detection", recipe))
    if enabled:
        apply_request(cfg, request)
        assert training_precision(cfg.train) == "bf16"
    else:
        with pytest.raises(ValueError, match="set both"):
            apply_request(cfg, request)
