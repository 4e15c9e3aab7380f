"""A small segmentor, and the official lists of names and shapes."""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

importlib.import_module("eva_segmentation.plugin")  # before anything of mmdetection

CONFIGS = Path(__file__).parents[2] / "segmentation" / "configs"
KEYS = Path(__file__).parents[1] / "golden" / "keys"
WIDTH = 32


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
    return lambda name: Config.fromfile(CONFIGS / f"{name}.py")


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
