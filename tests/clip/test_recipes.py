"""The recipes beside the paper and the official commands; see also `tests/recipes.csv`."""

from pathlib import Path

import pytest

from eva_contrastive.config import ContrastiveConfig
from eva_data.captions.sources import PAIRS
from eva_data.manifests import Manifest
from eva_engine.commands.training import load_recipe

CONFIGS = Path(__file__).parents[2] / "clip" / "configs"
LAION_PAIRS = 400_000_000  # of LAION-400M


def load(name):
    return load_recipe(CONFIGS / f"{name}.py", ContrastiveConfig)


def test_the_published_lengths():
    """ "41k" pairs on 256 GPUs, "11B" in all and 2,000 steps of warm-up; the same of g+."""
    config = load("eva_clip_g_patch14")
    run, step = config.run, config.run.batch_size * config.run.accumulate * 256
    assert run.epochs * LAION_PAIRS == pytest.approx(11e9, rel=0.02)
    assert config.optimizer.warmup_epochs * (LAION_PAIRS // step) == pytest.approx(2000, abs=3)
    plus, steps = load("eva_clip_g_plus_patch14"), 2_000_000_000 // 114_688
    assert plus.optimizer.warmup_epochs * steps == pytest.approx(2000, abs=10)
    assert plus.run.epochs * steps == pytest.approx(100 * 40_000_000 / 114_688, rel=0.01)


def test_the_pairs_of_eva_clip_g_plus(monkeypatch):
    monkeypatch.setenv("EVA_CLIP_DATA", "/data")
    train = load("eva_clip_g_plus_patch14").data.train
    laion, coyo = Manifest.read(CONFIGS.parents[1] / train, form=PAIRS).sources
    assert (laion.limit, coyo.limit) == (1_600_000_000, 400_000_000)
    assert laion.location == "/data/laion2b/*.tar"
