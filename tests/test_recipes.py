"""Recipes have the numbers of the paper and of the official files: `recipes.csv`.

Warm-up and length are epochs in `pretrain`, `classification`, `video` and `clip`, else iterations;
batch is the images of a step of all processes. An empty cell was not published, or is no setting.
`more` has settings of the engine's configs by their paths; `none` is an empty one.
"""

import csv
import importlib
from dataclasses import asdict
from pathlib import Path

import pytest

from eva_runs.recipes import find_recipe, list_recipes

pytestmark = pytest.mark.smoke
with Path(__file__).with_name("recipes.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PROJECTS = tuple(dict.fromkeys(row["project"] for row in ROWS))
NOT_OF_THE_PAPER = ("demo/", "custom/", "upstream/", "_lora_", "_24gb", "_tta", "_ms")
CONFIGS = {
    "pretrain": "eva_pretrain.config.PretrainConfig",
    "classification": "eva_classification.config.ClassificationConfig",
    "video": "eva_video.config.VideoConfig",
    "clip": "eva_contrastive.config.ContrastiveConfig",
}


def flatten(settings, prefix=""):
    """Path -> value of nested settings."""
    flat = {}
    for name, value in settings.items():
        nested = flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat |= nested or {prefix + name: str(value) if isinstance(value, bool) else value}
    return flat


def settings_of_engine(project, path, processes):
    from eva_engine.commands.training import load_recipe

    module, _, name = CONFIGS[project].rpartition(".")
    config = load_recipe(path, getattr(importlib.import_module(module), name))
    optimizer, run = config.optimizer, config.run
    model = getattr(config, "student" if project == "pretrain" else "model")
    augment = config.data if project == "clip" else getattr(config, "augment", None)
    names = ("label_smoothing", "mixup", "cutmix", "scale", "crop_scale")
    augmentations = {name: getattr(augment, name, None) for name in names}
    names = ("lr", "min_lr", "layer_decay", "betas", "eps", "weight_decay", "clip_grad")
    return flatten(asdict(config)) | augmentations | {
        **{name: getattr(optimizer, name, None) for name in names},
        "warmup": optimizer.warmup_epochs, "length": run.epochs,
        "batch": run.batch_size * run.accumulate * processes,
        "drop_path": model.drop_path_rate, "ema": run.ema_decay, "size": model.image_size,
        "precision": run.precision, "smoothing": augmentations["label_smoothing"],
        "scale": augmentations["crop_scale" if project == "clip" else "scale"],
        "frames": getattr(model, "frames", None),
    }  # fmt: skip


def settings_of_detectron2(project, path, processes):
    from detectron2.config import LazyConfig

    cfg = LazyConfig.load(str(path))
    optimizer, schedule, net = cfg.optimizer, cfg.lr_multiplier, cfg.model.backbone.net
    decay = optimizer.params.lr_factor_func.keywords["lr_decay_rate"]
    (head, *others) = cfg.model.roi_heads.box_predictors
    assert all(other.get("test_score_thresh") == head.get("test_score_thresh") for other in others)
    return {
        "lr": optimizer.lr, "layer_decay": decay,
        "warmup": schedule.warmup_length * cfg.train.max_iter, "length": cfg.train.max_iter,
        "batch": cfg.dataloader.train.total_batch_size, "betas": optimizer.betas,
        "eps": optimizer.eps, "weight_decay": optimizer.weight_decay,
        "drop_path": net.drop_path_rate, "size": cfg.model.backbone.square_pad or net.canvas,
        "milestones": schedule.scheduler.milestones or "none",
        "threshold": head.get("test_score_thresh"),
        "detections": head.get("test_topk_per_image", 100),
    }  # fmt: skip


def settings_of_openmmlab(project, path, processes):
    from mmengine.config import Config

    cfg = Config.fromfile(path)
    optimizer, decay = cfg.optim_wrapper.optimizer, cfg.optim_wrapper.paramwise_cfg.layer_decay
    length = cfg.train_cfg.max_iters
    common = {
        "lr": optimizer.lr, "layer_decay": decay, "length": length, "betas": optimizer.betas,
        "eps": optimizer.eps, "weight_decay": optimizer.weight_decay,
        "clip_grad": (cfg.optim_wrapper.get("clip_grad") or {}).get("max_norm", 0),
        "drop_path": cfg.model.backbone.drop_path_rate,
        "precision": {"OptimWrapper": "fp32", "AmpOptimWrapper": "fp16"}[cfg.optim_wrapper.type],
    }  # fmt: skip
    (schedule, *_) = cfg.param_scheduler
    if schedule.type == "TwoStagePolyLR":
        data, warmups = cfg.model.data_preprocessor, (schedule.head_warmup, schedule.vit_warmup)
        return common | {
            "warmup": [share * length for share in warmups],
            "size": data.get("pad_size_divisor") or data.size[0],
            "batch": cfg.train_dataloader.batch_size * processes,
        }
    if project == "segmentation":
        return common | {
            "warmup": schedule.warmup_iters, "size": cfg.model.data_preprocessor.size[0],
            "batch": cfg.train_dataloader.batch_size * processes,
        }  # fmt: skip
    boxes = cfg.model.test_cfg.rcnn
    return common | {
        "warmup": schedule.warmup * length, "batch": cfg.auto_scale_lr.base_batch_size,
        "size": cfg.model.data_preprocessor.pad_size_divisor,
        "milestones": [step * length for step in schedule.get("steps") or []] or "none",
        "threshold": boxes.score_thr, "detections": boxes.max_per_img,
    }  # fmt: skip


READERS = dict.fromkeys(CONFIGS, settings_of_engine) | {
    "detection": settings_of_detectron2,
    "mmdetection": settings_of_openmmlab,
    "segmentation": settings_of_openmmlab,
}


def parse(cell):
    """Read a cell: numbers, or a word."""
    try:
        return [float(word) for word in cell.split()]
    except ValueError:
        return cell


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['project']}-{row['recipe']}")
def test_the_published_numbers(row):
    project, name = row["project"], row["recipe"]
    expected = {
        setting: parse(cell)
        for setting, cell in row.items()
        if cell and setting not in ("project", "recipe", "source", "processes", "more")
    }
    more = dict(pair.split("=", 1) for pair in row["more"].split("; ") if pair)
    expected |= {setting: parse(value) for setting, value in more.items()}
    path = find_recipe(project, name)
    settings = READERS[project](project, path, int(row["processes"] or 1))
    for setting, values in expected.items():
        actual = settings[setting]
        if isinstance(actual, int | float):
            actual = [actual]
        if not isinstance(values, str):
            values = pytest.approx(values, rel=1e-6)
        assert (actual or "none" if isinstance(actual, str) else list(actual)) == values, setting


@pytest.mark.parametrize("project", PROJECTS)
def test_the_table_has_every_recipe_of_eva_g(project):
    listed = {row["recipe"] for row in ROWS if row["project"] == project}
    recipes = {recipe.name for recipe in list_recipes(project) if "eva_g_" in recipe.name}
    recipes = {name for name in recipes if not any(word in name for word in NOT_OF_THE_PAPER)}
    assert recipes <= listed, recipes - listed
