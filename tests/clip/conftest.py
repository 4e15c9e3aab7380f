"""Small models of two towers, and files of them under the official names."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eva_backbone import variants
from eva_contrastive.config import TEXT_VARIANTS, TextVariant
from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower, build_eva_clip

VISION = {
    "img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48
}  # fmt: skip
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="session")
def make_clip(randomise):
    """Function: a small CLIP, random everywhere, in eval mode."""

    def make(*, output_dim=16, sigmoid=False, text=None, **vision):
        visual = VisionTower(output_dim=output_dim, **VISION | vision)
        words = TextTower(output_dim=output_dim, sigmoid=sigmoid, **TEXT | (text or {}))
        return randomise(EvaClip(visual, words)).eval()

    return make


@pytest.fixture
def small_sizes(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and EVA-CLIP-g so small that its files fit into it."""
    vision = replace(
        variants.VARIANTS["eva_g_patch14"],
        img_size=28, embed_dim=44, depth=2, num_heads=2, mlp_dim=48,
    )  # fmt: skip
    monkeypatch.setitem(variants.VARIANTS, "eva_g_patch14", vision)
    text = TextVariant(24, 2, 2, context_length=16)
    monkeypatch.setitem(TEXT_VARIANTS, "clip_l", text)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def official_clip(small_sizes, official, randomise):
    """A small EVA-CLIP, and the official file `eva_clip_psz14.pt` of it, in half precision."""
    model = randomise(build_eva_clip(embed_dim=16)).half().float().eval()
    state = {name: value.half() for name, value in model.state_dict().items()}
    state["text.logit_scale"] = state["text.logit_scale"].reshape(())
    torch.save(state, small_sizes / "eva_clip_psz14.pt")
    official(small_sizes / "eva_clip_psz14.pt")
    return model


COLOURS = {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 60, 200), "white": (240,) * 3}
RECIPE = """
from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ContrastiveConfig(
    model=ModelConfig(
        variant="eva_debug", image_size=16, text="debug", embed_dim=16, drop_path_rate=0.1,
        patch_dropout=0.25, init_checkpoint="eva_debug",
    ),
    data=DataConfig(
        train="{data}/pairs.tar", val="{data}/pairs.tar", zero_shot="{data}/classes",
        templates=("a {{}} picture",),
    ),
    vision=TowerConfig(lr=3e-4, layer_decay=0.9),
    text=TowerConfig(lr=3e-4),
    optimizer=OptimizerConfig(lr=3e-4, warmup_epochs=1, betas=(0.9, 0.98), clip_grad=1.0),
    run=RunConfig(
        output="unused", resume=True, epochs=3, batch_size=4, accumulate=2, workers=0,
        tensorboard=False, ema_decay=0.9, checkpoint_every=2, log_every=1, device="cpu",
    ),
)
"""


def _picture(colour, chance):
    pixels = chance.normal(colour, 12, (20, 24, 3)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, write_tar):
    """A folder with `pairs.tar`, 32 pictures of four colours and captions, and `classes/`."""
    folder = tmp_path_factory.mktemp("pairs")
    chance = np.random.default_rng(0)
    samples = []
    for number in range(32):
        name = [*COLOURS][number % 4]
        content = _picture(COLOURS[name], chance)
        samples.append((f"{number:04}.png", content))
        samples.append((f"{number:04}.txt", f"a {name} picture".encode()))
        place = folder / "classes" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    write_tar(folder / "pairs.tar", samples)
    return folder


@pytest.fixture(scope="session")
def launcher(start_launcher):
    """A process that has imported `program.py` and forks for each run."""
    with start_launcher(Path(__file__).parent) as submit:
        yield submit


@pytest.fixture
def recipe(pairs, tmp_path, monkeypatch):
    """The file of a recipe on `pairs`, with all that is random; its text tower is narrow."""
    monkeypatch.setitem(TEXT_VARIANTS, "debug", TextVariant(16, 2, 1, context_length=32))
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE.format(data=pairs))
    return file
