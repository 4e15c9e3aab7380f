"""Small segmentors, their runs, and the official lists of names and shapes."""

import ast
import copy
import importlib
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from PIL import Image

importlib.import_module("eva_segmentation.plugin")  # before anything of mmdetection

from eva_openmmlab import config as configuration  # noqa: E402
from eva_segmentation.commands import train  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "segmentation" / "configs"
KEYS = Path(__file__).parents[1] / "golden" / "keys"
WIDTH = 32
SIDE = 32  # of the pictures of small runs


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


@pytest.fixture(scope="session")
def configs():
    """Folder of the published configs."""
    return CONFIGS


@pytest.fixture(scope="session")
def load_config():
    """Function: a published config by its name below `segmentation/configs`."""
    read = cache(lambda name: Config.fromfile(CONFIGS / f"{name}.py"))
    return lambda name: copy.deepcopy(read(name))


@pytest.fixture(scope="session")
def official_shapes():
    """Function: name -> shape of an official file's parameters."""

    def read(name):
        lines = (KEYS / f"segmentation_{name}.txt").read_text().splitlines()
        return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines)}

    return read


@pytest.fixture(scope="session")
def small_head(load_config):
    """Function: config of the published head with fewer channels, layers and points."""

    def make(channels=16, **changes):
        head = load_config("ade20k/mask2former_eva_g_896_20k").model.decode_head
        for attention in (
            head.pixel_decoder.encoder.layer_cfg.self_attn_cfg,
            head.transformer_decoder.layer_cfg.self_attn_cfg,
            head.transformer_decoder.layer_cfg.cross_attn_cfg,
        ):
            attention.update(embed_dims=WIDTH, num_heads=2)
        for part in (head.pixel_decoder.encoder, head.transformer_decoder):
            part.layer_cfg.ffn_cfg.update(embed_dims=WIDTH, feedforward_channels=48)
        head.pixel_decoder.positional_encoding.num_feats = WIDTH // 2
        head.positional_encoding.num_feats = WIDTH // 2
        head.pixel_decoder.norm_cfg.num_groups = 4
        head.pixel_decoder.encoder.num_layers = 1
        head.transformer_decoder.num_layers = 2
        head.train_cfg.num_points = 64
        head.update(
            num_classes=4,
            in_channels=[channels] * 4,
            feat_channels=WIDTH,
            out_channels=WIDTH,
            num_queries=6,
        )
        head.update(changes)
        return ConfigDict(head)

    return make


@pytest.fixture(scope="session")
def make_maps():
    """Function: maps of strides 4, 8, 16 and 32 for pictures of a size."""

    def make(size=64, batch=2, channels=16):
        return tuple(torch.randn(batch, channels, size // s, size // s) for s in (4, 8, 16, 32))

    return make


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """The engine's tests keep a process group of one, in which SyncBN refuses to run on a CPU."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


# ---- own data ------------------------------------------------------------------------------------

CLASSES = """
ignore = [0]
[[classes]]
name = "road"
label = 7
color = [128, 64, 128]
[[classes]]
name = "sky"
label = 40
"""


@pytest.fixture
def own(tmp_path):
    """Folders `images` and `maps` with three pairs of 20 x 30 px, one below a folder; classes."""
    rng = np.random.default_rng(0)
    for kind in ("images", "maps"):
        (tmp_path / kind / "b").mkdir(parents=True)
    for name in ("a", "b/c", "d"):
        Image.new("RGB", (30, 20), (9, 99, 9)).save(tmp_path / "images" / f"{name}.jpg")
        values = rng.choice(np.array([0, 7, 40], np.uint8), (20, 30))
        Image.fromarray(values).save(tmp_path / "maps" / f"{name}.png")
    (tmp_path / "classes.toml").write_text(CLASSES)
    return tmp_path


# ---- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def write_pairs():
    """Function: pictures whose colours show the labels, and their maps; name -> height, width."""

    def write(images, maps, sizes, labels):
        generator = np.random.default_rng(0)
        for name, (height, width) in sizes.items():
            for folder in (images, maps):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            classes = generator.integers(0, len(labels), (height // 8, width // 8))
            classes = classes.repeat(8, 0).repeat(8, 1)
            noise = generator.integers(0, 40, (height, width, 3))
            pixels = classes[:, :, None] * np.array([40, 0, -40]) + np.array([0, 90, 200]) + noise
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / f"{name}.jpg")
            values = np.array(labels, np.uint8)[classes]
            Image.fromarray(values).save(maps / f"{name}.png")

    return write


@pytest.fixture(scope="session")
def tiny(load_config):
    """Function: the light debug config at 32 px, for three iterations of a small ViT."""

    def make():
        cfg = load_config("demo/upernet_eva_debug")
        cfg.pop("randomness")
        cfg.load_from, cfg.log_level = None, "WARNING"
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
        cfg.model.backbone.update(
            img_size=SIDE, embed_dim=16, depth=2, num_heads=2, mlp_dim=24, out_channels=8
        )
        head = cfg.model.decode_head
        head.update(in_channels=[8] * len(head.in_index), channels=8, pool_scales=(1, 2))
        cfg.model.auxiliary_head.update(in_channels=8, channels=8)
        cfg.model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
        scales = load_config("demo/mask2former_eva_debug")
        cfg.tta_model, cfg.tta_pipeline = scales.tta_model, scales.tta_pipeline
        views = cfg.tta_pipeline[1].transforms
        views[0] = [dict(type="Resize", scale=(4 * s, s), keep_ratio=True) for s in (32, 48)]
        views[3] = [dict(type="PadShortSide", size=SIDE)]
        for loader in configuration.LOADERS:
            for step in cfg[loader].dataset.pipeline:
                if "scale" in step:
                    step.scale = (SIDE, SIDE) if step.type == "RandomResize" else (4 * SIDE, SIDE)
                if "crop_size" in step:
                    step.crop_size = (SIDE, SIDE)
        cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
        cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 2
        cfg.train_cfg.update(max_iters=3, val_interval=3)
        cfg.optim_wrapper.optimizer.lr = 0.02
        cfg.param_scheduler[0].warmup_iters = 1
        cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1
        return cfg

    return make


@pytest.fixture(scope="session")
def forget_runs(mmengine_runs):
    """Function: mmengine names what a process has only once after the time, in seconds."""
    return partial(mmengine_runs.forget, "mmseg")


@pytest.fixture(scope="session")
def launch(mmengine_runs):
    """Function: run a program as its script does, and leave the process as it was."""
    return partial(mmengine_runs.launch, "mmseg")


@pytest.fixture(scope="session")
def fails(mmengine_runs):
    """Function: run a program that refuses or fails; returns its last line."""
    return partial(mmengine_runs.fails, "mmseg")


@pytest.fixture(scope="session")
def tiny_run(tiny, launch, write_pairs, tmp_path_factory):
    """Folder with data in ADE20K's layout and the work folder `run` of three iterations on it.

    `run/tiny.py` is the saved config; the seed was named on the command line.
    """
    root = tmp_path_factory.mktemp("tiny")
    names = {"training": "abcd", "validation": ("a", "sub/a", "b")}
    for part in names:
        sizes = dict.fromkeys(names[part], (SIDE, SIDE))
        write_pairs(root / "images" / part, root / "annotations" / part, sizes, range(6))
    cfg = tiny()
    configuration.set_data_root(cfg, root)
    cfg.dump(root / "tiny.py")
    seed = ("--cfg-options", "randomness.seed=3")
    launch(train, root / "tiny.py", "--work-dir", root / "run", *seed)
    return root


@pytest.fixture(scope="session")
def scalars(mmengine_runs):
    """Function: what the only run of a work folder logged."""
    return mmengine_runs.scalars
