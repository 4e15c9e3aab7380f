"""Detectors by the names of their recipes, with the functions of `detectron2.model_zoo`.

model = model_zoo.get("coco/cascade_mask_rcnn_vitdet_eva_g_1536_det.py", trained=True)
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from omegaconf import DictConfig, OmegaConf
from torch import nn

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.registry import REPOSITORY, find_official_file
from eva_detection.building import build, load_initial_weights
from eva_detection.config.files import load_config_file
from eva_detection.model.backbone import add_eva_config
from eva_detection.model.rcnn import EVARCNN as EVARCNN  # yacs configs name it
from eva_runs.precision import require_device
from eva_runs.recipes import find_recipe, recipe_name

# Recipe -> the official file that its training gave, or whose published results it gives.
PUBLISHED: Mapping[str, str] = {
    "objects365/cascade_mask_rcnn_vitdet_eva_g_1280.py": "eva_o365.pth",
    "coco/cascade_mask_rcnn_vitdet_eva_g_1280.py": "eva_coco_seg.pth",
    "coco/cascade_mask_rcnn_vitdet_eva_g_1536.py": "eva_coco_seg.pth",
    "coco/cascade_mask_rcnn_vitdet_eva_g_1536_det.py": "eva_coco_det.pth",
    "coco/cascade_mask_rcnn_vitdet_eva_g_1536_seg.py": "eva_coco_seg.pth",
    "coco/cascade_mask_rcnn_vitdet_eva_g_tta.py": "eva_coco_det.pth",
    "lvis/cascade_mask_rcnn_vitdet_eva_g_1280.py": "eva_lvis.pth",
    "lvis/cascade_mask_rcnn_vitdet_eva_g_1536.py": "eva_lvis.pth",
    "upstream/cascade_mask_rcnn_vitdet_eva_g.yaml": "eva_coco_seg.pth",
}
_URL = "https://huggingface.co/{repository}/resolve/main/{name}"


def get_config_file(config_path: str | os.PathLike[str]) -> str:
    """Return the path of a recipe; a ValueError names the closest ones if there is none."""
    return str(find_recipe("detection", config_path))


def get_checkpoint_url(config_path: str | os.PathLike[str]) -> str:
    """Return the address of the official detector of a recipe; nothing is downloaded."""
    entry = find_official_file(published_file(config_path))
    return _URL.format(repository=REPOSITORY, name=entry.name)


def published_file(config_path: str | os.PathLike[str]) -> str:
    """Return the name of the official detector of a recipe; a ValueError if there is none."""
    file = Path(get_config_file(config_path))
    name = Path(recipe_name("detection", file)).with_suffix(file.suffix).as_posix()
    if name not in PUBLISHED:
        raise ValueError(
            f"no trained detector of {name} was published: leave trained=True out and load weights "
            f"of your own, or take one of {', '.join(PUBLISHED)}"
        )
    return PUBLISHED[name]


def get_config(config_path: str | os.PathLike[str], trained: bool = False) -> DictConfig | CfgNode:
    """Load the config of a recipe: a LazyConfig, or a yacs config with `MODEL.EVA` for yacs' YAML.

    `trained` names the official detector of this recipe as the weights, otherwise they are those
    that training starts from: in `train.init_checkpoint` by name, in `MODEL.WEIGHTS` of a yacs
    config by the address, which detectron2 downloads. A ValueError if there is no such recipe, or
    no detector of it was published.
    """
    file = get_config_file(config_path)
    if re.search(r"^(MODEL|_BASE_|DATASETS|SOLVER):", Path(file).read_text(errors="replace"), re.M):
        cfg = get_cfg()
        add_eva_config(cfg)
        # by default it runs what tags name
        build(file, file, lambda file: cfg.merge_from_file(file, allow_unsafe=False))
        if trained:
            cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
        return cfg
    lazy = load_config_file(file)
    if trained:
        lazy.train.init_checkpoint = published_file(config_path)
    return lazy


def get(
    config_path: str | os.PathLike[str], trained: bool = False, device: str | None = None
) -> nn.Module:
    """Build the detector of a recipe, in training mode as detectron2's, with weights.

    With `trained` they are the official detector's of this recipe; otherwise what its training
    starts from, such as a backbone, or random values. `device` is the config's, or the CPU without
    CUDA.

    Raises:
        ValueError: If recipe, device or weights cannot be used.
        FileNotFoundError: If the weights are not at hand.
    """
    cfg = get_config(config_path, trained)
    yacs = isinstance(cfg, CfgNode)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    device_name = device or (cfg.MODEL.DEVICE if yacs else cfg.train.device)
    require_device(device_name)
    source = cfg.MODEL.WEIGHTS if yacs else OmegaConf.select(cfg, "train.init_checkpoint")
    if trained:
        source = published_file(config_path)
    if yacs:
        cfg.MODEL.DEVICE = device_name
    with no_init_weights(bool(source)):
        model = build(cfg, "model", build_model) if yacs else build(cfg.model, "model")
    load_initial_weights(model, source or "", complete=trained)
    return model.to(device_name)
