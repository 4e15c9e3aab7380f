"""The recipes beside the paper and the official commands; see also `tests/recipes.csv`."""

from pathlib import Path

import pytest

from eva_contrastive.config import ContrastiveConfig
from eva_data.captions import opening
from eva_data.manifests import Manifest
from eva_engine.commands.training import load_recipe

CONFIGS = Path(__file__).parents[2] / "clip" / "configs"
PAIRS = 400_000_000  # of LAION-400M


def load(name):
    return load_recipe(CONFIGS / f"{name}.py", ContrastiveConfig)


def test_what_was_published_of_eva_clip_g():
    """Paper Table 10a and section 2.3.5; the released config for the rest."""
    config = load("eva_clip_g_patch14")
    model, run = config.model, config.run
    assert (model.variant, model.image_size, model.text) == ("eva_g_patch14", 224, "clip_l")
    assert model.init_checkpoint == "eva_psz14.pt"
    assert model.patch_dropout == 0
    assert (config.loss, config.max_logit_scale) == ("contrastive", 100)
    step = run.batch_size * run.accumulate * 256  # "41k" on 256 GPUs
    assert run.epochs * PAIRS == pytest.approx(11e9, rel=0.02)  # "11B"
    assert config.optimizer.warmup_epochs * (PAIRS // step) == pytest.approx(2000, abs=3)
    assert model.embed_dim == 1024


def test_the_command_of_eva_clip_g_plus():
    """The official README's command: --visual-lr=4e-4 --text-lr=4e-5 --lr=5e-4 and so on."""
    config = load("eva_clip_g_plus_patch14")
    vision, text, optimizer = config.vision, config.text, config.optimizer
    assert (vision.lr, vision.weight_decay, vision.layer_decay) == (4e-4, 0.05, 0.85)
    assert (text.lr, text.weight_decay, text.layer_decay) == (4e-5, 0.05, 0.75)
    expected = ("deepspeed_lamb", 0.5, 4096)
    assert (optimizer.name, config.model.patch_dropout, config.run.seed) == expected
    steps = 2_000_000_000 // 114_688
    assert optimizer.warmup_epochs * steps == pytest.approx(2000, abs=10)
    assert config.run.epochs * steps == pytest.approx(100 * 40_000_000 / 114_688, rel=0.01)


def test_the_pairs_of_eva_clip_g_plus(monkeypatch):
    monkeypatch.setenv("EVA_CLIP_DATA", "/data")
    train = load("eva_clip_g_plus_patch14").data.train
    laion, coyo = Manifest.read(CONFIGS.parents[1] / train, form=opening.PAIRS).sources
    assert (laion.limit, coyo.limit) == (1_600_000_000, 400_000_000)
    assert laion.location == "/data/laion2b/*.tar"
