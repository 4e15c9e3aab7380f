"""Small detectors in mmdetection, their data, and their runs."""

import copy
import importlib
import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

importlib.import_module("eva_mmdetection.plugin")  # before anything of mmdetection
for module in ("federated_loss", "heads"):
    importlib.import_module(f"eva_mmdetection.model.{module}")

from mmdet.registry import MODELS  # noqa: E402

from eva_mmdetection.commands import train  # noqa: E402
from eva_mmdetection.parts import classes, extractor, testing, training  # noqa: E402
from eva_openmmlab import config as configuration  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "mmdetection" / "configs"
SIDE = 64  # of the pictures of small runs
NAMES = ("disc", "bar")
WARNINGS = (  # of mmdetection and its libraries
    "ignore:The draw is False:UserWarning",
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:torch.meshgrid:UserWarning",
)


def pytest_collection_modifyitems(items):
    """Pass over the libraries' warnings in the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(*WARNINGS))


@pytest.fixture(autouse=True)
def _scope(monkeypatch):
    before = DefaultScope.get_current_instance()
    init_default_scope("mmdet")
    # the engine's tests keep a process group of one
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    yield
    if before is not None:
        init_default_scope(before.scope_name)


NET: dict[str, object] = dict(
    img_size=64, pretrain_img_size=64, embed_dim=16, depth=2, num_heads=2, mlp_dim=32
)
NET |= dict(window_size=2, global_attn_indexes=[1], out_channels=8)
NET |= dict(drop_path_rate=0.0, activation_checkpointing=False)


@pytest.fixture(scope="session")
def build_small():
    """Function: a small cascade on the base of all recipes."""

    def build(num_classes=3, *, masks=True, seed=0, test=(), **changes):
        torch.manual_seed(seed)
        config = Config.fromfile(CONFIGS / "_base_/models/cascade_mask_rcnn_eva.py")
        heads = classes(num_classes, channels=8, hidden=16, convs=1)
        heads["mask_head"].update(in_channels=8, conv_out_channels=8, num_convs=1)
        heads["bbox_roi_extractor"] = extractor(7, channels=8)
        heads["mask_roi_extractor"] = extractor(14, channels=8)
        if not masks:
            heads |= dict(mask_head=None, mask_roi_extractor=None)
        rpn = dict(in_channels=8, feat_channels=8)
        test = dict(rcnn=dict(score_thr=0.0) | dict(test), rpn=dict(max_per_img=30))
        model = dict(backbone=NET, rpn_head=rpn, roi_head=heads | changes, test_cfg=test)
        model["data_preprocessor"] = dict(pad_size_divisor=64)
        config.merge_from_dict(dict(model=model))
        return MODELS.build(config.model)

    return build


@pytest.fixture(scope="session")
def configs():
    """Folder of the published configs."""
    return CONFIGS


@pytest.fixture(scope="session")
def load_config():
    """Function: a published config by its name below `mmdetection/configs`."""
    read = cache(lambda name: Config.fromfile(CONFIGS / f"{name}.py"))
    return lambda name: copy.deepcopy(read(name))


@pytest.fixture(scope="session")
def twin():
    """Function: the recipe of detection/ with the settings of one here."""

    @cache
    def read(name):
        name = name.replace("cascade_mask_rcnn_eva", "cascade_mask_rcnn_vitdet_eva")
        return LazyConfig.load(str(CONFIGS.parents[1] / "detection/configs" / f"{name}.py"))

    return lambda name: copy.deepcopy(read(name))


def _objects(generator, image, number):
    """Two boxes of bright pixels with their polygons, drawn into an image."""
    for place in range(2):
        width, height = generator.integers(14, 26, 2).tolist()
        x, y = generator.integers(0, (SIDE - width, SIDE - height)).tolist()
        image[y : y + height, x : x + width] = (250, 40 + 180 * place, 20)
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        yield {
            "id": 2 * number + place + 1,
            "image_id": number,
            "category_id": 3 + 4 * place,
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
            "segmentation": [corners],
        }


@pytest.fixture(scope="session")
def write_scenes():
    """Function: pictures of 64 px below a folder, each with two objects; returns the annotations.

    The categories are 3 "disc" and 7 "bar".
    """

    def write(folder, count, *, seed=0):
        folder.mkdir(parents=True)
        generator = np.random.default_rng(seed)
        images, objects = [], []
        for number in range(1, count + 1):
            image = generator.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
            objects += _objects(generator, image, number)
            Image.fromarray(image).save(folder / f"{number}.png")
            name = {"id": number, "file_name": f"{number}.png"}
            images.append(name | {"width": SIDE, "height": SIDE})
        categories = [{"id": 3, "name": NAMES[0]}, {"id": 7, "name": NAMES[1]}]
        return {"images": images, "annotations": objects, "categories": categories}

    return write


@pytest.fixture(scope="session")
def shrink():
    """Function: give a recipe a ViT of two blocks, few channels, 64 px and small batches."""

    def apply(cfg, *, count=2, **heads):
        levels = dict(channels=8, strides=(4, 8, 16), finest=14)
        cfg.model.data_preprocessor.pad_size_divisor = SIDE
        cfg.model.backbone.update(
            img_size=SIDE, pretrain_img_size=SIDE, patch_size=8, embed_dim=16, depth=2,
            num_heads=2, mlp_dim=24, window_size=4, global_attn_indexes=[1], out_channels=8,
            scale_factors=(2.0, 1.0, 0.5), extra_levels=0, activation_checkpointing=False,
            drop_path_rate=0.1, freeze_blocks=0,
        )  # fmt: skip
        cfg.model.rpn_head.update(in_channels=8, feat_channels=8, num_convs=1)
        anchors = dict(base_sizes=[16, 24, 36], strides=[4, 8, 16])
        cfg.model.rpn_head.anchor_generator.update(anchors)
        head = cfg.model.roi_head
        masks = head.mask_head is not None
        head.bbox_head = classes(count, channels=8, hidden=16, convs=1, **heads)["bbox_head"]
        head.bbox_roi_extractor = extractor(7, **levels)
        if masks:
            head.mask_roi_extractor = extractor(14, **levels)
            small = dict(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=count)
            head.mask_head.update(small)
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=60, max_per_img=20)
        cfg.model.train_cfg.rcnn[0].sampler.num = 12
        cfg.model.test_cfg.rpn.update(nms_pre=40, max_per_img=10)
        cfg.model.test_cfg.rcnn.update(max_per_img=6, score_thr=0.01)
        for part in configuration.parts_of(cfg.train_dataloader.dataset):
            part.pipeline = training(SIDE, ratios=(0.8, 1.2), masks=masks)
        for loader in ("val_dataloader", "test_dataloader"):
            cfg[loader].dataset.pipeline = testing(SIDE)
        cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for loader in ("val_dataloader", "test_dataloader"):
            cfg[loader].update(num_workers=0, persistent_workers=False)
        cfg.load_from, cfg.log_level = None, "WARNING"
        cfg.train_cfg.update(max_iters=3, val_interval=3)
        cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1
        return cfg

    return apply


@pytest.fixture(scope="session")
def tiny(load_config, shrink, write_scenes, tmp_path_factory):
    """Folder with `tiny.py`: the debug recipe in small, on six and two pictures of its own."""
    root = tmp_path_factory.mktemp("mmdet_tiny")
    (root / "annotations").mkdir()
    for seed, (part, count) in enumerate({"train": 6, "val": 2}.items()):
        data = write_scenes(root / part, count, seed=seed)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(data))
    cfg = shrink(load_config("demo/cascade_mask_rcnn_eva_debug"))
    for loader in configuration.LOADERS:
        cfg[loader].dataset.metainfo = dict(classes=list(NAMES))
    cfg.pop("randomness")
    configuration.set_data_root(cfg, root)
    cfg.dump(root / "tiny.py")
    return root


@pytest.fixture(scope="session")
def launch(mmengine_runs):
    """Function: run a program as its script does, and leave the process as it was."""
    return partial(mmengine_runs.launch, "mmdet")


@pytest.fixture(scope="session")
def tiny_run(tiny, launch):
    """Work folder of three iterations of `tiny.py`; the seed was named on the command line."""
    seed = ("--cfg-options", "randomness.seed=3")
    launch(train, tiny / "tiny.py", "--work-dir", tiny / "run", *seed)
    return tiny / "run"


@pytest.fixture(scope="session")
def scalars(mmengine_runs):
    """Function: what the only run of a work folder logged."""
    return mmengine_runs.scalars
