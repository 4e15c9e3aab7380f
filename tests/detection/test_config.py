"""What the config files are made with."""

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from eva_detection.config.checks import check_arguments
from eva_detection.config.overrides import check_overrides
from eva_detection.config.recipes import (
    drop_masks,
    set_image_size,
    stock_config,
)
from eva_detection.config.settings import check_device

COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"


@pytest.fixture
def cfg(load_config):
    return load_config(COCO)


@pytest.mark.parametrize(
    "override",
    [
        "train.seed=3",
        "train.amp.precision=bf16",
        "train.ddp.find_unused_parameters=True",
        "train.max_bad_images=0",
        "+optimizer.max_grad_norm=1.0",
        "model.roi_heads.use_soft_nms=True",
        "dataloader.train.total_batch_size=8",
        "dataloader.evaluator.max_dets_per_image=1000",
        "lr_multiplier.scheduler.milestones=[10]",
    ],
)
def test_settings_that_are_read(cfg, override):
    check_overrides(cfg, [override])


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.acumulate=8", "train.accumulate"),
        ("train.amp.precison=bf16", "train.amp.precision"),
        ("+train.progres_bar=True", "train.progress_bar"),
        ("dataloader.evalutor.tasks=[bbox]", "dataloader.evaluator"),
        ("modle.backbone.square_pad=1536", "model"),
    ],
)
def test_settings_that_nothing_reads(cfg, override, meant):
    with pytest.raises(ValueError, match=rf"nothing reads it; known: .*{meant}"):
        check_overrides(cfg, [override])


def test_the_canvas_is_set_everywhere(cfg):
    set_image_size(cfg.model, cfg.dataloader, 640)
    assert cfg.model.backbone.square_pad == 640
    assert cfg.model.backbone.net.img_size == 1280
    resize, crop = cfg.dataloader.train.mapper.augmentations[1:]
    assert (resize.target_height, resize.target_width) == (640, 640)
    assert tuple(crop.crop_size) == (640, 640)
    test = cfg.dataloader.test.mapper.augmentations[0]
    assert (test.short_edge_length, test.max_size) == (640, 640)


def test_boxes_alone(cfg):
    drop_masks(cfg.model, cfg.dataloader)
    assert not any("mask" in name for name in cfg.model.roi_heads)
    assert not cfg.dataloader.train.mapper.use_instance_mask


def test_an_unknown_stock_config():
    with pytest.raises(ValueError, match=r"ships no config 'common/nothing\.py'"):
        stock_config("common/nothing.py")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.acumulate=8", r"train_net.py: unknown setting 'train.acumulate'"),
        (
            "train.init_checkpoint=eva_nothing.pth",
            r"train_net.py: there is no file 'eva_nothing.pth'",
        ),
        (
            "model.backbone.net.dept=3",
            r"train_net.py: unknown setting model.backbone.net.dept: .* known: depth",
        ),
    ],
)
def test_train_net_says_it_in_one_sentence_and_at_once(load_config, repository, override, message):
    from detectron2.engine import default_argument_parser

    from eva_detection.training.train import run

    path = repository / "detection" / "configs" / f"{COCO}.py"
    arguments = ["--config-file", str(path), "train.output_dir=unused", override]
    with pytest.raises(SystemExit, match=message):
        run(default_argument_parser().parse_args(arguments))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "give a recipe with --config-file"),
        ("nope.py", r"--config-file nope\.py cannot be read"),
    ],
)
def test_train_net_without_a_recipe(file, message):
    from detectron2.engine import default_argument_parser

    from eva_detection.training.train import run

    with pytest.raises(SystemExit, match=f"^train_net.py: {message}"):
        run(default_argument_parser().parse_args(["--config-file", file]))


def test_a_recipe_that_is_no_python(tmp_path):
    from detectron2.engine import default_argument_parser

    from eva_detection.training.train import run

    (tmp_path / "broken.py").write_text("model = (")
    with pytest.raises(SystemExit, match=r"^train_net.py: --config-file .*broken\.py cannot be"):
        run(default_argument_parser().parse_args(["--config-file", str(tmp_path / "broken.py")]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.nope=1", r"model\.nope: EVARCNN takes no 'nope'"),
        ("model.roi_heads.use_soft_nsm=True", r"EVACascadeROIHeads .* known: use_soft_nms"),
        ("model.roi_heads.box_predictors.1.test_topk=1", r"predictors\.1\..* test_topk_per_image"),
        ("lr_multiplier.scheduler.milestone=[1]", "takes no 'milestone'; known: .*milestones"),
    ],
)
def test_names_that_a_class_does_not_take(cfg, override, message):
    sections = ["model", "lr_multiplier", "nothing"]
    check_arguments(cfg, sections)
    changed = LazyConfig.apply_overrides(cfg, [override])
    with pytest.raises(ValueError, match=message):
        check_arguments(changed, sections)


def test_targets_of_a_saved_config(tmp_path, cfg):
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    saved = LazyConfig.load(str(tmp_path / "config.yaml"))
    check_arguments(saved, ["model", "optimizer"])
    saved.model.backbone._target_ = "eva_detection.model.backbone.Nothing"
    with pytest.raises(ValueError, match=r"^model\.backbone: "):
        check_arguments(saved, ["model"])


def test_a_class_that_takes_any_name():
    check_arguments(
        OmegaConf.create({"model": {"_target_": "builtins.dict", "anything": 1}}), ["model"]
    )


def test_devices():
    check_device("cpu")
    with pytest.raises(ValueError, match=r"^device 'gpu' cannot be used here: [^\n]+$"):
        check_device("gpu")
    with pytest.raises(ValueError, match=r"^device 'cuda:99' cannot be used here: [^\n]+$"):
        check_device("cuda:99")
