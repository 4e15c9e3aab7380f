"""What the config files are made with."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import LVISEvaluator
from omegaconf import OmegaConf

from eva_detection.config import checks
from eva_detection.config.checks import check_arguments, check_evaluator
from eva_detection.config.command_line import load_config as load_checked
from eva_detection.config.overrides import check_overrides
from eva_detection.config.parser import make_parser
from eva_detection.config.recipes import (
    drop_masks,
    load_recipe,
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
    with pytest.raises(ValueError, match=rf"nothing reads it; (known|close to it): .*{meant}"):
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
            r"train_net.py: unknown setting model.backbone.net.dept: .* close to it: depth",
        ),
        (
            "dataloader.evaluator._target_=detectron2.evaluation.LVISEvaluator",
            r"train_net.py: dataloader.evaluator is detectron2's LVISEvaluator, .* np\.float",
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
    ("name", "use"),
    [
        ("detectron2.evaluation.LVISEvaluator", "refused"),
        ("detectron2.evaluation.lvis_evaluation.LVISEvaluator", "refused"),
        ("detectron2.evaluation.COCOEvaluator", "taken"),
        ("eva_detection.evaluation.evaluators.LvisEvaluator", "taken"),
        (LVISEvaluator, "refused"),
        (type("Mine", (LVISEvaluator,), {}), "refused"),
        (None, "taken"),
    ],
)
def test_an_evaluation_that_would_fail_at_its_end(cfg, monkeypatch, name, use):
    if name is None:
        del cfg.dataloader.evaluator
    else:
        cfg.dataloader.evaluator._target_ = name
    if use == "refused":
        with pytest.raises(
            ValueError, match=r"set dataloader\.evaluator\._target_=(\S+), which"
        ) as e:
            check_evaluator(cfg)
        named = str(e.value).partition("_target_=")[2].partition(",")[0]
        cfg.dataloader.evaluator._target_ = named  # what the message says works
        check_evaluator(cfg)
        assert instantiate(cfg.dataloader.evaluator).metrics["APr"] == "APr"
    else:
        check_evaluator(cfg)
    if name is not None:  # with a numpy, or a package lvis, that do not need each other's np.float
        cfg.dataloader.evaluator._target_ = LVISEvaluator
        monkeypatch.setattr(np, "float", float, raising=False)
        check_evaluator(cfg)


def test_detectron2_s_lvis_evaluation_is_still_broken():
    """When this fails, the package lvis has been repaired, and nothing is refused any longer."""
    assert checks._lvis_uses_np_float()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "name a recipe, such as demo/"),
        ("nope.py", r"there is no recipe 'nope\.py'"),
    ],
)
def test_train_net_without_a_recipe(file, message):
    from detectron2.engine import default_argument_parser

    from eva_detection.training.train import run

    with pytest.raises(SystemExit, match=f"^train_net.py: {message}"):
        run(default_argument_parser().parse_args(["--config-file", file]))


@pytest.mark.parametrize(
    "name",
    [
        "demo/cascade_mask_rcnn_vitdet_eva_debug.py",
        "demo/cascade_mask_rcnn_vitdet_eva_debug",
        "cascade_mask_rcnn_vitdet_eva_debug",
        "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py",
    ],
)
def test_a_recipe_by_name(name, repository, tmp_path, monkeypatch):
    """As `train_net.py` takes it, and what `demo.py`, `export.py` and `Predictor` call."""
    monkeypatch.chdir(tmp_path)
    args = make_parser().parse_args(["--config-file", name])
    cfg, _ = load_checked(args)
    assert cfg.train.max_iter == 450
    expected = repository / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
    assert Path(args.config_file) == expected  # what the log of a run shows
    assert load_recipe(name, ["train.max_iter=3"]).train.max_iter == 3


def test_an_unknown_recipe_names_close_ones():
    args = make_parser().parse_args(["--config-file", "coco/cascade_mask_rcnn_vitdet_eva_g_1230"])
    with pytest.raises(ValueError, match=r"there is no recipe .*eva_g_1280"):
        load_checked(args)


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
        ("model.roi_heads.use_soft_nsm=True", r"EVACascadeROIHeads .* close to it: use_soft_nms"),
        ("model.roi_heads.box_predictors.1.test_topk=1", r"predictors\.1\..* test_topk_per_image"),
        ("lr_multiplier.scheduler.milestone=[1]", "takes no 'milestone'; close to it: milestones"),
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=null", "model=None: the config needs a section model"),
        ("model.roi_heads.num_classes=3", "num_classes=3, but the data has 2 classes: leave the"),
        ("train.max_iter=[", r"the setting 'train.max_iter=\[' cannot be applied"),
        ("train.device=gpu", "device 'gpu' cannot be used here"),
        ("train.device=${nothing}", "the config cannot be resolved: "),
    ],
)
def test_programs_that_build_the_model_alone_check_it_too(cfg, tmp_path, override, message):
    cfg.dataloader.test.dataset.categories = {1: "cat", 2: "dog"}
    cfg.model.roi_heads.num_classes = 2
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    load_recipe(str(tmp_path / "config.yaml"), device="cpu")
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(str(tmp_path / "config.yaml"), [override])
    assert "\n" not in str(error.value)


def test_devices():
    check_device("cpu")
    with pytest.raises(ValueError, match=r"^device 'gpu' cannot be used here: [^\n]+$"):
        check_device("gpu")
    with pytest.raises(ValueError, match=r"^device 'cuda:99' cannot be used here: [^\n]+$"):
        check_device("cuda:99")
